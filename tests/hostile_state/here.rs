//! States that are valid, but not for this memory, this host or this KVM.

use std::collections::BTreeSet;

use cloner::chain;
use cloner_testing::host::Holdings;
use cloner_testing::json::{any_index, leaves};
use cloner_testing::{alone, assert_names, note, room_for};
use serde_json::json;
use vmm::host::{Host, Virtualization};
use vmm::memory::{Backing, GuestMemory, Layout, PageSize};
use vmm::schema::envelope::Error as EnvelopeError;
use vmm::state::{self, DecodeError, VmStateV2};
use vmm::vcpu::cpuid::{Mismatch, shows_virtualization};
use vmm::vcpu::state::NestedStateV1;
use vmm::vcpu::tsc::TOLERANCE_PPM;
use vmm::{Vm, VmState};

use super::ranges::{NUMBERS, fits};
use super::{from_json, no_inner_guest, real, with};
use crate::MIB;

/// Tries to restore a state that is valid, but not for this memory or this host; returns the error.
#[track_caller]
fn refused_here(state: VmStateV2, memory_bytes: u64) -> state::Error {
    let memory =
        GuestMemory::new(Layout::new(memory_bytes).unwrap(), Backing::Private(PageSize::Base)).unwrap();
    let state = VmState::try_from(state).unwrap();
    match Vm::restore(&state, memory, Box::new(std::io::sink())) {
        Err(vmm::Error::State(error)) => error,
        other => panic!("{other:?}"),
    }
}

/// The kind of virtualization that this host does not have.
fn other_kind() -> Virtualization {
    match Host::get().unwrap().virtualization() {
        Virtualization::Hardware => Virtualization::PageTableBased,
        Virtualization::PageTableBased => Virtualization::Hardware,
    }
}

