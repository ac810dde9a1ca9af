//! Reads any bytes, and any text in a valid envelope, as a VM's state and as a snapshot's manifest. The result must be an error, or
//! a value that is the same after it was written and read again.
#![no_main]

use cloner::snapshot::Manifest;
use libfuzzer_sys::fuzz_target;
use vmm::VmState;
use vmm::schema::envelope::Schema;

/// The envelopes, written down here a second time, because an attacker who forges one needs no access to a constant.
const VM_STATE: Schema = Schema { magic: *b"CLNVMST\0", version: 2, name: "VM state" };
const MANIFEST: Schema = Schema { magic: *b"CLNSNAP\0", version: 2, name: "snapshot manifest" };
const HEADER_BYTES: usize = 32;

fuzz_target!(|bytes: &[u8]| {
    state(bytes);
    manifest(bytes);
    // A mutated golden file is an envelope around some text: puts this text into a valid envelope.
    let text = bytes.get(HEADER_BYTES..).unwrap_or(bytes);
    state(&VM_STATE.wrap(text));
    manifest(&MANIFEST.wrap(text));
});

fn state(bytes: &[u8]) {
    let Ok(state) = VmState::from_bytes(bytes) else { return };
    assert_eq!(state.layout().size_bytes(), state.get().memory_bytes);
    let written = state.to_bytes();
    let again = VmState::from_bytes(&written).expect("it was just written");
    assert_eq!(again, state);
    assert_eq!(again.to_bytes(), written);
}

fn manifest(bytes: &[u8]) {
    let Ok(manifest) = Manifest::from_bytes(bytes) else { return };
    let again = Manifest::from_bytes(&manifest.get().to_bytes()).expect("it was just written");
    assert_eq!(again, manifest);
    assert_eq!(again.memory_bytes(), manifest.get().regions[0].bytes);
}
