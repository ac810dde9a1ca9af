//! Snapshots of a series: what is carried from one to the next, and what is not.

use std::collections::BTreeSet;

use cloner_codec::chunk::{PAGE_BYTES, Page, PageKind};

use super::*;
use crate::chunk_id::ChunkId;
use crate::moment::{self, Series};
use crate::progress::{Cancel, Progress};
use crate::save::{Error, SaveOptions};
use crate::snapshot::{self, Snapshot};

/// Two regions, each with a full chunk at its start, and a last chunk of three pages.
const TWO_REGIONS: u64 = (3 << 30) + (2 << 20) + 3 * 4096;
/// The last chunk of the first region, the first of the second, and the short one.
const LAST: [u32; 3] = [1535, 1536, 1537];

fn set(places: &[Place]) -> BTreeSet<Place> {
    places.iter().copied().collect()
}

/// A guest with pages of every kind in every chunk that matters.
fn guest() -> Guest {
    let pages = [0, 1].into_iter().chain(LAST).flat_map(|chunk| {
        let seed = u64::from(chunk);
        let pages: [Page; 3] = [words(seed), text(chunk as usize), noise(seed)];
        pages.into_iter().zip(0..).map(move |(page, at)| ((chunk, at), page))
    });
    let mut guest = Guest::with(TWO_REGIONS, pages);
    guest.write((0, 100), [9; PAGE_BYTES]);
    guest.write((0, 101), [0; PAGE_BYTES]);
    guest.write((0, 102), text(1));
    guest
}

#[test]
fn each_snapshot_reads_what_is_dirty_and_keeps_the_rest() {
    let (scene, mut guest) = (Scene::new(), guest());
    let mut series = Series::since(guest.track());
    let first = scene.save_next("first", &guest, &mut series);
    assert_eq!((guest.take_read(), first.report.changed.is_none()), (guest.touched(), true));
    assert_eq!(series.last().map(Snapshot::name), Some("first"));
    let parent = first.snapshot.manifest().id;

    // Nothing changed: nothing is read, and every page is the parent's or zero.
    let second = scene.save_next("second", &guest, &mut series);
    assert_eq!((guest.take_read(), second.report.read_bytes), (set(&[]), 0));
    let changed = second.report.changed.unwrap();
    assert_eq!((changed.dirty_bytes, changed.dirty_chunks), (0, 0));
    assert_eq!(second.report.touched_bytes, first.report.touched_bytes);

    // A patch, the parent's page again, a page that the parent holds elsewhere, new ones, a zero one, and chunks new to both.
    let changes = [
        ((0, 0), patched(words(0), 5)),
        ((0, 1), text(0)),
        ((0, 2), noise(1536)),
        ((0, 3), words(77)),
        ((0, 4), noise(77)),
        ((0, 100), [0; PAGE_BYTES]),
        ((2, 511), text(77)),
        ((1536, 511), noise(78)),
        ((1537, 2), text(78)),
        ((1537, 0), [3; PAGE_BYTES]),
    ];
    let dirty: Vec<Place> = changes.iter().map(|change| change.0).collect();
    changes.into_iter().for_each(|(place, page)| guest.write(place, page));
    let progress = Progress::default();
    let next = guest.next(&mut series).unwrap();
    let third = scene.try_save("third", next, &SaveOptions::default().progress(&progress)).unwrap();
    assert_holds(&third.snapshot, &guest);
    assert_eq!(guest.take_read(), set(&dirty));
    let changed = third.report.changed.unwrap();
    let bytes = (dirty.len() * PAGE_BYTES) as u64;
    assert_eq!((changed.dirty_bytes, changed.dirty_chunks, third.report.read_bytes), (bytes, 4, bytes));
    assert_eq!((progress.total_bytes(), progress.done_bytes()), (bytes, bytes));
    assert_eq!(third.report.touched_bytes, (guest.touched().len() * PAGE_BYTES) as u64);
    for kind in [PageKind::Parent, PageKind::Patch, PageKind::Dup] {
        assert!(third.report.stats[kind].pages > 0, "no {kind} page");
    }
    assert_eq!(third.snapshot.manifest().dependencies, [parent]);

    // A chunk with a dirty page keeps the records that it can; one without is copied as it is.
    guest.write((0, 200), text(5));
    let fourth = scene.save_next("fourth", &guest, &mut series);
    assert_eq!(guest.take_read(), set(&[(0, 3), (0, 200)]), "the word-marked page is encoded again");
    let chunk = |snapshot: &Snapshot, index| snapshot.stored().chunk(0, index).map(<[u8]>::to_vec);
    for index in [1, 2, 1535, 1536, 1537] {
        assert!(
            chunk(&third.snapshot, index) == chunk(&fourth.snapshot, index),
            "chunk {index} is not copied"
        );
    }
    assert_eq!(fourth.report.touched_bytes, (guest.touched().len() * PAGE_BYTES) as u64);
    assert_eq!(fourth.snapshot.manifest().dependencies, [parent]);
    let indices: Vec<u32> = fourth.snapshot.manifest().chunks.iter().map(|id| id.index).collect();
    assert_eq!(indices, [0, 1, 2, 1535, 1536, 1537]);

    // Only the parent is needed.
    for name in ["first", "second", "third"] {
        scene.pool.remove(name).unwrap();
    }
    drop((first, second, third));
    assert_holds(&fourth.snapshot, &guest);
}

