//! save → restore → save gives the same state, except for what time changes.

use std::collections::BTreeMap;
use std::time::Instant;

use cloner_testing::json::{any_index, leaves};
use cloner_testing::linux::linux;
use cloner_testing::{Guest, Studio, guest, room_for};
use guest_images::pulse::{Params, Work};
use serde_json::Value;
use vmm::VmState;
use vmm::host::{Host, Virtualization};
use vmm::vcpu::cpuid::shows_virtualization;
use vmm::vcpu::state::{MsrStateV1, VcpuStateV1};

use crate::MIB;

const TSC_DEADLINE: u32 = 0x6e0;

/// What may differ, and why. Nothing else may differ, not even by a single bit.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("/vcpus/*/tsc/guest_tsc", "the time stamp counter counts: what is restored is its offset to the host's"),
    ("/interrupts/clock_ns", "kvmclock counts from KVM_SET_CLOCK on"),
    (
        "/vcpus/*/lapic/0x390",
        "the current count of the local APIC's timer, which runs if the guest has started it",
    ),
    (
        "/vcpus/*/lapic/0xa0",
        "processor priority, which KVM_SET_LAPIC computes anew from what is in service: the saved one may lag behind an EOI",
    ),
    (
        "/vcpus/*/msrs/0x6e0",
        "a TSC deadline of 0 may be an interrupt that was lost, so it is restored as one that has just expired",
    ),
];

/// Every number of a state by its JSON pointer; MSRs by their index, and the registers of the local APIC one by one.
fn numbers(state: &VmState) -> BTreeMap<String, Value> {
    let mut numbers = leaves(state.get());
    // A machine that was booted has none, and a restored machine is one generation further: tested below.
    numbers.remove("/generation");
    numbers.retain(|pointer, _| !pointer.contains("/msrs/"));
    for (i, vcpu) in state.get().vcpus.iter().enumerate() {
        let msr = |msr: &MsrStateV1| (format!("/vcpus/{i}/msrs/{:#x}", msr.index), Value::from(msr.data));
        numbers.extend(vcpu.msrs.iter().map(msr));
        numbers.remove(&format!("/vcpus/{i}/lapic")).unwrap();
        for (number, register) in vcpu.lapic.chunks(16).enumerate() {
            numbers.insert(format!("/vcpus/{i}/lapic/{:#x}", number * 16), Value::from(register));
        }
    }
    numbers
}

/// Compares `state`, from which `target` was restored, with the state of `target`, which has not run since.
#[track_caller]
fn assert_comes_back(state: &VmState, target: &Guest, restored: Instant) {
    let again = target.pause().save().unwrap();
    let seconds = restored.elapsed().as_secs_f64();
    let (before, after) = (numbers(state), numbers(&again));
    assert_eq!(before.keys().collect::<Vec<_>>(), after.keys().collect::<Vec<_>>());
    let excepted = |pointer: &str| {
        let pointer = any_index(pointer);
        EXCEPTIONS.iter().any(|(exception, _why)| *exception == pointer)
    };
    let differs = |pointer: &&String| before[*pointer] != after[*pointer];
    let unexpected: Vec<String> = before
        .keys()
        .filter(differs)
        .filter(|pointer| !excepted(pointer))
        .map(|pointer| format!("{pointer}: {} became {}", before[pointer], after[pointer]))
        .collect();
    assert!(unexpected.is_empty(), "{}", unexpected.join("\n"));
    for (before, after) in state.get().vcpus.iter().zip(&again.get().vcpus) {
        let (saved, restored) = (deadline(before), deadline(after));
        let expired = saved == Some(0) && restored == Some(before.tsc.guest_tsc);
        assert!(restored == saved || expired, "a deadline of {saved:?} became {restored:?}");
    }
    assert_eq!(again.get().generation, state.get().generation + 1);
    assert_time_goes_on(state, &again, seconds);
}

/// The TSC deadline, if the vCPU has one.
fn deadline(vcpu: &VcpuStateV1) -> Option<u64> {
    vcpu.msrs.iter().find(|msr| msr.index == TSC_DEADLINE).map(|msr| msr.data)
}

