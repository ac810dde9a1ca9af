//! A VM's state from somebody who means harm: every error is named, and nothing has been built.

use std::collections::BTreeSet;

use guest_images::pulse::Params;
use serde_json::{Value, json};
use vmm::host::Host;
use vmm::memory::{Backing, GuestMemory, Layout, PageSize};
use vmm::state::envelope::{Error as EnvelopeError, Schema};
use vmm::state::{self, VmStateV1};
use vmm::vcpu::cpuid::Mismatch;
use vmm::{Vm, VmState};

use crate::MIB;
use crate::support::host::Holdings;
use crate::support::json::{any_index, leaves};
use crate::support::{Guest, alone, assert_names, chain, guest, note, room_for};

/// The envelope of a VM's state, written down here a second time: an attacker needs no access to a constant.
const VM_STATE: Schema = Schema { magic: *b"CLNVMST\0", version: 1, name: "VM state" };
const HEADER_BYTES: usize = 32;

/// A state as it really is.
fn real(vcpus: u8) -> VmState {
    let source = Guest::boot(&guest::pulse(&Params { beat_ms: 20, ..Params::new(1, 0) }, MIB, vcpus));
    source.line("pulse: ready");
    source.pause().save().unwrap()
}

/// Reads a state from text that its author has put into a perfect envelope.
fn from_text(text: &[u8]) -> Result<VmState, EnvelopeError> {
    VmState::from_bytes(&VM_STATE.wrap(text))
}

#[test]
#[ignore = "writes the golden VM state: only for a new version of the schema"]
fn write_the_golden_state() {
    let Some(_room) = room_for(1) else { return };
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vmm/src/state/golden/v1-pulse.vmstate");
    std::fs::write(path, real(1).to_bytes()).unwrap();
}

fn from_json(json: &Value) -> Result<VmState, EnvelopeError> {
    from_text(&serde_json::to_vec(json).unwrap())
}

fn with(json: &Value, pointer: &str, value: Value) -> Value {
    let mut json = json.clone();
    *json.pointer_mut(pointer).unwrap() = value;
    json
}

/// What a number may be.
#[derive(Debug, Clone, Copy)]
enum Allowed {
    /// All its type holds: registers, and what the guest or KVM makes of it.
    Any,
    Between(u64, u64),
    /// Any of these bits.
    Bits(u64),
    /// As `Between`, or this.
    UpToOr(u64, u64),
    /// This, and any of these bits.
    With(u64, u64),
}

use Allowed::{Any, Between, Bits, UpToOr, With};

impl Allowed {
    const fn up_to(max: u64) -> Self {
        Between(0, max)
    }

    /// Values that must be refused, and values that must not.
    fn examples(self, type_max: u64) -> (Vec<u64>, Vec<u64>) {
        let (mut refused, accepted) = match self {
            Any => (vec![], vec![0, type_max]),
            Between(min, max) => (vec![min.wrapping_sub(1), max.wrapping_add(1), type_max], vec![min, max]),
            Bits(mask) => {
                ((0..64).map(|bit| 1 << bit).filter(|bit| bit & mask == 0).collect(), vec![0, mask])
            }
            UpToOr(max, other) => (vec![max + 1, other - 1], vec![0, max, other]),
            With(fixed, mask) => (vec![0, fixed ^ 0x1000, type_max], vec![fixed, fixed | mask]),
        };
        refused.retain(|value| *value <= type_max && !accepted.contains(value));
        (refused, accepted)
    }
}

const U8: u64 = u8::MAX as u64;
const U16: u64 = u16::MAX as u64;
const U32: u64 = u32::MAX as u64;
const U64: u64 = u64::MAX;
const I64: u64 = i64::MAX as u64;

