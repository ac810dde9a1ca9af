//! Full snapshots, alone and as children.

use std::collections::{BTreeSet, HashMap};

use cloner_codec::chunk::{PAGE_BYTES, Page, PageKind, page_hash};

use super::*;
use crate::chunk_id::ChunkId;
use crate::moment::Series;
use crate::progress::{Cancel, Progress};
use crate::save::{Error, SaveOptions};
use crate::snapshot::{self, Snapshot};

const ZERO: Page = [0; PAGE_BYTES];

/// Sizes whose last chunk is short: one chunk only, two of them, and a second region that has a full chunk and a short one.
const SIZES: [u64; 3] = [1 << 20, (2 << 20) + 4096, (3 << 30) + (2 << 20) + 3 * 4096];

/// The first and the last page of the guest, and pages on both sides of every kind of boundary.
fn edges(guest: &Guest) -> Vec<Place> {
    let chunks = crate::layout::chunks(guest.layout);
    let ends = [0, 1].into_iter().chain(chunks.len().saturating_sub(3)..chunks.len());
    let chosen: BTreeSet<usize> = ends.filter(|chunk| *chunk < chunks.len()).collect();
    let pages = |chunk: usize| {
        let last = chunks[chunk].pages - 1;
        let pages: BTreeSet<usize> = (0..13).chain([63, 64, 65, 200, last.saturating_sub(1), last]).collect();
        pages
            .into_iter()
            .filter(move |page| *page <= last)
            .map(move |page| (u32::try_from(chunk).unwrap(), page))
    };
    chosen.into_iter().flat_map(pages).collect()
}

fn any_page(number: usize) -> Page {
    match number % 6 {
        0 => text(number),
        1 => words(number as u64),
        2 => noise(number as u64),
        3 => [7; PAGE_BYTES],
        4 => ZERO,
        // Occurs again and again, in this chunk and in others.
        _ => text(1),
    }
}

#[test]
fn pages_of_every_kind_come_back_from_both_ends_of_every_chunk() {
    for size in SIZES {
        let scene = Scene::new();
        let mut guest = Guest::new(size);
        for (number, place) in edges(&guest).into_iter().enumerate() {
            guest.write(place, any_page(number));
        }
        let saved = scene.save("a", &guest, None);
        assert_eq!(guest.take_read(), guest.touched(), "{size}: pages that were never touched are not read");
        let (report, manifest) = (&saved.report, saved.snapshot.manifest());
        let touched_bytes = (guest.touched().len() * PAGE_BYTES) as u64;
        assert_eq!(
            (report.memory_bytes, report.touched_bytes, report.read_bytes),
            (size, touched_bytes, touched_bytes)
        );
        assert_eq!(manifest.touched_pages, guest.touched().len() as u64);
        assert!(!manifest.has_parent && manifest.dependencies.is_empty() && report.changed.is_none());
        let places: Vec<(u16, u32)> = manifest.chunks.iter().map(ChunkId::place).collect();
        let mut expected: Vec<(u16, u32)> = guest.touched().iter().map(|place| (0, place.0)).collect();
        expected.dedup();
        assert_eq!(places, expected);
        for kind in [PageKind::Zero, PageKind::Fill, PageKind::Dup, PageKind::ByteMarked, PageKind::Raw] {
            assert!(report.stats[kind].pages > 0, "{size}: no {kind} page");
        }
        assert_eq!(
            report.stats.pages() - report.stats[PageKind::Untouched].pages,
            guest.touched().len() as u64
        );
    }
}

