//! A VM's state made by an attacker: every error is named, and nothing has been built.

mod devices;
mod here;
mod ranges;

use std::collections::BTreeSet;

use cloner_testing::json::any_index;
use cloner_testing::{Guest, assert_names, guest, note, room_for};
use guest_images::pulse::Params;
use serde_json::{Value, json};
use vmm::VmState;
use vmm::schema::envelope::{Error as EnvelopeError, Schema};
use vmm::state::{DecodeError, VmStateV2};
use vmm::vcpu::cpuid::shows_virtualization;
use vmm::vcpu::state::NestedStateV1;

use crate::MIB;

/// The envelope of a VM's state, repeated here on purpose: an attacker needs no access to the constant.
const VM_STATE: Schema = Schema { magic: *b"CLNVMST\0", version: 2, name: "VM state" };
const HEADER_BYTES: usize = 32;

/// The state of a real machine.
fn real(vcpus: u8) -> VmState {
    let source = Guest::boot(&guest::pulse(&Params { beat_ms: 20, ..Params::new(1, 0) }, MIB, vcpus));
    source.line("pulse: ready");
    source.pause().save().unwrap()
}

/// Decodes a state from text that its author has put into a valid envelope.
fn from_text(text: &[u8]) -> Result<VmState, DecodeError> {
    VmState::from_bytes(&VM_STATE.wrap(text))
}

#[test]
#[ignore = "writes the golden VM state: only for a new version of the schema"]
fn write_the_golden_state() {
    let Some(_room) = room_for(1) else { return };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../vmm/src/state/golden/v2-pulse.vmstate");
    std::fs::write(path, real(1).to_bytes()).unwrap();
}

fn from_json(json: &Value) -> Result<VmState, DecodeError> {
    from_text(&serde_json::to_vec(json).unwrap())
}

/// The state with one value changed, and whatever must change with it: all vCPUs have one frequency, and a guest that is shown
/// virtualization has state of it.
fn with(json: &Value, pointer: &str, value: Value) -> Value {
    let mut json = json.clone();
    // Zero is not a valid frequency, and is found before frequencies are compared.
    if pointer.ends_with("/tsc/khz") && value != json!(0) {
        json["vcpus"].as_array_mut().unwrap().iter_mut().for_each(|vcpu| vcpu["tsc"]["khz"] = value.clone());
        return json;
    }
    *json.pointer_mut(pointer).unwrap() = value;
    if pointer.ends_with("/ecx")
        && let Ok(state) = serde_json::from_value::<VmStateV2>(json.clone())
    {
        for (i, vcpu) in state.vcpus.iter().enumerate().filter(|(_, vcpu)| shows_virtualization(&vcpu.cpuid))
        {
            json["vcpus"][i]["nested"] =
                vcpu.nested.as_ref().map_or(json!(no_inner_guest()), |nested| json!(nested));
        }
    }
    json
}

/// State of nested virtualization that was never used.
fn no_inner_guest() -> NestedStateV1 {
    NestedStateV1 { flags: 0, format: 1, header: vec![0; 120], data: vec![] }
}

/// Hexadecimal fields must hold hexadecimal digits.
#[test]
fn bytes_are_hexadecimal() {
    let Some(_room) = room_for(1) else { return };
    let json = serde_json::to_value(real(1).get()).unwrap();
    for pointer in ["/vcpus/0/xsave", "/vcpus/0/lapic", "/devices/serial/content/receive_fifo"] {
        for wrong in [json!("0"), json!("0g"), json!("é"), json!("+1"), json!(" 00"), json!(7), json!([0, 1])]
        {
            let result = from_json(&with(&json, pointer, wrong.clone()));
            assert!(
                matches!(result, Err(DecodeError::Envelope(EnvelopeError::Schema(_)))),
                "{pointer} = {wrong}: {result:?}"
            );
        }
    }
}

/// Every object must have every field exactly once, and no others.
#[test]
fn missing_unknown_and_repeated_fields() {
    let Some(_room) = room_for(1) else { return };
    let json = serde_json::to_value(real(1).get()).unwrap();
    let mut objects = vec![String::new()];
    let mut fields = 0;
    let mut seen = BTreeSet::new();
    while let Some(at) = objects.pop() {
        let children: Vec<String> = match json.pointer(&at).unwrap() {
            Value::Object(object) => {
                for name in object.keys().filter(|_| seen.insert(any_index(&at))).take(1).chain(object.keys())
                {
                    let mut less = json.clone();
                    less.pointer_mut(&at).unwrap().as_object_mut().unwrap().remove(name);
                    let error = from_json(&less).unwrap_err();
                    assert!(
                        matches!(error, DecodeError::Envelope(EnvelopeError::Schema(_))),
                        "{at}/{name}: {error:?}"
                    );
                    assert_names(
                        &error,
                        &[if at == "/devices" { "missing device" } else { "missing field" }, name],
                    );
                    fields += 1;
                }
                let mut more = json.clone();
                more.pointer_mut(&at)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .insert("surprise".to_owned(), json!(0));
                let error = from_json(&more).unwrap_err();
                assert!(matches!(error, DecodeError::Envelope(EnvelopeError::Schema(_))), "{at}: {error:?}");
                assert_names(
                    &error,
                    &[if at == "/devices" { "unknown device" } else { "unknown field" }, "surprise"],
                );
                object.keys().map(|name| format!("{at}/{name}")).collect()
            }
            // One element stands for all.
            Value::Array(items) if !items.is_empty() => vec![format!("{at}/0")],
            _ => vec![],
        };
        objects.extend(children);
    }
    assert!(fields > 150, "{fields} fields");

    let text = serde_json::to_string(&json).unwrap();
    let twice = text.replacen("\"memory_bytes\":", "\"memory_bytes\":2097152,\"memory_bytes\":", 1);
    assert_names(&from_text(twice.as_bytes()).unwrap_err(), &["duplicate field", "memory_bytes"]);
    for text in
        ["", "{", "[]", "null", "{}", &text[..text.len() - 1], &format!("{text} 1"), &"[".repeat(100_000)]
    {
        let error = from_text(text.as_bytes()).unwrap_err();
        assert!(matches!(error, DecodeError::Envelope(EnvelopeError::Schema(_))), "{error:?}");
    }
}