/// The first snapshot of the series is a child of a child: its references count dependencies that the next one does not have.
#[test]
fn references_to_dependencies_that_the_next_snapshot_does_not_have_are_not_kept() {
    let size = 8 << 20;
    let scene = Scene::new();
    let mut guest = Guest::with(size, [((0, 0), noise(1)), ((3, 0), text(9))]);
    let origin = scene.save("origin", &guest, None).snapshot;
    guest.write((0, 1), noise(2));
    guest.write((0, 2), words(2));
    let middle = scene.save("middle", &guest, Some(&origin)).snapshot;
    let mut series = Series::since(guest.track());
    // Pages that it holds itself twice, that the middle one holds, and that the origin holds elsewhere: a chunk for each.
    for (place, page) in
        [((0, 3), noise(3)), ((0, 4), noise(3)), ((1, 0), noise(2)), ((1, 1), words(2)), ((2, 0), noise(1))]
    {
        guest.write(place, page);
    }
    let options = SaveOptions::default().parent(&middle);
    let first = scene.try_save("first", guest.next(&mut series).unwrap(), &options).unwrap();
    assert_holds(&first.snapshot, &guest);
    let (origin_id, middle_id) = (origin.manifest().id, middle.manifest().id);
    assert_eq!(first.snapshot.manifest().dependencies, [origin_id, middle_id]);
    assert!(first.report.stats[PageKind::Dup].pages >= 4, "{:?}", first.report.stats);
    guest.take_read();

    let second = scene.save_next("second", &guest, &mut series);
    assert_eq!(second.snapshot.manifest().dependencies, [origin_id]);
    assert!(!guest.take_read().contains(&(2, 0)), "what refers to the parent is kept");
    guest.write((2, 1), noise(50));
    guest.write((0, 5), noise(51));
    let third = scene.save_next("third", &guest, &mut series);
    assert_eq!(third.snapshot.manifest().dependencies, [origin_id]);
    drop((middle, first, second));
    for name in ["origin", "middle", "first", "second"] {
        scene.pool.remove(name).unwrap();
    }
    assert_holds(&third.snapshot, &guest);
}

#[test]
fn a_snapshot_that_fails_gives_the_dirty_pages_back() {
    let (scene, mut guest) = (Scene::new(), guest());
    let mut series = Series::since(guest.track());
    let first = scene.save_next("first", &guest, &mut series);
    let before = scene.look();
    let dirty = [(0, 3), (1, 511), (1537, 1)];
    dirty.into_iter().zip(0..).for_each(|(place, seed)| guest.write(place, noise(500 + seed)));
    let still_dirty = |guest: &Guest, series: &Series| {
        assert_eq!(scene.look(), before);
        let dirty = series.continued_by(guest.take_dirty()).unwrap();
        assert_eq!((dirty.pages(), series.last().map(Snapshot::name)), (3, Some("first")));
    };

    for place in dirty {
        guest.unreadable = Some(place);
        let moment = guest.next(&mut series).unwrap();
        let error = scene.try_save("a", moment, &SaveOptions::default()).unwrap_err();
        assert!(matches!(error, Error::Memory(_)), "{error:?}");
        still_dirty(&guest, &series);
    }
    guest.unreadable = None;
    let cancel = Cancel::new();
    cancel.cancel();
    let moment = guest.next(&mut series).unwrap();
    let error = scene.try_save("a", moment, &SaveOptions::default().cancel(&cancel)).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    still_dirty(&guest, &series);

    let moment = guest.next(&mut series).unwrap();
    let options = SaveOptions::default().parent(&first.snapshot);
    let error = scene.try_save("a", moment, &options).unwrap_err();
    assert!(matches!(error, Error::ParentOfSeries), "{error:?}");
    still_dirty(&guest, &series);
    // A moment that is never saved loses nothing either.
    drop(guest.next(&mut series).unwrap());
    still_dirty(&guest, &series);

    let second = scene.save_next("second", &guest, &mut series);
    assert_eq!(second.report.changed.unwrap().dirty_bytes, 3 * 4096);
    // Stored now, and so no longer dirty.
    assert_eq!(series.continued_by(guest.take_dirty()).unwrap().pages(), 0);
}

#[test]
fn a_failed_first_snapshot_leaves_the_series_without_one() {
    let (scene, mut guest) = (Scene::new(), guest());
    let mut series = Series::since(guest.track());
    guest.unreadable = Some((1536, 1));
    let moment = guest.next(&mut series).unwrap();
    assert!(matches!(scene.try_save("a", moment, &SaveOptions::default()), Err(Error::Memory(_))));
    assert!(series.last().is_none());
    guest.unreadable = None;
    let first = scene.save_next("first", &guest, &mut series);
    assert!(first.report.changed.is_none(), "everything is read");
}