/// Every number of the schema: where, the greatest its type holds, and what is allowed. The first that fits counts; in a
/// path, `*` stands for any one part.
const NUMBERS: &[(&str, u64, Allowed)] = &[
    ("/vcpus/*/mp_state", U32, Allowed::up_to(4)),
    ("/vcpus/*/regs/*", U64, Any),
    ("/vcpus/*/sregs/*/base", U64, Any),
    ("/vcpus/*/sregs/gdt/limit", U16, Any),
    ("/vcpus/*/sregs/idt/limit", U16, Any),
    ("/vcpus/*/sregs/*/limit", U32, Any),
    ("/vcpus/*/sregs/*/selector", U16, Any),
    ("/vcpus/*/sregs/*/type_", U8, Allowed::up_to(15)),
    ("/vcpus/*/sregs/*/dpl", U8, Allowed::up_to(3)),
    ("/vcpus/*/sregs/interrupt_bitmap/*", U64, Any),
    // present, db, s, l, g, avl, unusable
    ("/vcpus/*/sregs/*/*", U8, Allowed::up_to(1)),
    ("/vcpus/*/sregs/cr8", U64, Allowed::up_to(15)),
    ("/vcpus/*/sregs/apic_base", U64, With(0xfee0_0000, 0xd00)),
    // Which bits of cr0, cr4 and efer exist is the host's to say: KVM_SET_SREGS does.
    ("/vcpus/*/sregs/*", U64, Any),
    ("/vcpus/*/xcrs/*/xcr", U32, Any),
    ("/vcpus/*/xcrs/*/value", U64, Any),
    ("/vcpus/*/debug_regs/db/*", U64, Any),
    ("/vcpus/*/debug_regs/*", U64, Any),
    ("/vcpus/*/msrs/*/data", U64, Any),
    ("/vcpus/*/events/exception_nr", U8, Allowed::up_to(31)),
    ("/vcpus/*/events/exception_error_code", U32, Any),
    ("/vcpus/*/events/exception_payload", U64, Any),
    ("/vcpus/*/events/interrupt_nr", U8, Any),
    ("/vcpus/*/events/interrupt_shadow", U8, Allowed::up_to(3)),
    ("/vcpus/*/events/nmi_pending", U8, Allowed::up_to(2)),
    ("/vcpus/*/events/sipi_vector", U32, Allowed::up_to(255)),
    ("/vcpus/*/events/flags", U32, Bits(0x3f)),
    // exception_…, interrupt_…, nmi_…, smi_…, triple_fault_pending: yes or no
    ("/vcpus/*/events/*", U8, Allowed::up_to(1)),
    ("/vcpus/*/cpuid/*/*", U32, Any),
    ("/vcpus/*/tsc/khz", U32, Between(1, U32)),
    ("/vcpus/*/tsc/guest_tsc", U64, Any),
    ("/interrupts/*/last_irr", U8, Any),
    ("/interrupts/io_apic/irr", U32, Bits(0xff_ffff)),
    ("/interrupts/*/irr", U8, Any),
    ("/interrupts/*/imr", U8, Any),
    ("/interrupts/*/isr", U8, Any),
    ("/interrupts/*/elcr", U8, Any),
    ("/interrupts/*/elcr_mask", U8, Any),
    ("/interrupts/*/priority_add", U8, Allowed::up_to(7)),
    ("/interrupts/*/irq_base", U8, Bits(0xf8)),
    ("/interrupts/*/init_state", U8, Allowed::up_to(3)),
    ("/interrupts/io_apic/base_address", U64, Between(0xfec0_0000, 0xfec0_0000)),
    ("/interrupts/io_apic/ioregsel", U32, Allowed::up_to(255)),
    ("/interrupts/io_apic/id", U32, Allowed::up_to(15)),
    ("/interrupts/io_apic/redirections/*", U64, Any),
    ("/interrupts/pit/flags", U32, Bits(3)),
    ("/interrupts/pit/channels/*/count", U32, Allowed::up_to(0x1_0000)),
    ("/interrupts/pit/channels/*/latched_count", U16, Any),
    ("/interrupts/pit/channels/*/count_latched", U8, Allowed::up_to(4)),
    ("/interrupts/pit/channels/*/read_state", U8, Allowed::up_to(4)),
    ("/interrupts/pit/channels/*/write_state", U8, Allowed::up_to(4)),
    ("/interrupts/pit/channels/*/rw_mode", U8, Allowed::up_to(4)),
    ("/interrupts/pit/channels/*/mode", U8, UpToOr(5, 0xff)),
    ("/interrupts/pit/channels/*/status_latched", U8, Allowed::up_to(1)),
    ("/interrupts/pit/channels/*/bcd", U8, Allowed::up_to(1)),
    ("/interrupts/pit/channels/*/gate", U8, Allowed::up_to(1)),
    ("/interrupts/pit/channels/*/count_load_time", I64, Any),
    ("/interrupts/pit/channels/*/*", U8, Any),
    ("/interrupts/clock_ns", U64, Any),
    // read_reg_select, poll, special_mask, auto_eoi, rotate_on_auto_eoi, special_fully_nested_mode, init4
    ("/interrupts/*/*", U8, Allowed::up_to(1)),
    ("/devices/serial/*", U8, Any),
];