#[test]
fn the_envelope_names_what_is_wrong() {
    let Some(_room) = room_for(1) else { return };
    let bytes = real(1).to_bytes();
    let edited = |offset: usize, new: &[u8]| {
        let mut bytes = bytes.clone();
        bytes[offset..offset + new.len()].copy_from_slice(new);
        VmState::from_bytes(&bytes).unwrap_err()
    };
    let error = edited(0, b"CLNSNAP\0");
    assert!(
        matches!(error, DecodeError::Envelope(EnvelopeError::Magic { found, .. }) if found == *b"CLNSNAP\0"),
        "{error:?}"
    );
    assert_names(&error, &["not a VM state"]);
    for version in [0, 1, 3, u32::MAX] {
        let error = edited(8, &version.to_le_bytes());
        let named = matches!(error, DecodeError::Envelope(EnvelopeError::Version { found, known: 2, .. }) if found == version);
        assert!(named, "{error:?}");
        assert_names(&error, &["VM state", &format!("version {version}"), "version 2"]);
    }
    assert!(matches!(edited(12, &[1]), DecodeError::Envelope(EnvelopeError::Reserved { found: 1, .. })));
    let text_bytes = bytes.len() - HEADER_BYTES;
    for promised in [0, text_bytes as u64 - 1, text_bytes as u64 + 1, u64::MAX] {
        let error = edited(16, &promised.to_le_bytes());
        let named = matches!(error, DecodeError::Envelope(EnvelopeError::Length { promised: p, found, .. }) if (p, found) == (promised, text_bytes));
        assert!(named, "{error:?}");
        assert_names(&error, &[&promised.to_string(), &text_bytes.to_string()]);
    }
    assert!(matches!(edited(24, &[!bytes[24]]), DecodeError::Envelope(EnvelopeError::Checksum { .. })));
    assert!(matches!(edited(HEADER_BYTES, b" "), DecodeError::Envelope(EnvelopeError::Checksum { .. })));
    let longer = [bytes.as_slice(), b" "].concat();
    assert!(matches!(VmState::from_bytes(&longer), Err(DecodeError::Envelope(EnvelopeError::Length { .. }))));
}

#[test]
fn a_state_cut_at_any_byte() {
    let Some(_room) = room_for(1) else { return };
    let bytes = real(1).to_bytes();
    for len in 0..bytes.len() {
        let error = VmState::from_bytes(&bytes[..len]).unwrap_err();
        let named = match len {
            0..HEADER_BYTES => {
                matches!(error, DecodeError::Envelope(EnvelopeError::Short { found, .. }) if found == len)
            }
            _ => {
                matches!(error, DecodeError::Envelope(EnvelopeError::Length { found, .. }) if found == len - HEADER_BYTES)
            }
        };
        assert!(named, "{len} of {} bytes: {error:?}", bytes.len());
    }
}

#[test]
fn a_state_with_any_bit_flipped() {
    let Some(_room) = room_for(1) else { return };
    let mut bytes = real(1).to_bytes();
    for bit in 0..bytes.len() * 8 {
        bytes[bit / 8] ^= 1 << (bit % 8);
        let result = VmState::from_bytes(&bytes);
        assert!(result.is_err(), "bit {bit} of {}", bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
    }
    assert!(VmState::from_bytes(&bytes).is_ok());
}

/// Even with a valid checksum nothing panics, and what is accepted means exactly what the text says.
#[test]
fn a_text_with_bits_flipped_in_a_perfect_envelope() {
    let Some(_room) = room_for(1) else { return };
    let mut text = serde_json::to_vec(real(1).get()).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    // A prime step, so that every bit position is met in every kind of byte.
    for bit in (0..text.len() * 8).step_by(11) {
        text[bit / 8] ^= 1 << (bit % 8);
        match from_text(&text) {
            Ok(state) => {
                let said: Value = serde_json::from_slice(&text).unwrap();
                let mut read = serde_json::to_value(state.get()).unwrap();
                // The digits a to f may be capital.
                for pointer in ["/vcpus/0/xsave", "/vcpus/0/lapic", "/devices/serial/content/receive_fifo"] {
                    let text = said.pointer(pointer).unwrap().as_str().unwrap();
                    let digits = read.pointer_mut(pointer).unwrap();
                    assert!(digits.as_str().unwrap().eq_ignore_ascii_case(text));
                    *digits = json!(text);
                }
                assert_eq!(read, said, "bit {bit}");
                accepted += 1;
            }
            Err(_) => refused += 1,
        }
        text[bit / 8] ^= 1 << (bit % 8);
    }
    note(format_args!(
        "VM state with bits flipped and a checksum that fits: {refused} refused, {accepted} are other states"
    ));
    assert!(accepted > 100 && refused > 100);
}