#[test]
fn dirty_pages_that_do_not_continue_the_series_are_refused_and_go_back() {
    let (scene, mut guest, other) = (Scene::new(), guest(), guest());
    let mut series = Series::since(guest.track());
    other.track();
    let error = other.next(&mut series).map(drop).unwrap_err();
    assert!(matches!(error, moment::Error::OtherSeries { snapshot: None }), "{error:?}");
    scene.save_next("first", &guest, &mut series);
    guest.write((0, 0), text(4));
    // Another series of the same guest has been begun since.
    let mut later = Series::since(guest.track());
    guest.write((0, 1), text(4));
    let error = guest.next(&mut series).map(drop).unwrap_err();
    assert!(
        matches!(&error, moment::Error::OtherSeries { snapshot: Some(name) } if name == "first"),
        "{error:?}"
    );
    assert_eq!(guest.next(&mut later).map(|moment| moment.memory().layout()).unwrap(), guest.layout);
    assert_eq!(later.continued_by(guest.take_dirty()).unwrap().pages(), 1);
}

/// A copy of a snapshot in which one bit of a chunk's last record is another, with the same ids.
fn damaged(scene: &Scene, snapshot: &Snapshot, index: u32) -> Snapshot {
    let reservation = scene.pool.reserve("damaged").unwrap();
    let stored = snapshot.stored();
    for chunk in stored.chunks() {
        let mut bytes = chunk.bytes().to_vec();
        if chunk.id().index == index {
            // Before the slack, in a record that says nothing of its own lengths.
            let at = bytes.len() - 40;
            bytes[at] ^= 1;
        }
        reservation.put_chunk(chunk.id(), &bytes).unwrap();
    }
    stored.blobs().for_each(|(label, bytes)| reservation.put_blob(label, bytes).unwrap());
    stored.dependencies().iter().for_each(|other| reservation.depend_on(other.clone()));
    let damaged = Snapshot::open(reservation.publish()).unwrap();
    scene.pool.remove("damaged").unwrap();
    damaged
}

/// Whatever is made from a damaged snapshot would be wrong for ever: it is verified before anything is taken over from it.
#[test]
fn nothing_is_taken_over_from_a_chunk_that_is_damaged() {
    let scene = Scene::new();
    let guest = || Guest::with(4 << 20, [((0, 0), noise(1)), ((1, 0), noise(2))]);
    let parent = scene.save("parent", &guest(), None).snapshot;
    let is_damage = |error: &Error, chunk| matches!(error, Error::Snapshot(snapshot::Error::Format { index, .. }) if *index == chunk);
    for chunk in [0, 1] {
        let wrong = damaged(&scene, &parent, chunk);
        let before = scene.look();
        // As the parent of a full snapshot.
        let options = SaveOptions::default().parent(&wrong);
        let error = scene.try_save("a", guest().moment(), &options).unwrap_err();
        assert!(is_damage(&error, chunk), "{error:?}");
        // As the last snapshot of a series, with nothing dirty and with a dirty page in that chunk.
        for dirty in [false, true] {
            let mut guest = guest();
            let mut series = Series::since(guest.track());
            series.follow(&wrong, guest.track());
            if dirty {
                guest.write((chunk, 9), noise(3));
            }
            let moment = guest.next(&mut series).unwrap();
            let error = scene.try_save("a", moment, &SaveOptions::default()).unwrap_err();
            assert!(is_damage(&error, chunk), "{error:?}");
        }
        assert_eq!(scene.look(), before);
    }
}

/// A page that is dirty is compared with the parent's page in the same place, and looked for in all of the parent.
#[test]
fn the_parent_is_verified_where_its_pages_are_compared() {
    let scene = Scene::new();
    let mut guest = Guest::with(6 << 20, [((0, 0), noise(1)), ((2, 0), noise(2))]);
    let mut series = Series::since(guest.track());
    let parent = scene.save_next("parent", &guest, &mut series).snapshot;
    guest.write((0, 0), noise(3));
    let child = scene.save_next("child", &guest, &mut series).snapshot;
    // The same child, with a parent that is damaged where only the parent has the page.
    let wrong = damaged(&scene, &parent, 0);
    let reservation = scene.pool.reserve("other").unwrap();
    let copies = child.stored().chunks().iter();
    copies.for_each(|chunk| reservation.put_chunk(ChunkId { ..chunk.id() }, chunk.bytes()).unwrap());
    child.stored().blobs().for_each(|(label, bytes)| reservation.put_blob(label, bytes).unwrap());
    reservation.depend_on(wrong.stored().clone());
    let other = Snapshot::open(reservation.publish()).unwrap();
    let mut series = Series::since(guest.track());
    series.follow(&other, guest.track());
    guest.write((0, 0), patched(noise(1), 7));
    let moment = guest.next(&mut series).unwrap();
    let error = scene.try_save("a", moment, &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Error::Snapshot(snapshot::Error::Format { index: 0, .. })), "{error:?}");
}