/// Time stands still between save and restore, and then goes on, no faster than the host's.
#[expect(clippy::cast_precision_loss, reason = "some hundred milliseconds, in nanoseconds or cycles")]
#[track_caller]
fn assert_time_goes_on(before: &VmState, after: &VmState, seconds: f64) {
    let (before, after) = (before.get(), after.get());
    // Half a percent is for the clocks of host and guest, which are adjusted separately.
    let allowed = 0.0..seconds * 1.005 + 0.001;
    let clock = after.interrupts.clock_ns.checked_sub(before.interrupts.clock_ns).unwrap() as f64 / 1e9;
    assert!(allowed.contains(&clock), "kvmclock went on by {clock} s in {seconds} s");
    for (before, after) in before.vcpus.iter().zip(&after.vcpus) {
        let cycles = after.tsc.guest_tsc.checked_sub(before.tsc.guest_tsc).expect("the TSC never goes back");
        let time = cycles as f64 / (f64::from(before.tsc.khz) * 1e3);
        // A page-table based KVM accepts an offset and does not apply it: ring 3 reads the processor's own counter.
        let offsets = Host::get().unwrap().virtualization() == Virtualization::Hardware;
        assert!(!offsets || allowed.contains(&time), "the TSC went on by {time} s in {seconds} s");
    }
    // Counters that were equal are still equal.
    let equal = |vcpus: &[VcpuStateV1]| vcpus.iter().all(|vcpu| vcpu.tsc.guest_tsc == vcpus[0].tsc.guest_tsc);
    assert_eq!(equal(&before.vcpus), equal(&after.vcpus));
}

#[test]
fn of_pulse_comes_back_on_one_four_and_sixteen_vcpus() {
    let Some(_room) = room_for(2) else { return };
    for vcpus in [1, 4, 16] {
        for work in [Work::Idle, Work::SelfTest] {
            let params = Params { work, beat_ms: 20, ..Params::new(7, MIB) };
            let studio = Studio::new(16 * MIB);
            let source = Guest::boot(&guest::pulse(&params, 4 * MIB, vcpus));
            source.line("pulse: ready");
            source.beat();
            let snapshot = studio.snapshot(&source, "any");
            let memory = studio.memory(&snapshot);
            let restored = Instant::now();
            let target = Guest::restore(snapshot.state(), memory);
            assert_comes_back(snapshot.state(), &target, restored);
        }
    }
}

/// Also through bytes, and for each of three generations: state made from state made from state.
#[test]
fn of_a_clone_of_a_clone_comes_back() {
    let Some(_room) = room_for(2) else { return };
    let params = Params { work: Work::SelfTest, beat_ms: 20, ..Params::new(7, MIB) };
    let studio = Studio::new(16 * MIB);
    let mut source = Guest::boot(&guest::pulse(&params, 4 * MIB, 2));
    source.line("pulse: ready");
    for generation in 1..=3 {
        source.beat();
        let snapshot = studio.snapshot(&source, &format!("generation-{generation}"));
        let state = VmState::from_bytes(&snapshot.state().to_bytes()).unwrap();
        assert_eq!(&state, snapshot.state());
        let restored = Instant::now();
        let target = Guest::restore(&state, studio.memory(&snapshot));
        assert_comes_back(&state, &target, restored);
        source = studio.clone_of(&snapshot);
    }
}

#[test]
fn of_linux_comes_back() {
    let Some(_room) = room_for(2) else { return };
    let Some(linux) = linux() else { return };
    let state = linux.snapshot.state();
    let memory = linux.studio.memory(&linux.snapshot);
    let restored = Instant::now();
    let target = Guest::restore(state, memory);
    assert_comes_back(state, &target, restored);
}

/// Guests are shown neither virtualization, whose state would have to be saved, nor asynchronous page faults, which a lazy clone
/// does not always resolve.
#[test]
fn guests_are_shown_nothing_that_a_clone_could_not_go_on_with() {
    let Some(_room) = room_for(1) else { return };
    let source = Guest::boot(&guest::pulse(&Params::new(7, MIB), 4 * MIB, 2));
    source.line("pulse: ready");
    let state = source.pause().save().unwrap();
    for vcpu in &state.get().vcpus {
        assert!(!shows_virtualization(&vcpu.cpuid) && vcpu.nested.is_none());
        let kvm = vcpu.cpuid.iter().find(|leaf| leaf.function == 0x4000_0001).expect("KVM's features");
        assert_eq!(kvm.eax & (1 << 4 | 1 << 10 | 1 << 14), 0, "asynchronous page faults");
    }
}