/// A child's pages in every relation to those of its parent, and to those of the parent's parent.
#[test]
fn children_and_their_children_hold_their_own_pages() {
    for size in SIZES {
        let scene = Scene::new();
        let mut guest = Guest::new(size);
        let places = edges(&guest);
        for (number, place) in places.iter().enumerate() {
            guest.write(*place, any_page(number));
        }
        let first = scene.save("first", &guest, None).snapshot;
        for (number, place) in places.iter().enumerate() {
            match number % 5 {
                0 => guest.write(*place, patched(any_page(number), number)),
                1 => guest.write(*place, any_page(number + 2)),
                2 => guest.write(*place, ZERO),
                3 => guest.write(*place, noise(1000 + number as u64)),
                _ => {}
            }
        }
        let second = scene.save("second", &guest, Some(&first));
        for kind in [PageKind::Parent, PageKind::Patch, PageKind::Dup] {
            assert!(second.report.stats[kind].pages > 0, "{size}: no {kind} page");
        }
        let (first_id, second) = (first.manifest().id, second.snapshot);
        assert_eq!(
            (second.manifest().has_parent, &second.manifest().dependencies[..]),
            (true, &[first_id][..])
        );
        // What the second holds itself, moved to other places: only it can be referred to for these pages.
        for (number, place) in places.iter().enumerate().filter(|(number, _)| number % 5 == 3) {
            guest.write(*place, noise(1000 + ((number + 5) % places.len()) as u64));
        }
        let third = scene.save("third", &guest, Some(&second)).snapshot;
        let second_id = second.manifest().id;
        assert_eq!(third.manifest().dependencies, [first_id, second_id], "the parent's parent comes first");
        assert_eq!(third.parent().map(Snapshot::name), Some("first"));
        let fourth = scene.save("fourth", &guest, Some(&third)).snapshot;
        assert_eq!(fourth.manifest().dependencies, [first_id, third.manifest().id, second_id]);
        for name in ["first", "second"] {
            scene.pool.remove(name).unwrap();
        }
        assert_holds(&fourth, &guest);
    }
}

/// The parent has the page that the child has, but in a chunk before. One thread decodes the parent's chunks one after the other.
#[test]
fn a_chunk_that_the_parent_does_not_hold_is_not_compared_with_the_one_decoded_before() {
    let scene = Scene::with_threads(1);
    let size = 6 << 20;
    let parent =
        scene.save("parent", &Guest::with(size, [((0, 5), noise(1)), ((0, 6), text(1))]), None).snapshot;
    let pages = [((0, 5), noise(1)), ((1, 5), patched(noise(1), 3)), ((1, 6), text(1)), ((2, 6), noise(2))];
    scene.save("child", &Guest::with(size, pages), Some(&parent));
}

/// What one chunk leaves in a thread's scratch memory shows in none that is encoded after it.
#[test]
fn pages_of_one_chunk_do_not_show_in_the_next() {
    let scene = Scene::with_threads(1);
    let full = (0..512).map(|page| ((0, page), noise(page as u64)));
    let guest = Guest::with(6 << 20, full.chain([((1, 7), text(1)), ((2, 0), text(2))]));
    scene.save("a", &guest, None);
    scene.save("b", &Guest::with(4 << 20, [((0, 511), text(3)), ((1, 1), ZERO)]), None);
}

/// Pages with different bytes whose hashes a table of pages cannot tell apart.
fn lookalikes() -> [Page; 2] {
    let mut seen = HashMap::new();
    let numbered = |number: u64| {
        let mut page = noise(1);
        page[..8].copy_from_slice(&number.to_le_bytes());
        page
    };
    for number in 0_u64.. {
        // The tag is the highest 24 bits, and a table of eight slots begins with the lowest 3.
        let hash = page_hash(&numbered(number)).0;
        if let Some(other) = seen.insert((hash >> 104, hash & 7), number) {
            return [other, number].map(numbered);
        }
    }
    unreachable!("there are fewer keys than pages")
}