/// Numbers with rules of their own: tests below.
const OTHERWISE: &[&str] = &["/memory_bytes", "/vcpus/*/msrs/*/index"];

fn fits(pattern: &str, pointer: &str) -> bool {
    let (pattern, pointer) = (pattern.split('/'), pointer.split('/'));
    pattern.clone().count() == pointer.clone().count()
        && pattern.zip(pointer).all(|(pattern, part)| pattern == "*" || pattern == part)
}

/// `/vcpus/0/regs/rax` as errors have it: `vcpus[0].regs.rax`.
fn dotted(pointer: &str) -> String {
    let mut text = String::new();
    for part in pointer.split('/').skip(1) {
        match part.parse::<usize>() {
            Ok(index) => text.push_str(&format!("[{index}]")),
            Err(_) if text.is_empty() => text.push_str(part),
            Err(_) => text.push_str(&format!(".{part}")),
        }
    }
    text
}

/// Each number, of two vCPUs, with each value at and beyond its limits; and values of no number at all.
#[test]
fn every_number_has_a_range_and_is_named_outside_it() {
    let Some(_room) = room_for(1) else { return };
    let json = serde_json::to_value(real(2).get()).unwrap();
    let mut used = BTreeSet::new();
    for (pointer, value) in leaves(&json).iter().filter(|(_, value)| value.is_number()) {
        for wrong in [json!(-1), json!(0.5), json!("1"), json!(null), json!([1]), json!({})] {
            let negative = wrong == json!(-1) && pointer.ends_with("count_load_time");
            let result = from_json(&with(&json, pointer, wrong.clone()));
            let schema = matches!(result, Err(EnvelopeError::Schema(_)));
            assert_eq!(schema, !negative, "{pointer} = {wrong}: {result:?}");
        }
        if OTHERWISE.iter().any(|pattern| fits(pattern, pointer)) {
            continue;
        }
        let row = NUMBERS.iter().position(|(pattern, ..)| fits(pattern, pointer));
        let row = row.unwrap_or_else(|| panic!("{pointer} = {value} is new: say above what it may be"));
        used.insert(row);
        let (_, type_max, allowed) = NUMBERS[row];
        if type_max < U64 && type_max != I64 {
            let result = from_json(&with(&json, pointer, json!(type_max + 1)));
            assert!(matches!(result, Err(EnvelopeError::Schema(_))), "{pointer} = {}", type_max + 1);
        }
        let (refused, accepted) = allowed.examples(type_max);
        for value in refused {
            let error = from_json(&with(&json, pointer, json!(value))).unwrap_err();
            let EnvelopeError::State(state::Error::OutOfRange { field, value: found, .. }) = &error else {
                panic!("{pointer} = {value}: {error:?}")
            };
            assert_eq!((field, *found), (&dotted(pointer), value));
            assert_names(&error, &[&dotted(pointer), &value.to_string()]);
        }
        for value in accepted {
            let result = from_json(&with(&json, pointer, json!(value)));
            assert!(result.is_ok(), "{pointer} = {value}: {}", chain(&result.unwrap_err()));
        }
    }
    let unused: Vec<&str> = (0..NUMBERS.len()).filter(|i| !used.contains(i)).map(|i| NUMBERS[i].0).collect();
    assert!(unused.is_empty(), "no longer in the schema: {unused:?}");
}

