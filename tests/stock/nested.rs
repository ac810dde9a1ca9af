//! A guest that runs a guest of its own is cloned while the inner one runs.

use cloner_testing::modes::{Build, TAKES, Take, only_holder};
use cloner_testing::stock::{self, MEMORY_BYTES};
use cloner_testing::{Guest, Studio, note, skip};
use guest_images::stock_linux::COMMAND_LINE;
use vmm::Config;
use vmm::config::Kernel;
use vmm::host::Host;
use vmm::vcpu::cpuid;

use super::{BUILDS, room_for_every_way};
use crate::MIB;

/// `KVM_STATE_NESTED_GUEST_MODE`: the vCPU is in the inner guest.
const IN_INNER_GUEST: u16 = 1;

/// The number of the next turn that the inner guest reports.
#[track_caller]
fn turn(guest: &Guest) -> u64 {
    let line = guest.line("nested: ").text;
    let number = line.strip_prefix("nested: turn ").and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("{line}"))
}

/// The last turn of the inner guest that was reported in a whole line.
fn last_turn(guest: &Guest) -> u64 {
    let lines = guest.console.lines();
    let mut turns = lines.iter().filter_map(|line| line.text.strip_prefix("nested: turn ")?.parse().ok());
    turns.next_back().unwrap_or(0)
}

/// Goes through three generations, in which every way to snapshot meets another way to clone, and one more.
#[test]
fn a_guest_that_runs_a_guest() {
    let Some(_room) = room_for_every_way() else { return };
    if !cpuid::offers_virtualization(Host::get().unwrap()) {
        skip("it shows a guest VT-x or SVM, which this host's KVM does not offer");
        return;
    }
    let image = stock::image();
    let kernel = Kernel::Linux {
        path: image.generic.clone(),
        initramfs: Some(image.nested.clone()),
        cmdline: COMMAND_LINE.to_owned(),
    };
    let mut source = Guest::boot(&Config { nested: true, ..Config::new(MEMORY_BYTES, kernel) });
    source.line("nested-ready");
    turn(&source);
    let _only = only_holder();
    let studio = Studio::new(256 * MIB);
    let ways: [(Take, [Build; 2]); 3] = [
        (TAKES[0], [BUILDS[2], BUILDS[0]]),
        (TAKES[1], [BUILDS[0], BUILDS[1]]),
        (TAKES[2], [BUILDS[1], BUILDS[2]]),
    ];
    let mut inside = 0;
    for (generation, (take, builds)) in ways.into_iter().enumerate() {
        turn(&source);
        let before = last_turn(&source);
        let snapshot = studio.take(&source, take, &format!("nested-{generation}"));
        let told = last_turn(&source);
        let nested =
            snapshot.state().get().vcpus[0].nested.as_ref().expect("the guest is shown virtualization");
        inside += usize::from(nested.flags & IN_INNER_GUEST != 0);
        for build in builds {
            let clone = studio.build(&snapshot, build);
            clone.vm.start();
            // A line that was being printed may be lost; its successor is the program's own proof that no turn was.
            let (first, second) = (turn(&clone), turn(&clone));
            assert!((before + 1..=told + 2).contains(&first), "turn {first}: {before} before, {told} after");
            assert_eq!(second, first + 1);
            note(format_args!("nested: {take:?}, {build:?}: goes on with turn {first}"));
            source = clone;
        }
    }
    assert!(inside > 0, "no snapshot was taken while the inner guest ran, so this test shows nothing");
    note(format_args!("nested: {inside} of 3 snapshots were taken while the inner guest ran"));
}