#[test]
fn pages_whose_hashes_look_alike_are_told_apart_by_their_bytes() {
    let ([left, right], scene) = (lookalikes(), Scene::new());
    // In one snapshot, in a dependency, and in the parent of a series.
    let both = scene.save("both", &Guest::with(4 << 20, [((0, 0), left), ((1, 9), right)]), None);
    assert_eq!(both.report.stats[PageKind::Dup].pages, 0);
    let parent = scene.save("parent", &Guest::with(4 << 20, [((0, 0), left)]), None).snapshot;
    let child = scene.save("child", &Guest::with(4 << 20, [((1, 0), right)]), Some(&parent));
    assert_eq!(child.report.stats[PageKind::Dup].pages, 0);
    let mut guest = Guest::with(4 << 20, [((0, 0), left)]);
    let mut series = Series::since(guest.track());
    scene.save_next("first", &guest, &mut series);
    guest.write((1, 0), right);
    guest.write((1, 1), left);
    let next = scene.save_next("next", &guest, &mut series);
    assert_eq!(next.report.stats[PageKind::Dup].pages, 1);
}

/// Everything that can go wrong, in a save of a guest that is the child of another.
#[test]
fn a_save_that_fails_leaves_pool_and_parent_as_they_were() {
    let scene = Scene::new();
    let pages = |seed: u64| (0..3_u32).map(move |chunk| ((chunk, 3), noise(seed + u64::from(chunk))));
    let size = 6 << 20;
    let origin = Guest::with(size, pages(1));
    let parent = scene.save("parent", &origin, None).snapshot;
    let before = scene.look();
    let mut guest = Guest::with(size, pages(100));
    let options = SaveOptions::default().parent(&parent);
    let unchanged = || {
        assert_eq!(scene.look(), before);
        assert_holds(&parent, &origin);
    };

    for place in [(0, 3), (1, 3), (2, 3)] {
        guest.unreadable = Some(place);
        let error = scene.try_save("a", guest.moment(), &options).unwrap_err();
        assert!(matches!(error, Error::Memory(_)), "{error:?}");
        unchanged();
    }
    guest.unreadable = None;
    guest.is_traceable = false;
    let error = scene.try_save("a", guest.moment(), &options).unwrap_err();
    assert!(matches!(error, Error::Touched(_)), "{error:?}");
    unchanged();
    guest.is_traceable = true;

    let cancel = Cancel::new();
    cancel.cancel();
    let error = scene.try_save("a", guest.moment(), &options.cancel(&cancel)).unwrap_err();
    assert!(matches!(error, Error::Cancelled), "{error:?}");
    unchanged();

    let reservation = scene.pool.reserve("filler").unwrap();
    let room = scene.pool.stats().free_bytes - 2 * PAGE_BYTES;
    reservation.put_blob("filler", &vec![1; room]).unwrap();
    let error = scene.try_save("a", guest.moment(), &options).unwrap_err();
    assert!(matches!(error, Error::Pool(crate::pool::Error::Full { .. })), "{error:?}");
    drop(reservation);
    unchanged();

    let progress = Progress::default();
    let saved = scene.try_save("a", guest.moment(), &options.progress(&progress)).unwrap();
    assert_holds(&saved.snapshot, &guest);
    assert_eq!((progress.total_bytes(), progress.done_bytes()), (3 * 4096, 3 * 4096));
}

/// Whether the sizes fit is known only from the parent: its chunks may be as long as those of the child.
#[test]
fn a_parent_of_another_memory_size_is_refused_before_anything_is_published() {
    let scene = Scene::new();
    let parent = scene.save("parent", &Guest::with(8 << 20, [((0, 0), text(1))]), None).snapshot;
    let child = scene.save("child", &Guest::with(8 << 20, [((1, 0), text(2))]), Some(&parent)).snapshot;
    let before = scene.look();
    for (size, parent) in [(4 << 20, &parent), (16 << 20, &parent), (4 << 20, &child)] {
        let guest = Guest::with(size, [((1, 0), text(2))]);
        let error = scene.try_save("a", guest.moment(), &SaveOptions::default().parent(parent)).unwrap_err();
        assert!(
            matches!(&error, Error::Snapshot(snapshot::Error::Parent { snapshot, parent, .. })
                if snapshot == "a" && parent == "parent"),
            "{error:?}"
        );
        assert_eq!(scene.look(), before);
    }
}
