//! Clones of clones of clones, where each way to make them follows every other.

use cloner_testing::modes::{TAKES, builds, only_holder};
use cloner_testing::{Guest, Studio, guest, room_for, value};
use guest_images::pulse::{DirtyRate, DirtyWork, Params, Status, Work, WriteOrder};
use vmm::Announce;

use crate::MIB;

const NONCE: u64 = 0xc4a1_c4a1_c4a1_0001;

/// Ten generations: stop, live and incremental snapshots in turn, from which clones are built eagerly, forked and lazily, so that
/// each way to build comes both before and after each way to take. The guest never stops writing, so that memory of two instants
/// would be noticed.
#[test]
fn every_way_to_clone_follows_every_other() {
    let Some(_room) = room_for(2) else { return };
    let _only = only_holder();
    let work = Work::Dirty(DirtyWork {
        rate: DirtyRate::FullSpeed,
        working_set: 500,
        order: WriteOrder::Random,
        words_per_page: 8,
    });
    let params = Params { beat_ms: 20, work, ..Params::new(NONCE, 4 * MIB) };
    let studio = Studio::new(48 * MIB);
    let mut source = Guest::boot(&guest::pulse(&params, 8 * MIB, 2));
    source.line("pulse: ready");
    source.beat();
    let builds = builds();
    let ways = (0..10).map(|number| (TAKES[number % 3], builds[(number + number / 3) % builds.len()]));
    for (generation, (take, build)) in (1..).zip(ways) {
        let name = format!("{generation}-{take:?}-{build:?}");
        let snapshot = studio.take(&source, take, &name);
        let memory = studio.memory(&snapshot);
        guest::verify(&params, &memory);
        let before = guest::status(&memory);
        drop(memory);

        let clone = studio.build(&snapshot, build);
        let identity = clone.tell(Announce::InMemory { address: Status::IDENTITY });
        assert_eq!(identity.generation, generation, "{name}");
        clone.vm.start();
        let line = clone.line("pulse: clone").text;
        assert_eq!(value(&line, "generation", 10), generation, "{name}");
        assert_eq!(clone.nonce(), NONCE, "{name}");
        assert!(clone.beat() > before.beats, "{name}");
        let after = guest::status(clone.pause().memory());
        for (before, after) in before.cpus.iter().zip(&after.cpus) {
            assert!(after.sequence >= before.sequence, "{name}: the guest went back");
        }
        guest::verify(&params, clone.pause().memory());
        source.beat();
        guest::verify(&params, source.pause().memory());
        drop(snapshot);
        studio.pool.remove(&name).unwrap();
        source = clone;
    }
    assert_eq!(studio.pool.stats().used_bytes, 0);
    studio.check();
}
