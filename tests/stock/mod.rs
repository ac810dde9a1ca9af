//! Stock Linux is cloned: Debian's own kernels, unmodified. What runs in them notices nothing.
//!
//! These kernels need a processor that runs ring 0. Where it is emulated, each test says so in a line; `tests/ordinary-host`
//! runs them.

mod initrd;
mod many;
mod matrix;
mod nested;

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use cloner::snapshot::Snapshot;
use cloner_testing::modes::Build;
use cloner_testing::room::Room;
use cloner_testing::stock::{Report, Talks, room_for_ring_0};
use cloner_testing::{Guest, can_restore_lazily, note};
use vmm::VmState;

/// Every way to build a clone: these tests need all of them.
const BUILDS: [Build; 3] = [Build::Eager, Build::Fork, Build::Lazy];

/// Room for a source and a clone of it, if ring 0 is not emulated and every way to build a clone can be used.
fn room_for_every_way() -> Option<Room> {
    let room = room_for_ring_0(2)?;
    can_restore_lazily().then_some(room)
}

/// Time between a snapshot and its clones: a clone whose clocks went on meanwhile is wrong by this much.
const IN_POOL: Duration = Duration::from_secs(2);

/// How long a clone is watched, by its own clock: longer than its longest sleep.
const WATCHED: Duration = Duration::from_millis(2500);

/// The MSRs by which KVM and a guest share clock, steal time, end of interrupts and asynchronous page faults, by vCPU.
fn kvm_msrs(state: &VmState) -> BTreeMap<(usize, u32), u64> {
    let vcpus = state.get().vcpus.iter().enumerate();
    vcpus
        .flat_map(|(vcpu, state)| state.msrs.iter().map(move |msr| ((vcpu, msr.index), msr.data)))
        .filter(|((_, index), _)| (0x4b56_4d00..=0x4b56_4dff).contains(index))
        .collect()
}

/// The names of those that the guest uses on vCPU 0.
fn features(state: &VmState) -> Vec<&'static str> {
    const FEATURES: [(u32, &str); 4] = [
        (0x4b56_4d01, "kvm-clock"),
        (0x4b56_4d02, "asynchronous page faults"),
        (0x4b56_4d03, "steal time"),
        (0x4b56_4d04, "PV EOI"),
    ];
    let msrs = kvm_msrs(state);
    let enabled = |index| msrs.get(&(0, index)).is_some_and(|data| data & 1 != 0);
    FEATURES.into_iter().filter(|(index, _)| enabled(*index)).map(|(_, name)| name).collect()
}

/// What is known of a machine before the instant from which a clone of it goes on.
struct Before {
    report: Report,
    /// The time at which the snapshot was complete.
    taken: Instant,
}

/// Starts a clone, watches it for a while, and asserts that it has noticed nothing.
#[track_caller]
fn assert_unnoticed(clone: &Guest, snapshot: &Snapshot, before: &Before, processors: u64, name: &str) {
    thread::sleep(IN_POOL.saturating_sub(before.taken.elapsed()));
    let started = Instant::now();
    clone.vm.start();
    let after = watch(clone, started, before, processors);
    // Checked after it has run: what the guest has set up is there, with the addresses it has given.
    let state = clone.pause().save().unwrap();
    assert_eq!(kvm_msrs(&state), kvm_msrs(snapshot.state()), "{name}");
    note(format_args!(
        "stock: {name}: {:.1} s by its clock, longest gap {} ms, latest sleep {} ms, {:.1} s in all",
        (after.monotonic() - before.report.monotonic()).as_secs_f64(),
        after.number("max_gap_ms"),
        after.number("late_ms"),
        started.elapsed().as_secs_f64()
    ));
}

/// Lets a clone that has run since `started` go on until all its sleepers have woken, and asserts that it has noticed nothing.
#[track_caller]
fn watch(clone: &impl Talks, started: Instant, before: &Before, processors: u64) -> Report {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        thread::sleep(WATCHED);
        let report = clone.report();
        report.assert_sound(processors);
        let went = report.monotonic().checked_sub(before.report.monotonic()).expect("it went back");
        if went < WATCHED && Instant::now() < deadline {
            continue;
        }
        // The source went on until the snapshot was complete, and the clone has gone on since it was started.
        let allowed = (before.taken - before.report.asked) + (report.answered - started);
        report.assert_goes_on(&before.report, allowed);
        return report;
    }
}
