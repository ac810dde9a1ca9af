//! Snapshots saved against others: they hold only what differs, and need only what they keep themselves.

use cloner::moment::Moment;
use cloner::save::SaveOptions;
use cloner::snapshot::Snapshot;
use cloner_codec::chunk::PageKind;
use cloner_codec::hot::ChunkStats;
use cloner_testing::{Guest, Studio, guest, note, room_for};
use guest_images::pulse::{Params, check};
use vmm::Paused;

use crate::MIB;

const NONCE: u64 = 0x0c41_1d00_0c41_1d00;
const TOUCHED: u64 = 16 * MIB;

fn source() -> (Params, Guest) {
    let params = Params { beat_ms: 20, ..Params::new(NONCE, TOUCHED) };
    let source = Guest::boot(&guest::pulse(&params, 24 * MIB, 1));
    source.line("pulse: ready");
    (params, source)
}

#[track_caller]
fn save_against(
    studio: &Studio,
    paused: &Paused<'_>,
    name: &str,
    parent: &Snapshot,
) -> (Snapshot, ChunkStats) {
    let reservation = studio.pool.reserve(name).unwrap();
    let options = SaveOptions::default().parent(parent);
    let saved = studio.saver.save(Moment::of(paused).unwrap(), reservation, &options).unwrap();
    (saved.snapshot, saved.report.stats)
}

/// The guest has only counted meanwhile, so the second snapshot is a handful of pages; a clone of it is as good as any, even
/// after the first one has been removed.
#[test]
fn a_child_costs_what_differs_and_outlives_its_parents_name() {
    let Some(_room) = room_for(2) else { return };
    let (params, source) = source();
    let studio = Studio::new(64 * MIB);
    let parent = studio.snapshot(&source, "parent");
    source.beat();

    let paused = source.pause();
    let (child, stats) = save_against(&studio, &paused, "child", &parent);
    let pages = stats.pages();
    let same = stats[PageKind::Parent].pages
        + stats[PageKind::Zero].pages
        + stats[PageKind::Untouched].pages
        + stats[PageKind::Fill].pages;
    assert!(pages - same < 64, "{} of {pages} pages differ", pages - same);
    assert!(
        child.occupied_bytes() < parent.occupied_bytes() / 10,
        "child {}, parent {}",
        child.occupied_bytes(),
        parent.occupied_bytes()
    );

    studio.pool.remove("parent").unwrap();
    drop((parent, child));
    let child = Snapshot::open(studio.pool.get("child").unwrap()).unwrap();
    let memory = studio.memory(&child);
    assert_eq!(studio.comparer.first_difference(paused.memory(), &memory).unwrap(), None);
    drop(paused);
    let clone = Guest::resume(child.state(), memory);
    assert_eq!(clone.nonce(), NONCE);
    assert_eq!(clone.sum(), check::expected_sum(&params));

    // When the last snapshot goes, all memory comes back.
    studio.pool.remove("child").unwrap();
    drop(child);
    assert_eq!(studio.pool.stats().used_bytes, 0);
    studio.check();
}

/// Child of a child of a child: each equals the source at its own instant, and each refers to the first, so no chain is formed.
#[test]
fn chains_of_snapshots_are_no_chains_of_references() {
    let Some(_room) = room_for(1) else { return };
    let (_, source) = source();
    let studio = Studio::new(64 * MIB);
    let first = studio.snapshot(&source, "first");
    let mut last = first.clone();
    for number in 1..=4 {
        source.beat();
        let paused = source.pause();
        // New content in a page that was filled, and in one that was not.
        let text = [0x10 + number; 256];
        paused.memory().write(2 * MIB + u64::from(number) * 4096, &text).unwrap();
        paused.memory().write(20 * MIB + u64::from(number) * 4096, &text).unwrap();
        let (child, _) = save_against(&studio, &paused, &format!("child-{number}"), &last);
        assert_eq!(child.parent().unwrap().name(), "first");
        assert!(child.occupied_bytes() < first.occupied_bytes() / 10, "{}", child.occupied_bytes());
        let memory = studio.memory(&child);
        assert_eq!(studio.comparer.first_difference(paused.memory(), &memory).unwrap(), None);
        last = child;
    }
}

/// What a child needs from its parent is verified as well.
#[test]
fn a_child_without_its_parent_is_refused() {
    let Some(_room) = room_for(1) else { return };
    let (_, source) = source();
    let studio = Studio::new(64 * MIB);
    let parent = studio.snapshot(&source, "parent");
    let (child, _) = save_against(&studio, &source.pause(), "child", &parent);

    let stored = studio.pool.get(child.name()).unwrap();
    let orphan = studio.pool.reserve("orphan").unwrap();
    for chunk in stored.chunks() {
        orphan.put_chunk(chunk.id(), chunk.bytes()).unwrap();
    }
    for (label, bytes) in stored.blobs() {
        orphan.put_blob(label, bytes).unwrap();
    }
    let error = Snapshot::open(orphan.publish()).unwrap_err();
    assert!(matches!(error, cloner::snapshot::Error::Dependencies { .. }), "{error}");

    let stepchild = studio.pool.reserve("stepchild").unwrap();
    for (label, bytes) in stored.blobs() {
        stepchild.put_blob(label, bytes).unwrap();
    }
    for chunk in stored.chunks() {
        stepchild.put_chunk(chunk.id(), chunk.bytes()).unwrap();
    }
    let stranger = studio.snapshot(&source, "stranger");
    stepchild.depend_on(studio.pool.get(stranger.name()).unwrap());
    let error = Snapshot::open(stepchild.publish()).unwrap_err();
    assert!(matches!(error, cloner::snapshot::Error::Dependencies { .. }), "{error}");
}

/// According to the pool, the second snapshot costs little and shares the rest; either can be removed without the other noticing.
#[test]
fn two_snapshots_of_one_machine_cost_little_more_than_one() {
    let Some(_room) = room_for(1) else { return };
    let (_, source) = source();
    let studio = Studio::new(64 * MIB);
    let parent = studio.snapshot(&source, "parent");
    let one = studio.pool.stats().used_bytes;
    let before = studio.memory(&parent);
    source.beat();
    let paused = source.pause();
    save_against(&studio, &paused, "first", &parent);
    save_against(&studio, &paused, "second", &parent);
    let three = studio.pool.stats().used_bytes;
    let listed = studio.pool.list();
    note(format_args!(
        "one snapshot: {one} bytes in the pool, each further one of the same machine: {}",
        (three - one) / 2
    ));
    assert!(three - one < one / 5, "{one} and {three} bytes");
    let [first, shared, second] = &listed[..] else { panic!("{listed:?}") };
    assert_eq!((shared.dependents, first.shared_bytes, second.shared_bytes), (2, one, one));
    assert_eq!(first.dependencies, ["parent"]);

    studio.pool.remove("first").unwrap();
    for (name, expected) in [("second", paused.memory()), ("parent", &before)] {
        let snapshot = Snapshot::open(studio.pool.get(name).unwrap()).unwrap();
        let memory = studio.memory(&snapshot);
        assert_eq!(studio.comparer.first_difference(expected, &memory).unwrap(), None, "{name}");
    }
    drop(parent);
    studio.pool.remove("parent").unwrap();
    assert!(studio.pool.stats().used_bytes >= one, "the second still refers to it");
    studio.pool.remove("second").unwrap();
    assert_eq!(studio.pool.stats().used_bytes, 0);
    studio.check();
}
