//! However a guest ends, only that guest ends: the reason is reported, and the process goes on.

use cloner_testing::{Guest, Studio, guest, room_for, value};
use guest_images::pulse::{
    DirtyRate, DirtyWork, EXIT_BAD_PARAMS, EXIT_FAULT, EXIT_QUIT, EXIT_SEQUENCE, Params, Work, WriteOrder,
    layout,
};
use vmm::host::{Host, Virtualization};
use vmm::{Ending, VmState};

use crate::MIB;

fn booted() -> Guest {
    let guest = Guest::boot(&guest::pulse(&Params { beat_ms: 0, ..Params::new(1, MIB) }, 4 * MIB, 1));
    guest.line("pulse: ready");
    guest
}

/// A guest that has ended cannot be saved; the error says how it ended.
fn assert_over(guest: &Guest, ending: &Ending) {
    assert_eq!(guest.vm.ending().as_ref(), Some(ending));
    match guest.vm.pause() {
        Err(vmm::Error::Ended(reported)) => assert_eq!(reported, *ending),
        other => panic!("{other:?}"),
    };
}

#[test]
fn a_triple_fault_names_rip_and_bytes() {
    let Some(_room) = room_for(1) else { return };
    let guest = booted();
    guest.send("t");
    let ending = guest.end();
    let Ending::TripleFault { vcpu: 0, rip, bytes } = &ending else { panic!("{ending:?}") };
    assert!(!ending.is_orderly());
    match Host::get().unwrap().virtualization() {
        Virtualization::PageTableBased => {
            assert_is_code(&guest, *rip, bytes);
            assert!(ending.to_string().contains(&format!("{rip:#x}")), "{ending}");
        }
        // SVM resets the registers before KVM can be asked for them.
        Virtualization::Hardware => {}
    }
    assert_over(&guest, &ending);
}

#[test]
fn an_instruction_nobody_can_emulate_names_rip_and_bytes() {
    let Some(_room) = room_for(1) else { return };
    let guest = booted();
    guest.send("e");
    let ending = guest.end();
    assert!(!ending.is_orderly());
    // FBLD from an address where there is no memory: no host can carry it out.
    let Ending::EmulationFailure { vcpu: 0, rip, bytes } = &ending else { panic!("{ending:?}") };
    assert_is_code(&guest, *rip, bytes);
    assert!(bytes.starts_with("df 23"), "{bytes}");
    assert!(
        ending.to_string().contains(&format!("{rip:#x}")) && ending.to_string().contains(bytes),
        "{ending}"
    );
    assert_over(&guest, &ending);
}

/// Asserts that the reported bytes are those of the guest's program at RIP.
fn assert_is_code(guest: &Guest, rip: u64, bytes: &str) {
    assert!((layout::LOAD_ADDRESS..layout::END).contains(&rip), "{rip:#x}");
    let reported: Vec<u8> = bytes.split(' ').map(|byte| u8::from_str_radix(byte, 16).unwrap()).collect();
    let mut code = vec![0; reported.len()];
    guest.vm.memory().read(rip, &mut code).unwrap();
    assert_eq!(reported, code);
    assert!(reported.len() >= 8, "{bytes}");
}

#[test]
fn a_guest_ends_itself_with_a_code() {
    let Some(_room) = room_for(1) else { return };
    let guest = booted();
    guest.send("q");
    assert_eq!(guest.end(), Ending::Shutdown { code: EXIT_QUIT });
    assert!(guest.end().is_orderly());
    assert_over(&guest, &Ending::Shutdown { code: EXIT_QUIT });
}

/// An exception in the guest: the guest reports where, the VMM reports the exit code.
#[test]
fn a_fault_is_reported_by_the_guest() {
    let Some(_room) = room_for(1) else { return };
    const NOWHERE: u64 = 1 << 40;
    let studio = Studio::new(16 * MIB);
    let params = Params { beat_ms: 0, work: Work::SelfTest, ..Params::new(1, 0) };
    let source = Guest::boot(&guest::pulse(&params, MIB, 2));
    source.line("pulse: ready");
    let snapshot = studio.snapshot(&source, "sane");
    drop(source);
    // A clone that continues at an address where there is no memory.
    let mut state = snapshot.state().get().clone();
    state.vcpus[1].regs.rip = NOWHERE;
    let clone = Guest::resume(&VmState::try_from(state).unwrap(), studio.memory(&snapshot));
    let line = clone.line("pulse: fault").text;
    assert_eq!((value(&line, "rip", 16), value(&line, "cpu", 10)), (NOWHERE, 1), "{line}");
    assert_eq!(clone.end(), Ending::Shutdown { code: EXIT_FAULT });
}

#[test]
fn too_little_memory_is_reported_by_the_guest() {
    let Some(_room) = room_for(1) else { return };
    let guest = Guest::boot(&guest::pulse(&Params::new(1, MIB + 4096), 2 * MIB, 1));
    assert_eq!(guest.end(), Ending::Shutdown { code: EXIT_BAD_PARAMS });
    guest.line("pulse: error: not enough memory");
}

/// A broken restore would give memory from the past: the guest itself must notice that.
#[test]
fn a_clone_notices_a_page_from_the_past() {
    let Some(_room) = room_for(1) else { return };
    let work = Work::Dirty(DirtyWork {
        rate: DirtyRate::FullSpeed,
        working_set: 1000,
        order: WriteOrder::Sequential,
        words_per_page: 512,
    });
    let params = Params { beat_ms: 0, work, ..Params::new(1, MIB) };
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&params, 4 * MIB, 1));
    source.line("pulse: ready");
    let sequence = || guest::status(source.vm.memory()).cpus[0].sequence;
    while sequence() < 1000 {}
    let old = studio.memory(&studio.snapshot(&source, "old"));
    let then = sequence();
    while sequence() < then + 1000 {}
    let new = studio.snapshot(&source, "new");
    let memory = studio.memory(&new);
    let mut page = [0; 4096];
    let address = Params::page_address(memory.layout().low_bytes(), 100);
    old.read(address, &mut page).unwrap();
    memory.write(address, &page).unwrap();
    let clone = Guest::resume(new.state(), memory);
    assert_eq!(clone.end(), Ending::Shutdown { code: EXIT_SEQUENCE });
    assert_eq!(value(&clone.line("pulse: sequence cpu=0 FAILED").text, "address", 16), address);
}

/// When one guest ends, no other does.
#[test]
fn other_guests_live_on_when_one_crashes() {
    let Some(_room) = room_for(3) else { return };
    let params = Params { beat_ms: 20, ..Params::new(1, MIB) };
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&params, 4 * MIB, 1));
    source.line("pulse: ready");
    let snapshot = studio.snapshot(&source, "three");
    let [victim, witness] = [studio.clone_of(&snapshot), studio.clone_of(&snapshot)];
    victim.send("t");
    assert!(matches!(victim.end(), Ending::TripleFault { .. }));
    drop(victim);
    for guest in [&source, &witness] {
        let beat = guest.beats().last().copied().unwrap_or(0);
        while guest.beat() <= beat + 2 {}
        assert_eq!(guest.nonce(), 1);
    }
    // The snapshot is intact as well.
    assert_eq!(studio.clone_of(&snapshot).nonce(), 1);
}
