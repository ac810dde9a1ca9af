//! Bounds of every field of a loaded state.
//!
//! KVM checks some of this itself, but not all (a wrong length makes it read beyond the end of a buffer), and answers with EINVAL
//! for the whole structure. Here the field is named, and nothing has been built yet.

use std::collections::HashSet;

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, KVM_MP_STATE_SIPI_RECEIVED, KVM_STATE_NESTED_FORMAT_SVM};

use super::{Error, VmStateV2};
use crate::devices::serial::spec::FIFO_BYTES;
use crate::devices::serial::state::SerialStateV1;
use crate::devices::state::{DeviceState as _, DeviceStates};
use crate::interrupt::state::{InterruptStateV1, IoApicStateV1, PicStateV1, PitChannelStateV1};
use crate::memory::{Layout, layout};
use crate::schema::producer;
use crate::sys::kvm::XSAVE_MIN_BYTES;
use crate::sys::nested::{DATA_MAX_BYTES, HEADER_BYTES};
use crate::vcpu::MSR_TSC;
use crate::vcpu::cpuid::shows_virtualization;
use crate::vcpu::state::{EventsStateV1, NestedStateV1, SegmentStateV1, SregsStateV1, VcpuStateV1};

const LAPIC_BYTES: u64 = 1024;
/// Far above what any processor of today needs (AMX: 11 KiB), and small enough to allocate without concern.
const XSAVE_MAX_BYTES: u64 = 64 << 10;
/// KVM knows some 200 MSRs.
const MSRS_MAX: u64 = 1024;
const XCRS_MAX: u64 = 16;
/// The I/O APIC has 24 pins.
const IO_APIC_PINS_MASK: u64 = (1 << 24) - 1;
/// `KVM_VCPUEVENT_VALID_…`: pending NMI, SIPI vector, shadow, SMM, payload, triple fault.
const EVENT_FLAGS: u64 = 0x3f;
/// `KVM_STATE_NESTED_…`: guest mode, run pending, enlightened VMCS, MTF pending, GIF set.
const NESTED_FLAGS: u64 = 0x10f;
/// `KVM_PIT_FLAGS_HPET_LEGACY` and `KVM_PIT_FLAGS_SPEAKER_DATA_ON`.
const PIT_FLAGS: u64 = 0x3;
/// KVM fixes the address; the flags are "boot processor", "x2APIC mode" and "enabled".
const APIC_BASE_ADDRESS: u64 = layout::LOCAL_APIC_ADDRESS as u64;
const APIC_BASE_FLAGS: u64 = 0xd00;

pub(super) fn validate(state: &VmStateV2) -> Result<(), Error> {
    let VmStateV2 { producer, virtualization: _, memory_bytes, generation, vcpus, interrupts, devices } =
        state;
    validate_producer(producer)?;
    if Layout::new(*memory_bytes).is_err() {
        return Err(Error::OutOfRange {
            field: String::from("memory_bytes"),
            value: *memory_bytes,
            allowed: format!(
                "{} to {}, in steps of 4096",
                layout::MIN_MEMORY_BYTES,
                layout::MAX_MEMORY_BYTES
            ),
        });
    }
    // A clone's generation is one more, and must fit as well.
    if *generation == u64::MAX {
        let allowed = format!("0 to {}", u64::MAX - 1);
        return Err(Error::OutOfRange { field: String::from("generation"), value: *generation, allowed });
    }
    between("vcpus", "length", vcpus.len() as u64, 1, u64::from(layout::MAX_VCPUS))?;
    for (i, vcpu) in vcpus.iter().enumerate() {
        validate_vcpu(&format!("vcpus[{i}]"), vcpu)?;
    }
    let first_khz = vcpus[0].tsc.khz;
    if let Some((i, other)) = vcpus.iter().enumerate().find(|(_, vcpu)| vcpu.tsc.khz != first_khz) {
        return Err(Error::Frequencies { vcpu: i, khz: other.tsc.khz, first_khz });
    }
    validate_interrupts(interrupts)?;
    validate_devices(devices)
}

/// Bounds a text that ends up in messages and logs.
fn validate_producer(text: &str) -> Result<(), Error> {
    between("producer", "length", text.len() as u64, 1, producer::MAX_BYTES as u64)?;
    match producer::first_unprintable(text) {
        None => Ok(()),
        Some((at, character)) => Err(Error::Unprintable { field: String::from("producer"), at, character }),
    }
}

fn validate_devices(devices: &DeviceStates) -> Result<(), Error> {
    let DeviceStates { serial } = devices;
    let at = format!("devices.{}", SerialStateV1::ID);
    at_most(&at, "receive_fifo length", serial.receive_fifo.len() as u64, FIFO_BYTES as u64)
}