/// The error of a state that was changed, which names the field.
#[track_caller]
fn assert_out_of_range(state: &VmState, change: impl FnOnce(&mut VmStateV1), field: &str) {
    let mut state = state.get().clone();
    change(&mut state);
    let error = from_json(&serde_json::to_value(&state).unwrap()).unwrap_err();
    let EnvelopeError::State(state::Error::OutOfRange { field: found, .. }) = &error else {
        panic!("{error:?}")
    };
    assert_eq!(found, field);
}

#[test]
fn every_list_has_limits() {
    let Some(_room) = room_for(1) else { return };
    let state = real(2);
    assert_out_of_range(&state, |s| s.vcpus.clear(), "vcpus.length");
    assert_out_of_range(&state, |s| s.vcpus = vec![s.vcpus[0].clone(); 17], "vcpus.length");
    for memory_bytes in [0, MIB - 4096, MIB + 1, (64 << 30) + 4096, u64::MAX] {
        assert_out_of_range(&state, |s| s.memory_bytes = memory_bytes, "memory_bytes");
    }
    assert_out_of_range(&state, |s| s.generation = u64::MAX, "generation");
    for len in [0, 4095, 4097, (64 << 10) + 4] {
        assert_out_of_range(&state, |s| s.vcpus[1].xsave.resize(len, 0), "vcpus[1].xsave length");
    }
    for len in [0, 1023, 1025] {
        assert_out_of_range(&state, |s| s.vcpus[1].lapic.resize(len, 0), "vcpus[1].lapic length");
    }
    assert_out_of_range(
        &state,
        |s| s.vcpus[0].xcrs = vec![s.vcpus[0].xcrs[0].clone(); 17],
        "vcpus[0].xcrs length",
    );
    assert_out_of_range(
        &state,
        |s| s.vcpus[0].msrs = vec![s.vcpus[0].msrs[0].clone(); 1025],
        "vcpus[0].msrs length",
    );
    assert_out_of_range(&state, |s| s.vcpus[0].cpuid.clear(), "vcpus[0].cpuid length");
    assert_out_of_range(
        &state,
        |s| s.vcpus[0].cpuid = vec![s.vcpus[0].cpuid[0].clone(); 257],
        "vcpus[0].cpuid length",
    );
    let fifo = "devices.serial.receive_fifo length";
    assert_out_of_range(&state, |s| s.devices.serial.receive_fifo = vec![0; 65], fifo);

    // No MSR twice; and the TSC, which is kept apart, not at all.
    for index in [state.get().vcpus[0].msrs[1].index, 0x10] {
        let mut twice = state.get().clone();
        twice.vcpus[0].msrs[0].index = index;
        let error = VmState::try_from(twice).unwrap_err();
        assert!(
            matches!(error, state::Error::Duplicate { value, .. } if value == u64::from(index)),
            "{error:?}"
        );
        assert_names(&error, &["vcpus[0].msrs", &format!("{index:#x}")]);
    }
}

/// Hexadecimal fields hold hexadecimal digits.
#[test]
fn bytes_are_hexadecimal() {
    let Some(_room) = room_for(1) else { return };
    let json = serde_json::to_value(real(1).get()).unwrap();
    for pointer in ["/vcpus/0/xsave", "/vcpus/0/lapic", "/devices/serial/receive_fifo"] {
        for wrong in [json!("0"), json!("0g"), json!("é"), json!("+1"), json!(" 00"), json!(7), json!([0, 1])]
        {
            let result = from_json(&with(&json, pointer, wrong.clone()));
            assert!(matches!(result, Err(EnvelopeError::Schema(_))), "{pointer} = {wrong}: {result:?}");
        }
    }
}

