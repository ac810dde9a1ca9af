//! The allowed values of every number and the allowed lengths of every list in a state.

use std::collections::BTreeSet;

use cloner::chain;
use cloner_testing::json::leaves;
use cloner_testing::{assert_names, room_for};
use serde_json::json;
use vmm::VmState;
use vmm::schema::envelope::Error as EnvelopeError;
use vmm::state::{self, DecodeError, VmStateV2};

use super::{from_json, real, with};
use crate::MIB;

/// The values that a number may have.
#[derive(Debug, Clone, Copy)]
pub(super) enum Allowed {
    /// All that its type can hold: registers, and numbers whose meaning is up to the guest or KVM.
    Any,
    Between(u64, u64),
    /// Any combination of these bits.
    Bits(u64),
    /// At most the first, or exactly the second.
    UpToOr(u64, u64),
    /// The first, and any combination of the bits of the second.
    With(u64, u64),
}

use Allowed::{Any, Between, Bits, UpToOr, With};

impl Allowed {
    const fn up_to(max: u64) -> Self {
        Between(0, max)
    }

    /// Some values that must be refused, and some that must be accepted.
    pub(super) fn examples(self, type_max: u64) -> (Vec<u64>, Vec<u64>) {
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

/// Every number of the schema: where it is, the greatest that its type can hold, and what is allowed. The first row that fits
/// counts; in a path, `*` stands for any one part.
pub(super) const NUMBERS: &[(&str, u64, Allowed)] = &[
    ("/generation", U64, Allowed::up_to(U64 - 1)),
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
    // Which bits of cr0, cr4 and efer exist depends on the host: KVM_SET_SREGS checks them.
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
    // exception_…, interrupt_…, nmi_…, smi_…, triple_fault_pending: 0 or 1
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
    ("/devices/serial/content/*", U8, Any),
];

/// Numbers with rules of their own, which are tested below and in `devices`.
const OTHERWISE: &[&str] = &["/memory_bytes", "/vcpus/*/msrs/*/index", "/devices/*/version"];

pub(super) fn fits(pattern: &str, pointer: &str) -> bool {
    let (pattern, pointer) = (pattern.split('/'), pointer.split('/'));
    pattern.clone().count() == pointer.clone().count()
        && pattern.zip(pointer).all(|(pattern, part)| pattern == "*" || pattern == part)
}

/// A path such as `/vcpus/0/regs/rax` in the form that errors use: `vcpus[0].regs.rax`.
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

/// Each number of two vCPUs, with values at and beyond its limits, and with values that are not numbers.
#[test]
fn every_number_has_a_range_and_is_named_outside_it() {
    let Some(_room) = room_for(1) else { return };
    let json = serde_json::to_value(real(2).get()).unwrap();
    let mut used = BTreeSet::new();
    for (pointer, value) in leaves(&json).iter().filter(|(_, value)| value.is_number()) {
        for wrong in [json!(-1), json!(0.5), json!("1"), json!(null), json!([1]), json!({})] {
            let negative = wrong == json!(-1) && pointer.ends_with("count_load_time");
            let result = from_json(&with(&json, pointer, wrong.clone()));
            let schema = matches!(result, Err(DecodeError::Envelope(EnvelopeError::Schema(_))));
            assert_eq!(schema, !negative, "{pointer} = {wrong}: {result:?}");
        }
        if OTHERWISE.iter().any(|pattern| fits(pattern, pointer)) {
            continue;
        }
        let row = NUMBERS.iter().position(|(pattern, ..)| fits(pattern, pointer));
        let row = row.unwrap_or_else(|| panic!("{pointer} = {value} is new: add what is allowed to NUMBERS"));
        used.insert(row);
        let (_, type_max, allowed) = NUMBERS[row];
        if type_max < U64 && type_max != I64 {
            let result = from_json(&with(&json, pointer, json!(type_max + 1)));
            assert!(
                matches!(result, Err(DecodeError::Envelope(EnvelopeError::Schema(_)))),
                "{pointer} = {}",
                type_max + 1
            );
        }
        let (refused, accepted) = allowed.examples(type_max);
        for value in refused {
            let error = from_json(&with(&json, pointer, json!(value))).unwrap_err();
            let DecodeError::Invalid(state::Error::OutOfRange { field, value: found, .. }) = &error else {
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

/// Asserts that a changed state is refused with an error that names the field.
#[track_caller]
fn assert_out_of_range(state: &VmState, change: impl FnOnce(&mut VmStateV2), field: &str) {
    let mut state = state.get().clone();
    change(&mut state);
    let error = from_json(&serde_json::to_value(&state).unwrap()).unwrap_err();
    let DecodeError::Invalid(state::Error::OutOfRange { field: found, .. }) = &error else {
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

    for producer in [String::new(), "x".repeat(65), "é".repeat(33)] {
        assert_out_of_range(&state, |s| s.producer = producer, "producer.length");
    }

    // An MSR must not occur twice; the TSC, which is kept separately, must not occur at all.
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

/// Messages quote the name of the program that wrote the state, so that name must not do any harm there.
#[test]
fn the_producer_is_a_short_printable_text() {
    let Some(_room) = room_for(1) else { return };
    let state = real(1);
    assert_eq!(state.get().producer, concat!("vmm ", env!("CARGO_PKG_VERSION")));
    let of = |producer: &str| {
        VmState::try_from(VmStateV2 { producer: producer.to_owned(), ..state.get().clone() })
    };
    for producer in ["x", " ", "~", "another vmm 2.0 (patched)", &"x".repeat(64)] {
        assert_eq!(of(producer).unwrap().get().producer, producer);
    }
    for (producer, at, character) in [
        ("vmm\n", 3, '\n'),
        ("\0", 0, '\0'),
        ("\u{1b}[31m", 0, '\u{1b}'),
        ("a\u{7f}", 1, '\u{7f}'),
        ("vmm é1", 4, 'é'),
    ] {
        let error = of(producer).unwrap_err();
        assert_eq!(error, state::Error::Unprintable { field: String::from("producer"), at, character });
        assert_names(&error, &["producer", &format!("{character:?}"), &format!("byte {at}")]);
    }
    assert_names(&of(&"x".repeat(65)).unwrap_err(), &["producer.length is 65", "1 to 64"]);
}