/// The kind is looked at first: memory and processor may be wrong as well.
#[test]
fn the_other_kind_of_virtualization() {
    let Some(_room) = room_for(1) else { return };
    let state = real(2);
    let host = Host::get().unwrap().virtualization();
    assert_eq!(state.get().virtualization, host);
    let mut other = state.get().clone();
    other.virtualization = other_kind();
    let mut foreign = other.clone();
    foreign.vcpus[0].cpuid.retain(|leaf| leaf.function != 0);
    for (state, memory_bytes) in [(other, MIB), (foreign, 2 * MIB)] {
        let error = refused_here(state, memory_bytes);
        assert_eq!(error, state::Error::Virtualization { saved: other_kind(), host });
        assert_names(&error, &["KVM on hardware", "page-table based KVM"]);
    }

    let json = serde_json::to_value(state.get()).unwrap();
    for kind in ["hardware", "page-table-based"] {
        from_json(&with(&json, "/virtualization", json!(kind))).unwrap();
    }
    for kind in [json!("Hardware"), json!("xen"), json!(""), json!(0), json!(null)] {
        let error = from_json(&with(&json, "/virtualization", kind)).unwrap_err();
        assert!(matches!(error, DecodeError::Envelope(EnvelopeError::Schema(_))), "{error:?}");
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
    // Another vendor on one of the vCPUs.
    let mut foreign = state.get().clone();
    let leaf = foreign.vcpus[1].cpuid.iter_mut().find(|leaf| leaf.function == 0).unwrap();
    (leaf.ebx, leaf.edx, leaf.ecx) = (0x7561_6843, 0x2020_6f6e, 0x6b6e_6148);
    let error = refused_here(foreign, MIB);
    assert!(matches!(error, state::Error::Cpu(Mismatch::Vendor { .. })), "{error:?}");
    assert_names(&error, &["Chauno  Hank"]);

    // A state without the CPUID leaf that names a vendor has no known vendor.
    let mut nameless = state.get().clone();
    nameless.vcpus[0].cpuid.retain(|leaf| leaf.function != 0);
    assert!(matches!(refused_here(nameless, MIB), state::Error::Cpu(Mismatch::Vendor { .. })));

    // Features that this host does not have, one by one; the error names leaf and bit.
    let mut tried = 0;
    for (leaf, register) in [(1, "ECX"), (1, "EDX"), (7, "EBX"), (7, "ECX"), (7, "EDX"), (0x8000_0001, "ECX")]
    {
        for bit in 0..32 {
            // Bits that are not features: TSC deadline, OSXSAVE, hypervisor; several processors in a package;
            // OSPKE.
            let no_feature = match (leaf, register) {
                (1, "ECX") => [24, 27, 31].contains(&bit),
                (1, "EDX") => bit == 28,
                (7, "ECX") => bit == 4,
                _ => false,
            };
            if host_has(leaf, register, bit) || no_feature {
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
            // A guest that may run guests of its own must also have the state for that.
            if shows_virtualization(&foreign.vcpus[1].cpuid) {
                foreign.vcpus[1].nested = Some(no_inner_guest());
            }
            let error = refused_here(foreign, MIB);
            assert_eq!(error, state::Error::Cpu(Mismatch::Feature { leaf, subleaf: 0, register, bit }));
            assert_names(&error, &[&format!("leaf {leaf:#x}.0 {register} bit {bit}")]);
            tried += 1;
        }
    }
    assert!(tried > 5, "{tried} features");
}

/// A guest has state of nested virtualization exactly if its CPUID shows virtualization; the state's lengths and flags are checked.
#[test]
fn nested_virtualization_that_is_shown_and_saved_or_neither() {
    let Some(_room) = room_for(1) else { return };
    let state = real(2);
    assert!(
        state.get().vcpus.iter().all(|vcpu| vcpu.nested.is_none()),
        "virtualization is shown only on request"
    );
    let mut without = state.get().clone();
    without.vcpus[1].cpuid.iter_mut().find(|leaf| leaf.function == 1).unwrap().ecx |= 1 << 5;
    let error = VmState::try_from(without.clone()).unwrap_err();
    assert_eq!(error, state::Error::Nested { field: String::from("vcpus[1]"), shown: true });
    let mut hidden = state.get().clone();
    hidden.vcpus[0].nested = Some(no_inner_guest());
    let error = VmState::try_from(hidden).unwrap_err();
    assert_eq!(error, state::Error::Nested { field: String::from("vcpus[0]"), shown: false });
    type Change = fn(&mut NestedStateV1);
    let changes: [(Change, &str); 7] = [
        (|nested| nested.flags = 0x10, "flags"),
        (|nested| nested.flags = 0x200, "flags"),
        (|nested| nested.format = 2, "format"),
        (|nested| nested.header.truncate(119), "header length"),
        (|nested| nested.header.push(0), "header length"),
        (|nested| nested.header.clear(), "header length"),
        (|nested| nested.data = vec![0; 8193], "data length"),
    ];
    for (change, field) in changes {
        let mut nested = no_inner_guest();
        change(&mut nested);
        without.vcpus[1].nested = Some(nested);
        assert_names(&VmState::try_from(without.clone()).unwrap_err(), &["vcpus[1].nested", field]);
    }
    without.vcpus[1].nested = Some(NestedStateV1 { flags: 0x10f, data: vec![0; 8192], ..no_inner_guest() });
    VmState::try_from(without).unwrap();
}

/// Another frequency of the time stamp counter is accepted if it is within the tolerance of calibration or the processor scales the
/// counter. Otherwise it is refused with both frequencies, because KVM would only push the counter forward now and then.
#[test]
fn another_frequency() {
    let Some(_room) = room_for(1) else { return };
    let state = real(2);
    let host_khz = state.get().vcpus[0].tsc.khz;
    let scales = Host::get().unwrap().scales_tsc();
    let restore = |khz: u32| {
        let mut state = state.get().clone();
        state.vcpus.iter_mut().for_each(|vcpu| vcpu.tsc.khz = khz);
        let state = VmState::try_from(state).unwrap();
        let memory = GuestMemory::new(state.layout(), Backing::Private(PageSize::Base)).unwrap();
        Vm::restore(&state, memory, Box::new(std::io::sink()))
    };
    let tolerated = u32::try_from(u64::from(host_khz) * (TOLERANCE_PPM - 1) / 1_000_000).unwrap();
    for khz in [host_khz, host_khz - tolerated, host_khz + tolerated] {
        let again = restore(khz).unwrap().pause().unwrap().save().unwrap();
        assert!(again.get().vcpus.iter().all(|vcpu| vcpu.tsc.khz.abs_diff(khz) <= tolerated), "{khz}");
    }
    for guest_khz in [host_khz - 3 * tolerated, host_khz + 3 * tolerated, host_khz / 2, host_khz * 2 - 1] {
        match restore(guest_khz) {
            Err(error) if !scales => {
                assert_names(&error, &[&guest_khz.to_string(), &host_khz.to_string(), "cannot scale"]);
            }
            Ok(vm) if scales => {
                let again = vm.pause().unwrap().save().unwrap();
                assert!(again.get().vcpus.iter().all(|vcpu| vcpu.tsc.khz == guest_khz));
            }
            other => panic!(
                "{guest_khz} on {host_khz}, which {}: {other:?}",
                if scales { "scales" } else { "does not scale" }
            ),
        }
    }
    let mut unequal = state.get().clone();
    unequal.vcpus[1].tsc.khz += 1;
    let error = VmState::try_from(unequal).unwrap_err();
    assert_eq!(error, state::Error::Frequencies { vcpu: 1, khz: host_khz + 1, first_khz: host_khz });
}

/// Whether KVM can offer the feature, or the processor has it where KVM is page-table based and guests see the processor's own.
fn host_has(leaf: u32, register: &str, bit: u32) -> bool {
    let supported = Host::get().unwrap().supported_cpuid().as_slice();
    let supported = supported.iter().find(|e| e.function == leaf && e.index == 0);
    let native = core::arch::x86_64::__cpuid_count(leaf, 0);
    let (supported, native) = match register {
        "EBX" => (supported.map(|e| e.ebx), native.ebx),
        "ECX" => (supported.map(|e| e.ecx), native.ecx),
        _ => (supported.map(|e| e.edx), native.edx),
    };
    let native =
        if Host::get().unwrap().virtualization() == Virtualization::PageTableBased { native } else { 0 };
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

/// Nothing is opened for a state that is refused, because it is checked before anything is built.
#[test]
fn states_that_are_refused_open_nothing() {
    let Some(_room) = room_for(1) else { return };
    alone("hostile_state::here::states_that_are_refused_open_nothing", || {
        let state = real(2);
        let bytes = state.to_bytes();
        let memory = |memory_bytes| {
            GuestMemory::new(Layout::new(memory_bytes).unwrap(), Backing::Private(PageSize::Base)).unwrap()
        };
        let mut foreign = state.get().clone();
        foreign.vcpus[1].cpuid.retain(|leaf| leaf.function != 0);
        let foreign = VmState::try_from(foreign).unwrap();
        let mut other = state.get().clone();
        other.virtualization = other_kind();
        let other = VmState::try_from(other).unwrap();
        let refuse = || {
            assert!(VmState::from_bytes(&bytes[..bytes.len() / 2]).is_err());
            for (state, memory_bytes) in [(&state, 2 * MIB), (&foreign, MIB), (&other, MIB)] {
                let result = Vm::restore(state, memory(memory_bytes), Box::new(std::io::sink()));
                assert!(matches!(result, Err(vmm::Error::State(_))), "{result:?}");
            }
        };
        refuse();
        let before = Holdings::now();
        (0..50).for_each(|_| refuse());
        before.assert_no_more_now(0);
    });
}

/// Numbers that only KVM can judge, each at both ends: the machine is built, or KVM's refusal is passed on and names the call.
#[test]
fn every_number_at_its_ends_is_restored_or_refused_by_kvm() {
    let Some(_room) = room_for(1) else { return };
    alone("hostile_state::here::every_number_at_its_ends_is_restored_or_refused_by_kvm", || {
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
            // Each MSR separately, but one element of every other list.
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
        before.assert_no_more_now(0);
    });
}