/// Every field of every object is there, once, and there are no others.
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
                    assert!(matches!(error, EnvelopeError::Schema(_)), "{at}/{name}: {error:?}");
                    assert_names(&error, &["missing field", name]);
                    fields += 1;
                }
                let mut more = json.clone();
                more.pointer_mut(&at)
                    .unwrap()
                    .as_object_mut()
                    .unwrap()
                    .insert("surprise".to_owned(), json!(0));
                let error = from_json(&more).unwrap_err();
                assert!(matches!(error, EnvelopeError::Schema(_)), "{at}: {error:?}");
                assert_names(&error, &["unknown field", "surprise"]);
                object.keys().map(|name| format!("{at}/{name}")).collect()
            }
            // One element speaks for all.
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
        assert!(matches!(error, EnvelopeError::Schema(_)), "{error:?}");
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
    assert!(matches!(error, EnvelopeError::Magic { found, .. } if found == *b"CLNSNAP\0"), "{error:?}");
    assert_names(&error, &["not a VM state"]);
    for version in [0, 2, u32::MAX] {
        let error = edited(8, &version.to_le_bytes());
        let named = matches!(error, EnvelopeError::Version { found, known: 1, .. } if found == version);
        assert!(named, "{error:?}");
        assert_names(&error, &["VM state", &format!("version {version}"), "version 1"]);
    }
    assert!(matches!(edited(12, &[1]), EnvelopeError::Reserved { found: 1, .. }));
    let text_bytes = bytes.len() - HEADER_BYTES;
    for promised in [0, text_bytes as u64 - 1, text_bytes as u64 + 1, u64::MAX] {
        let error = edited(16, &promised.to_le_bytes());
        let named = matches!(error, EnvelopeError::Length { promised: p, found, .. } if (p, found) == (promised, text_bytes));
        assert!(named, "{error:?}");
        assert_names(&error, &[&promised.to_string(), &text_bytes.to_string()]);
    }
    assert!(matches!(edited(24, &[!bytes[24]]), EnvelopeError::Checksum { .. }));
    assert!(matches!(edited(HEADER_BYTES, b" "), EnvelopeError::Checksum { .. }));
    let longer = [bytes.as_slice(), b" "].concat();
    assert!(matches!(VmState::from_bytes(&longer), Err(EnvelopeError::Length { .. })));
}