fn validate_vcpu(at: &str, vcpu: &VcpuStateV1) -> Result<(), Error> {
    let VcpuStateV1 {
        mp_state,
        regs: _,
        sregs,
        xsave,
        xcrs,
        debug_regs: _,
        lapic,
        msrs,
        events,
        cpuid,
        tsc,
        nested,
    } = vcpu;
    at_most(at, "mp_state", u64::from(*mp_state), u64::from(KVM_MP_STATE_SIPI_RECEIVED))?;
    validate_sregs(&format!("{at}.sregs"), sregs)?;
    between(at, "xsave length", xsave.len() as u64, XSAVE_MIN_BYTES as u64, XSAVE_MAX_BYTES)?;
    if !xsave.len().is_multiple_of(4) {
        return Err(out_of_range(at, "xsave length", xsave.len() as u64, String::from("a multiple of 4")));
    }
    at_most(at, "xcrs length", xcrs.len() as u64, XCRS_MAX)?;
    between(at, "lapic length", lapic.len() as u64, LAPIC_BYTES, LAPIC_BYTES)?;
    at_most(at, "msrs length", msrs.len() as u64, MSRS_MAX)?;
    let mut seen = HashSet::new();
    for msr in msrs {
        if msr.index == MSR_TSC || !seen.insert(msr.index) {
            return Err(Error::Duplicate { field: format!("{at}.msrs"), value: u64::from(msr.index) });
        }
    }
    validate_events(&format!("{at}.events"), events)?;
    between(at, "cpuid length", cpuid.len() as u64, 1, KVM_MAX_CPUID_ENTRIES as u64)?;
    between(at, "tsc.khz", u64::from(tsc.khz), 1, u64::from(u32::MAX))?;
    let shown = shows_virtualization(cpuid);
    match nested {
        Some(nested) if shown => validate_nested(&format!("{at}.nested"), nested),
        None if !shown => Ok(()),
        _ => Err(Error::Nested { field: at.to_owned(), shown }),
    }
}

/// Checks lengths and flags. The content of the control structures is left to KVM to check.
fn validate_nested(at: &str, nested: &NestedStateV1) -> Result<(), Error> {
    let NestedStateV1 { flags, format, header, data } = nested;
    mask(at, "flags", u64::from(*flags), NESTED_FLAGS)?;
    at_most(at, "format", u64::from(*format), u64::from(KVM_STATE_NESTED_FORMAT_SVM))?;
    between(at, "header length", header.len() as u64, HEADER_BYTES as u64, HEADER_BYTES as u64)?;
    at_most(at, "data length", data.len() as u64, DATA_MAX_BYTES as u64)
}

fn validate_sregs(at: &str, sregs: &SregsStateV1) -> Result<(), Error> {
    let SregsStateV1 { cs, ds, es, fs, gs, ss, tr, ldt, cr8, apic_base, .. } = sregs;
    for (name, segment) in
        [("cs", cs), ("ds", ds), ("es", es), ("fs", fs), ("gs", gs), ("ss", ss), ("tr", tr), ("ldt", ldt)]
    {
        let SegmentStateV1 { type_, present, dpl, db, s, l, g, avl, unusable, .. } = *segment;
        let at = format!("{at}.{name}");
        at_most(&at, "type_", u64::from(type_), 15)?;
        at_most(&at, "dpl", u64::from(dpl), 3)?;
        for (bit, value) in [
            ("present", present),
            ("db", db),
            ("s", s),
            ("l", l),
            ("g", g),
            ("avl", avl),
            ("unusable", unusable),
        ] {
            at_most(&at, bit, u64::from(value), 1)?;
        }
    }
    at_most(at, "cr8", *cr8, 15)?;
    if apic_base & !APIC_BASE_FLAGS != APIC_BASE_ADDRESS {
        let allowed = format!("{APIC_BASE_ADDRESS:#x} and flags in {APIC_BASE_FLAGS:#x}");
        return Err(out_of_range(at, "apic_base", *apic_base, allowed));
    }
    Ok(())
}

