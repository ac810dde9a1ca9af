//! Every way to take a snapshot and every way to build a clone, on pages of every size, in three generations.

use std::time::Instant;

use cloner::process::fork::Zygote;
use cloner::progress::Watch;
use cloner::snapshot::Snapshot;
use cloner_testing::modes::{Build, TAKES, Take, only_holder};
use cloner_testing::process::Process;
use cloner_testing::stock::{Flavour, MEMORY_BYTES, Talks};
use cloner_testing::{Guest, Studio, huge_pages, note};
use vmm::Announce;
use vmm::memory::{Backing, PageSize};

use super::{BUILDS, Before, assert_unnoticed, features, room_for_every_way, watch};
use crate::{MIB, PROGRAM};

const PAGES: [PageSize; 3] = [PageSize::Base, PageSize::Transparent, PageSize::Huge];

/// One kind of machine and its clones.
struct Line {
    flavour: Flavour,
    vcpus: u8,
    studio: Studio,
}

#[test]
fn in_each_mode() {
    let Some(_room) = room_for_every_way() else { return };
    let line = Line::new(Flavour::Cloud, 1);
    let ways = [
        (TAKES[0], vec![BUILDS[0]], PageSize::Transparent),
        (TAKES[1], vec![BUILDS[1]], PageSize::Transparent),
        (TAKES[2], vec![BUILDS[2]], PageSize::Base),
    ];
    line.run(&ways);
}

#[test]
fn generic_on_one_vcpu() {
    everything(Flavour::Generic, 1, 0);
}

#[test]
fn generic_on_four_vcpus() {
    everything(Flavour::Generic, 4, 1);
}

#[test]
fn cloud_on_one_vcpu() {
    everything(Flavour::Cloud, 1, 2);
}

#[test]
fn cloud_on_four_vcpus() {
    everything(Flavour::Cloud, 4, 0);
}

/// Nine clones in three generations, each way to take with each way to build, and branches of the last in three more. The sources
/// are on pages of each size in turn, starting with another size in each test, so that together the tests take each way from each.
fn everything(flavour: Flavour, vcpus: u8, turn: usize) {
    let Some(_room) = room_for_every_way() else { return };
    // Enough for a clone, the source of the next, and what a live snapshot copies meanwhile.
    let pages = usize::try_from(3 * MEMORY_BYTES / (2 * MIB)).unwrap();
    let Some(huge) = huge_pages(pages) else { return };
    let line = Line::new(flavour, vcpus);
    let ways: Vec<_> = (0..3)
        .map(|number| {
            let mut builds = BUILDS.to_vec();
            // The clone built last is the source of the next; a fork's memory has no choice of pages.
            builds.rotate_left([1, 2, 1][number]);
            (TAKES[(number + turn) % 3], builds, PAGES[(number + 2) % 3])
        })
        .collect();
    line.run(&ways);
    huge.assert_all_back();
}

impl Line {
    fn new(flavour: Flavour, vcpus: u8) -> Self {
        Self { flavour, vcpus, studio: Studio::new(256 * MIB) }
    }

    fn processors(&self) -> u64 {
        self.flavour.processors(self.vcpus)
    }

    /// Boots on 4 KiB pages and goes through these ways; then branches.
    fn run(&self, ways: &[(Take, Vec<Build>, PageSize)]) {
        let _only = only_holder();
        let begun = Instant::now();
        let mut source = self.flavour.boot(self.vcpus, Backing::Private(PageSize::Base));
        let mut snapshot = None;
        for (generation, (take, builds, pages)) in (1_usize..).zip(ways) {
            // Registers are held on the processor and in the guest's memory in turn.
            source.tell_witness(if generation % 2 == 1 { "busy" } else { "idle" });
            let (taken, before) = self.take(&source, *take, &format!("generation-{generation}"));
            let mut last = None;
            for build in builds {
                let name = format!(
                    "{:?} on {} vCPUs, generation {generation}, {take:?}, {build:?} on {pages:?} pages",
                    self.flavour, self.vcpus
                );
                // The previous clone must not run beside this one: two emulated processors are few.
                drop(last.take());
                let clone = self.studio.build_on(&taken, *build, *pages);
                assert_unnoticed(&clone, &taken, &before, self.processors(), &name);
                last = Some(clone);
            }
            source.report().assert_sound(self.processors());
            source = last.unwrap();
            snapshot = Some((taken, before));
        }
        drop(source);
        let (taken, before) = snapshot.unwrap();
        self.branches(&taken, &before);
        note(format_args!(
            "stock: {:?} on {} vCPUs: {:.0} s in all",
            self.flavour,
            self.vcpus,
            begun.elapsed().as_secs_f64()
        ));
    }

    fn take(&self, source: &Guest, take: Take, name: &str) -> (Snapshot, Before) {
        let report = source.report();
        report.assert_sound(self.processors());
        let snapshot = self.studio.take(source, take, name);
        note(format_args!("stock: the guest uses {}", features(snapshot.state()).join(", ")));
        assert!(features(snapshot.state()).contains(&"kvm-clock"), "{:?}", snapshot.state());
        (snapshot, Before { report, taken: Instant::now() })
    }

    /// Forks the snapshot into a process of its own, and makes a branch of a branch of a branch of the fork.
    fn branches(&self, snapshot: &Snapshot, before: &Before) {
        let template = self.studio.restorer.template(snapshot, Watch::default()).unwrap();
        let zygote = Zygote::start(PROGRAM.path(), &template).unwrap();
        let started = Instant::now();
        let mut source = Process::of(zygote.fork(Announce::Never).unwrap());
        watch(&source, started, before, self.processors());
        for generation in 1..=3 {
            source.tell_witness(if generation % 2 == 1 { "busy" } else { "idle" });
            let report = source.report();
            let started = Instant::now();
            let (branch, _) = source.branch(Announce::Never);
            let before = Before { report, taken: Instant::now() };
            let after = watch(&branch, started, &before, self.processors());
            let gap = after.number("max_gap_ms");
            note(format_args!("stock: branch of generation {generation}: longest gap {gap} ms"));
            source.report().assert_sound(self.processors());
            source.end();
            source = branch;
        }
        source.end();
    }
}