#[test]
fn a_state_cut_at_any_byte() {
    let Some(_room) = room_for(1) else { return };
    let bytes = real(1).to_bytes();
    for len in 0..bytes.len() {
        let error = VmState::from_bytes(&bytes[..len]).unwrap_err();
        let named = match len {
            0..HEADER_BYTES => matches!(error, EnvelopeError::Short { found, .. } if found == len),
            _ => matches!(error, EnvelopeError::Length { found, .. } if found == len - HEADER_BYTES),
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

/// With a checksum that fits: what is accepted then says exactly what the text says, and nothing panics.
#[test]
fn a_text_with_bits_flipped_in_a_perfect_envelope() {
    let Some(_room) = room_for(1) else { return };
    let mut text = serde_json::to_vec(real(1).get()).unwrap();
    let (mut accepted, mut refused) = (0, 0);
    // A prime step, so that all bits of all kinds of bytes are met.
    for bit in (0..text.len() * 8).step_by(11) {
        text[bit / 8] ^= 1 << (bit % 8);
        match from_text(&text) {
            Ok(state) => {
                let said: Value = serde_json::from_slice(&text).unwrap();
                let mut read = serde_json::to_value(state.get()).unwrap();
                // Digits a to f may be capital.
                for pointer in ["/vcpus/0/xsave", "/vcpus/0/lapic", "/devices/serial/receive_fifo"] {
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

/// Tries to restore a state that is valid, but not for this memory or this host.
#[track_caller]
fn refused_here(state: VmStateV1, memory_bytes: u64) -> state::Error {
    let memory =
        GuestMemory::new(Layout::new(memory_bytes).unwrap(), Backing::Private(PageSize::Base)).unwrap();
    let state = VmState::try_from(state).unwrap();
    match Vm::restore(&state, memory, Box::new(std::io::sink())) {
        Err(vmm::Error::State(error)) => error,
        other => panic!("{other:?}"),
    }
}

#[test]
fn memory_of_another_size() {
    let Some(_room) = room_for(1) else { return };
    let state = real(1);
    for memory_bytes in [MIB + 4096, 2 * MIB, 5 << 30] {
        let error = refused_here(state.get().clone(), memory_bytes);
        assert_eq!(error, state::Error::MemorySize { state_bytes: MIB, memory_bytes });
        assert_names(&error, &[&MIB.to_string(), &memory_bytes.to_string()]);
    }
}

#[test]
fn a_foreign_processor() {
    let Some(_room) = room_for(1) else { return };
    let state = real(2);
    // Another vendor, on any of the vCPUs.
    let mut foreign = state.get().clone();
    let leaf = foreign.vcpus[1].cpuid.iter_mut().find(|leaf| leaf.function == 0).unwrap();
    (leaf.ebx, leaf.edx, leaf.ecx) = (0x7561_6843, 0x2020_6f6e, 0x6b6e_6148);
    let error = refused_here(foreign, MIB);
    assert!(matches!(error, state::Error::Cpu(Mismatch::Vendor { .. })), "{error:?}");
    assert_names(&error, &["Chauno  Hank"]);

    // A state without the leaf that names a vendor is of no known one.
    let mut nameless = state.get().clone();
    nameless.vcpus[0].cpuid.retain(|leaf| leaf.function != 0);
    assert!(matches!(refused_here(nameless, MIB), state::Error::Cpu(Mismatch::Vendor { .. })));

    // Features this host has not, one by one; the error names leaf and bit.
    let mut tried = 0;
    for (leaf, register) in [(1, "ECX"), (1, "EDX"), (7, "EBX"), (7, "ECX"), (7, "EDX"), (0x8000_0001, "ECX")]
    {
        for bit in 0..32 {
            // Those that are no features: TSC deadline, OSXSAVE, hypervisor.
            if host_has(leaf, register, bit) || (leaf, register) == (1, "ECX") && [24, 27, 31].contains(&bit)
            {
                continue;
            }
            let mut foreign = state.get().clone();
            let entry =
                foreign.vcpus[1].cpuid.iter_mut().find(|e| e.function == leaf && e.index == 0).unwrap();
            *match register {
                "EBX" => &mut entry.ebx,
                "ECX" => &mut entry.ecx,
                _ => &mut entry.edx,
            } |= 1 << bit;
            let error = refused_here(foreign, MIB);
            assert_eq!(error, state::Error::Cpu(Mismatch::Feature { leaf, subleaf: 0, register, bit }));
            assert_names(&error, &[&format!("leaf {leaf:#x}.0 {register} bit {bit}")]);
            tried += 1;
        }
    }
    assert!(tried > 5, "{tried} features");
}

/// Whether KVM can give the feature, or the processor has it, which a page-table based KVM lets the guest see.
fn host_has(leaf: u32, register: &str, bit: u32) -> bool {
    let supported = Host::get().unwrap().supported_cpuid().as_slice();
    let supported = supported.iter().find(|e| e.function == leaf && e.index == 0);
    let native = core::arch::x86_64::__cpuid_count(leaf, 0);
    let (supported, native) = match register {
        "EBX" => (supported.map(|e| e.ebx), native.ebx),
        "ECX" => (supported.map(|e| e.ecx), native.ecx),
        _ => (supported.map(|e| e.edx), native.edx),
    };
    (supported.unwrap_or(0) | native) >> bit & 1 == 1
}

#[test]
fn extended_registers_of_another_size() {
    let Some(_room) = room_for(1) else { return };
    let mut state = real(2).get().clone();
    let len = state.vcpus[1].xsave.len() + 64;
    state.vcpus[1].xsave.resize(len, 0);
    let error = refused_here(state, MIB);
    assert!(matches!(&error, state::Error::OutOfRange { value, .. } if *value == len as u64), "{error:?}");
    assert_names(&error, &["vcpus[1].xsave length", &len.to_string(), "KVM_CAP_XSAVE2"]);
}

/// What is checked before anything is built leaves nothing built.
#[test]
fn states_that_are_refused_open_nothing() {
    let Some(_room) = room_for(1) else { return };
    alone("hostile_state::states_that_are_refused_open_nothing", || {
        let state = real(2);
        let bytes = state.to_bytes();
        let memory = |memory_bytes| {
            GuestMemory::new(Layout::new(memory_bytes).unwrap(), Backing::Private(PageSize::Base)).unwrap()
        };
        let mut foreign = state.get().clone();
        foreign.vcpus[1].cpuid.retain(|leaf| leaf.function != 0);
        let foreign = VmState::try_from(foreign).unwrap();
        let refuse = || {
            assert!(VmState::from_bytes(&bytes[..bytes.len() / 2]).is_err());
            for (state, memory_bytes) in [(&state, 2 * MIB), (&foreign, MIB)] {
                let result = Vm::restore(state, memory(memory_bytes), Box::new(std::io::sink()));
                assert!(matches!(result, Err(vmm::Error::State(_))), "{result:?}");
            }
        };
        refuse();
        let before = Holdings::now();
        (0..50).for_each(|_| refuse());
        assert_eq!(Holdings::now(), before);
    });
}

/// Numbers only KVM can judge, each at both ends: the machine is built, or KVM's refusal is passed on and names the call.
#[test]
fn every_number_at_its_ends_is_restored_or_refused_by_kvm() {
    let Some(_room) = room_for(1) else { return };
    alone("hostile_state::every_number_at_its_ends_is_restored_or_refused_by_kvm", || {
        let state = real(1);
        let json = serde_json::to_value(state.get()).unwrap();
        let restore = |state: &VmState| {
            let memory = GuestMemory::new(state.layout(), Backing::Private(PageSize::Base)).unwrap();
            Vm::restore(state, memory, Box::new(std::io::sink())).map(drop)
        };
        restore(&state).unwrap();
        let before = Holdings::now();
        let (mut built, mut refused) = (0, BTreeSet::new());
        let mut seen = BTreeSet::new();
        let leaves = leaves(&json);
        for pointer in leaves.keys() {
            // Each MSR on its own, but one element of all other lists.
            let once = if pointer.contains("/msrs/") { pointer.clone() } else { any_index(pointer) };
            let Some((_, type_max, allowed)) = NUMBERS.iter().find(|(pattern, ..)| fits(pattern, pointer))
            else {
                continue;
            };
            if !json.pointer(pointer).unwrap().is_number() || !seen.insert(once) {
                continue;
            }
            for value in allowed.examples(*type_max).1 {
                let state = from_json(&with(&json, pointer, json!(value))).unwrap();
                match restore(&state) {
                    Ok(()) => built += 1,
                    Err(error) => {
                        let text = chain(&error);
                        let named =
                            matches!(error, vmm::Error::State(state::Error::Cpu(_))) || text.contains("KVM");
                        assert!(named, "{pointer} = {value:#x}: {text}");
                        refused.insert(pointer);
                    }
                }
            }
        }
        note(format_args!("hostile numbers: {built} restored; KVM refuses some of {refused:?}"));
        assert!(built > 100 && refused.len() > 3);
        assert_eq!(Holdings::now(), before);
    });
}