fn validate_events(at: &str, events: &EventsStateV1) -> Result<(), Error> {
    at_most(at, "exception_nr", u64::from(events.exception_nr), 31)?;
    at_most(at, "sipi_vector", u64::from(events.sipi_vector), 255)?;
    for (name, value) in [
        ("exception_injected", events.exception_injected),
        ("exception_has_error_code", events.exception_has_error_code),
        ("exception_pending", events.exception_pending),
        ("exception_has_payload", events.exception_has_payload),
        ("interrupt_injected", events.interrupt_injected),
        ("interrupt_soft", events.interrupt_soft),
        ("nmi_injected", events.nmi_injected),
        ("nmi_masked", events.nmi_masked),
        ("smi_smm", events.smi_smm),
        ("smi_pending", events.smi_pending),
        ("smi_smm_inside_nmi", events.smi_smm_inside_nmi),
        ("smi_latched_init", events.smi_latched_init),
        ("triple_fault_pending", events.triple_fault_pending),
    ] {
        at_most(at, name, u64::from(value), 1)?;
    }
    // MOV SS and STI shadows are one bit each; one NMI can be pending while another is being delivered.
    at_most(at, "interrupt_shadow", u64::from(events.interrupt_shadow), 3)?;
    at_most(at, "nmi_pending", u64::from(events.nmi_pending), 2)?;
    mask(at, "flags", u64::from(events.flags), EVENT_FLAGS)
}

fn validate_interrupts(interrupts: &InterruptStateV1) -> Result<(), Error> {
    let InterruptStateV1 { pic_master, pic_slave, io_apic, pit, clock_ns: _ } = interrupts;
    for (name, pic) in [("pic_master", pic_master), ("pic_slave", pic_slave)] {
        let at = format!("interrupts.{name}");
        let PicStateV1 { priority_add, irq_base, init_state, .. } = *pic;
        at_most(&at, "priority_add", u64::from(priority_add), 7)?;
        mask(&at, "irq_base", u64::from(irq_base), 0xf8)?;
        at_most(&at, "init_state", u64::from(init_state), 3)?;
        for (flag, value) in [
            ("read_reg_select", pic.read_reg_select),
            ("poll", pic.poll),
            ("special_mask", pic.special_mask),
            ("auto_eoi", pic.auto_eoi),
            ("rotate_on_auto_eoi", pic.rotate_on_auto_eoi),
            ("special_fully_nested_mode", pic.special_fully_nested_mode),
            ("init4", pic.init4),
        ] {
            at_most(&at, flag, u64::from(value), 1)?;
        }
    }
    let IoApicStateV1 { base_address, ioregsel, id, irr, redirections: _ } = io_apic;
    let (at, base) = ("interrupts.io_apic", u64::from(layout::IO_APIC_ADDRESS));
    between(at, "base_address", *base_address, base, base)?;
    at_most(at, "ioregsel", u64::from(*ioregsel), 0xff)?;
    at_most(at, "id", u64::from(*id), 0xf)?;
    mask(at, "irr", u64::from(*irr), IO_APIC_PINS_MASK)?;
    mask("interrupts.pit", "flags", u64::from(pit.flags), PIT_FLAGS)?;
    for (i, channel) in pit.channels.iter().enumerate() {
        validate_pit_channel(&format!("interrupts.pit.channels[{i}]"), channel)?;
    }
    Ok(())
}

fn validate_pit_channel(at: &str, channel: &PitChannelStateV1) -> Result<(), Error> {
    let PitChannelStateV1 {
        count,
        count_latched,
        status_latched,
        read_state,
        write_state,
        rw_mode,
        mode,
        bcd,
        gate,
        ..
    } = *channel;
    // KVM keeps the chip's "0" as 0x10000.
    at_most(at, "count", u64::from(count), 0x1_0000)?;
    // 0xff before the guest has ever programmed it.
    if mode != 0xff {
        at_most(at, "mode", u64::from(mode), 5)?;
    }
    // Which byte comes next: low, high, or both in turn.
    for (name, value) in [
        ("count_latched", count_latched),
        ("read_state", read_state),
        ("write_state", write_state),
        ("rw_mode", rw_mode),
    ] {
        at_most(at, name, u64::from(value), 4)?;
    }
    for (name, value) in [("status_latched", status_latched), ("bcd", bcd), ("gate", gate)] {
        at_most(at, name, u64::from(value), 1)?;
    }
    Ok(())
}

fn at_most(at: &str, field: &str, value: u64, max: u64) -> Result<(), Error> {
    between(at, field, value, 0, max)
}

fn between(at: &str, field: &str, value: u64, min: u64, max: u64) -> Result<(), Error> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(out_of_range(at, field, value, if min == max { min.to_string() } else { format!("{min} to {max}") }))
}

fn mask(at: &str, field: &str, value: u64, mask: u64) -> Result<(), Error> {
    if value & !mask == 0 {
        return Ok(());
    }
    Err(out_of_range(at, field, value, format!("any bits of {mask:#x}")))
}

fn out_of_range(at: &str, field: &str, value: u64, allowed: String) -> Error {
    Error::OutOfRange { field: format!("{at}.{field}"), value, allowed }
}
