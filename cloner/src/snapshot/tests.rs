//! Snapshots whose parts do not belong together, and what is known of one when another is read.

use std::sync::Arc;

use cloner_codec::chunk::{PAGE_BYTES, Page, PageIndex, PageRef, stored_checksum};
use cloner_codec::hot::{ChunkInput, Dedup, Encoder, EncoderOptions, NoDedup, PageSet};

use super::*;
use crate::layout::{ChunkIndex, PageNumber, PlaceRef, chunk_at};
use crate::pool::Pool;
use crate::save::tests::{Guest, Scene, noise, pool, state, text};

/// The parts of a snapshot, before they are put into the pool. The default is whole.
struct Parts {
    chunks: Vec<(ChunkId, Vec<u8>)>,
    manifest: ManifestV2,
    state_bytes: u64,
    /// What the pool keeps for it.
    kept: Vec<Arc<StoredSnapshot>>,
    left_out: &'static str,
}

/// Gives each page the reference that the test wants, if it wants one.
struct Refer<'a>(&'a [(usize, u64)]);

impl Dedup for Refer<'_> {
    fn find(&mut self, page: PageIndex, _bytes: &Page) -> Option<PageRef> {
        self.0.iter().find(|wanted| wanted.0 == page.get()).map(|wanted| PageRef(wanted.1))
    }
}

/// Encodes pages as a chunk, some of them as references.
fn chunk(index: u32, pages: &[Page], references: &[(usize, u64)]) -> (ChunkId, Vec<u8>) {
    let mut encoded = Vec::new();
    let input = ChunkInput::new(pages.as_flattened(), &PageSet::ALL).unwrap();
    Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut Refer(references), &mut encoded);
    (ChunkId { region: MEMORY_REGION, index, checksum: stored_checksum(&encoded) }, encoded)
}

/// Chunks of a guest with two full chunks and one of two pages.
const MEMORY_BYTES: u64 = (4 << 20) + 2 * 4096;

fn full(seed: u64) -> Vec<Page> {
    (0..512).map(|page| if page < 4 { noise(seed * 512 + page) } else { [0; PAGE_BYTES] }).collect()
}

impl Parts {
    fn new(id: u128, chunks: Vec<(ChunkId, Vec<u8>)>) -> Self {
        let manifest = ManifestV2 {
            producer: ManifestV2::this_producer(),
            id: SnapshotId::from_number(id),
            dependencies: Vec::new(),
            has_parent: false,
            touched_pages: 0,
            regions: vec![RegionV2::memory(MEMORY_BYTES)],
            chunks: chunks.iter().map(|chunk| chunk.0).collect(),
        };
        Self { chunks, manifest, state_bytes: MEMORY_BYTES, kept: Vec::new(), left_out: "" }
    }

    /// Two full chunks and the short one.
    fn whole(id: u128) -> Self {
        let seed = u64::try_from(id).unwrap();
        Self::new(
            id,
            vec![
                chunk(0, &full(seed), &[]),
                chunk(1, &full(seed + 1), &[]),
                chunk(2, &[noise(seed), text(1)], &[]),
            ],
        )
    }

    fn on(mut self, others: &[&Snapshot], has_parent: bool) -> Self {
        self.manifest.dependencies = others.iter().map(|other| other.manifest().id).collect();
        self.manifest.has_parent = has_parent;
        self.kept = others.iter().map(|other| Arc::clone(other.stored())).collect();
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Puts the parts into the pool, and takes the name off it again.
    fn open(&self, pool: &Pool) -> Result<Snapshot, Error> {
        let reservation = pool.reserve("a").unwrap();
        self.chunks.iter().for_each(|(id, bytes)| reservation.put_chunk(*id, bytes).unwrap());
        let blobs =
            [(MANIFEST_LABEL, self.manifest.to_bytes()), (STATE_LABEL, state(self.state_bytes).to_bytes())];
        for (label, bytes) in blobs.iter().filter(|blob| blob.0 != self.left_out) {
            reservation.put_blob(label, bytes).unwrap();
        }
        self.kept.iter().for_each(|kept| reservation.depend_on(Arc::clone(kept)));
        let opened = Snapshot::open(reservation.publish());
        pool.remove("a").unwrap();
        opened
    }
}

fn page(snapshot: &Snapshot, chunk: u32, page: usize) -> Result<Page, Error> {
    let checks = VerifiedFlags::new(snapshot);
    let mut out = [0xee; PAGE_BYTES];
    let page = PageIndex::new(page).unwrap();
    ChunkResolver::checked(snapshot, ChunkIndex(chunk), &checks).page(page, &mut out).map(|()| out)
}

fn reference(dependency: Option<usize>, chunk: u32, page: usize) -> u64 {
    let page = PageNumber::new(ChunkIndex(chunk), PageIndex::new(page).unwrap());
    PlaceRef { dependency, page }.to_bits()
}

#[test]
fn parts_that_do_not_belong_together_are_refused() {
    let pool = pool(8);
    let whole = || Parts::whole(1);
    whole().open(&pool).unwrap();
    let refused = |parts: Parts| parts.open(&pool).unwrap_err();

    for label in [MANIFEST_LABEL, STATE_LABEL] {
        let error = refused(whole().with(|parts| parts.left_out = label));
        assert!(
            matches!(&error, Error::Missing { snapshot, label: told } if snapshot == "a" && *told == label),
            "{error:?}"
        );
    }
    let error = refused(whole().with(|parts| parts.manifest.producer.clear()));
    assert!(matches!(error, Error::Manifest(ManifestError::Producer { .. })), "{error:?}");
    for state_bytes in [MEMORY_BYTES - 4096, MEMORY_BYTES + 4096] {
        let error = refused(whole().with(|parts| parts.state_bytes = state_bytes));
        assert!(
            matches!(error, Error::MemorySize { manifest_bytes: MEMORY_BYTES, state_bytes: told } if told == state_bytes),
            "{error:?}"
        );
    }

    // The guest has three chunks: the last is allowed, as `whole` has it, and one after it is not.
    let beyond = refused(whole().with(|parts| {
        parts.chunks[2].0.index = 3;
        parts.manifest.chunks[2].index = 3;
    }));
    assert!(matches!(beyond, Error::Chunks { listed: 3, last: Some(3), held: 3, count: 3 }), "{beyond:?}");
    type Change = fn(&mut Parts);
    let changes: [(&str, Change, usize, usize); 5] = [
        ("the pool lacks the first", |parts| drop(parts.chunks.remove(0)), 3, 2),
        ("the pool lacks the last", |parts| drop(parts.chunks.pop()), 3, 2),
        ("the manifest lacks the last", |parts| parts.manifest.chunks.truncate(2), 2, 3),
        ("one is listed twice", |parts| parts.manifest.chunks[1] = parts.manifest.chunks[0], 3, 3),
        ("they are out of order", |parts| parts.manifest.chunks.swap(0, 1), 3, 3),
    ];
    for (what, change, listed, held) in changes {
        let error = refused(whole().with(change));
        assert!(
            matches!(error, Error::Chunks { listed: l, held: h, .. } if (l, h) == (listed, held)),
            "{what}: {error:?}"
        );
    }
    for at in 0..3 {
        let error = refused(whole().with(|parts| parts.manifest.chunks[at].checksum ^= 1));
        assert!(
            matches!(error, Error::Exchanged { index, expected, found } if index as usize == at && expected == found ^ 1),
            "{error:?}"
        );
    }
}

#[test]
fn a_chunk_is_the_one_that_the_manifest_means() {
    let pool = pool(8);
    let chunk_of =
        |snapshot: &Snapshot, index| chunk_at(snapshot.state().layout(), ChunkIndex(index)).unwrap();
    // Manifest and pool agree, but the bytes are those of another chunk: each is whole by itself.
    let exchanged =
        Parts::whole(1).with(|parts| parts.chunks[1].1 = chunk(1, &full(9), &[]).1).open(&pool).unwrap();
    let error = exchanged.verify(&chunk_of(&exchanged, 1)).unwrap_err();
    assert!(
        matches!(error, Error::Exchanged { index: 1, expected, found } if expected == exchanged.manifest().chunks[1].checksum && found != expected),
        "{error:?}"
    );
    assert!(exchanged.verify(&chunk_of(&exchanged, 0)).unwrap().is_some());
    assert!(matches!(page(&exchanged, 1, 0), Err(Error::Exchanged { index: 1, .. })));

    for pages in [1, 3] {
        let short = chunk(2, &vec![noise(5); pages], &[]);
        let wrong = Parts::new(1, vec![chunk(0, &full(1), &[]), short]).open(&pool).unwrap();
        let error = wrong.verify(&chunk_of(&wrong, 2)).unwrap_err();
        assert!(
            matches!(error, Error::PageCount { index: 2, expected: 2, found } if found == pages),
            "{error:?}"
        );
        assert!(wrong.verify(&chunk_of(&wrong, 1)).unwrap().is_none(), "never touched");
    }
}

#[test]
fn dependencies_are_those_that_the_manifest_names_in_their_order() {
    let pool = pool(8);
    let [first, second] = [10, 20].map(|id| Parts::whole(id).open(&pool).unwrap());
    let child = |has_parent| Parts::whole(1).on(&[&first, &second], has_parent);
    assert_eq!(child(false).open(&pool).unwrap().parent().map(|parent| parent.manifest().id), None);
    assert_eq!(
        child(true).open(&pool).unwrap().parent().map(|parent| parent.manifest().id),
        Some(first.manifest().id)
    );

    type Change = fn(&mut Parts);
    let changes: [(&str, Change); 6] = [
        ("exchanged in the manifest", |parts| parts.manifest.dependencies.swap(0, 1)),
        ("exchanged in the pool", |parts| parts.kept.swap(0, 1)),
        ("one is not kept", |parts| drop(parts.kept.pop())),
        ("one is not named", |parts| parts.manifest.dependencies.truncate(1)),
        ("the same one twice", |parts| parts.kept[1] = Arc::clone(&parts.kept[0])),
        ("another one", |parts| parts.manifest.dependencies[1] = SnapshotId::from_number(21)),
    ];
    for (what, change) in changes {
        for has_parent in [false, true] {
            let parts = child(has_parent).with(change);
            let error = parts.open(&pool).unwrap_err();
            assert!(
                matches!(&error, Error::Dependencies { wanted, found, .. }
                    if *wanted == parts.manifest.dependencies && found.len() == parts.kept.len()),
                "{what}: {error:?}"
            );
        }
    }
    let orphan = Parts::whole(1).with(|parts| parts.manifest.has_parent = true).open(&pool).unwrap_err();
    assert!(matches!(orphan, Error::NoParent), "{orphan:?}");
}

#[test]
fn a_parent_has_the_same_size_and_no_parent_itself() {
    let pool = pool(8);
    let smaller = Parts::new(10, vec![chunk(0, &full(1), &[])])
        .with(|parts| {
            parts.state_bytes -= 4096;
            parts.manifest.regions[0].bytes -= 4096;
        })
        .open(&pool)
        .unwrap();
    let origin = Parts::whole(20).open(&pool).unwrap();
    let child = Parts::whole(30).on(&[&origin], true).open(&pool).unwrap();
    for (unfit, why) in [(&smaller, "different memory size"), (&child, "has a parent itself")] {
        let error = Parts::whole(1).on(&[unfit], true).open(&pool).unwrap_err();
        assert!(matches!(&error, Error::Parent { why: told, .. } if told.contains(why)), "{error:?}");
        // As a dependency, whose pages are referred to by number only, it is allowed.
        Parts::whole(1).on(&[&origin, unfit], true).open(&pool).unwrap();
        Parts::whole(1).on(&[unfit], false).open(&pool).unwrap();
    }
}

#[test]
fn a_reference_leads_to_a_page_of_the_snapshot_that_it_counts() {
    let pool = pool(8);
    let [first, second] = [10, 20].map(|id| Parts::whole(id).open(&pool).unwrap());
    let held = |seed: u64, page: u64| noise(seed * 512 + page);
    // What each of the pages from 10 on refers to, and what is there.
    let good = [
        (reference(None, 0, 1), held(1, 1)),
        (reference(Some(0), 0, 2), held(10, 2)),
        (reference(Some(1), 0, 2), held(20, 2)),
        (reference(Some(1), 1, 3), held(21, 3)),
        (reference(Some(0), 2, 1), text(1)),
    ];
    let wrong = [
        ("a third dependency", reference(Some(2), 0, 0)),
        ("a chunk that this snapshot does not hold", reference(None, 1, 0)),
        ("a chunk that no guest of this size has", reference(Some(0), 3, 0)),
        ("a page after the end of the short chunk", reference(Some(0), 2, 2)),
        ("the greatest page number", u64::from(u32::MAX) * 512 + 511),
        ("a page number of more bits than any guest has", (1 << 40) - 1),
    ];
    let references: Vec<(usize, u64)> =
        (10..).zip(good.iter().map(|good| good.0).chain(wrong.iter().map(|wrong| wrong.1))).collect();
    let mut pages = full(1);
    references.iter().for_each(|(at, _)| pages[*at] = text(100 + at));
    let snapshot =
        Parts::new(1, vec![chunk(0, &pages, &references)]).on(&[&first, &second], false).open(&pool).unwrap();
    for (at, (_, expected)) in (10..).zip(&good) {
        assert!(page(&snapshot, 0, at).unwrap() == *expected, "page {at}");
    }
    for (at, (what, bits)) in (10 + good.len()..).zip(wrong) {
        let error = page(&snapshot, 0, at).unwrap_err();
        assert!(matches!(inner(&error), Error::Reference(told) if *told == bits), "{what}: {error:?}");
    }

    // A reference to a page that is a reference, here and in a dependency; to itself; and to the parent without one.
    let chained = [
        (10, reference(None, 0, 0)),
        (11, reference(None, 0, 10)),
        (12, reference(None, 0, 12)),
        (13, reference(Some(0), 0, 10)),
    ];
    let mut pages = full(1);
    chained.iter().for_each(|(at, _)| pages[*at] = text(100 + at));
    let snapshot =
        Parts::new(2, vec![chunk(0, &pages, &chained)]).on(&[&snapshot], false).open(&pool).unwrap();
    assert!(page(&snapshot, 0, 10).unwrap() == held(1, 0));
    for (at, bits) in &chained[1..] {
        let error = page(&snapshot, 0, *at).unwrap_err();
        assert!(matches!(inner(&error), Error::Chained(told) if told == bits), "page {at}: {error:?}");
    }
}

/// The error that a resolver gave to the codec.
fn inner(error: &Error) -> &Error {
    match error {
        Error::Decode { source: CodecError::Resolve { source, .. }, .. } => source.downcast_ref().unwrap(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_page_of_the_parent_needs_one() {
    let pool = pool(8);
    let pages = full(1);
    let mut encoded = Vec::new();
    let input = ChunkInput::new(pages.as_flattened(), &PageSet::ALL)
        .unwrap()
        .with_parent(pages.as_flattened())
        .unwrap();
    Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut NoDedup, &mut encoded);
    let id = ChunkId { region: MEMORY_REGION, index: 0, checksum: stored_checksum(&encoded) };
    let [same, other] = [1, 5].map(|id| Parts::whole(id).open(&pool).unwrap());
    let parts = || Parts::new(9, vec![(id, encoded.clone())]);
    // With a dependency that is not the parent, it has none.
    for orphan in [parts(), parts().on(&[&same], false)] {
        let error = page(&orphan.open(&pool).unwrap(), 0, 0).unwrap_err();
        assert!(matches!(inner(&error), Error::NoParent), "{error:?}");
    }
    let child = parts().on(&[&same, &other], true).open(&pool).unwrap();
    assert!(page(&child, 0, 3).unwrap() == pages[3]);
    // A chunk that is held neither here nor there is zero.
    assert!(page(&child, 1, 0).unwrap() == [0; PAGE_BYTES]);
}

#[test]
fn a_snapshot_is_not_verified_by_what_is_known_of_another() {
    let pool = pool(16);
    let good = Parts::whole(1).open(&pool).unwrap();
    let flags = VerifiedFlags::new(&good);
    for index in 0..3 {
        flags.open(&good, ChunkIndex(index)).unwrap();
    }
    assert_eq!(flags.verified_of(&good), Some(vec![true; 3]));

    // The same content under another id, and the same id and content at another place in the pool, with a chunk less; each damaged.
    let damage = |parts: &mut Parts| {
        let at = parts.chunks[1].1.len() - 40;
        parts.chunks[1].1[at] ^= 1;
    };
    let other_id = Parts::whole(1).with(damage).with(|parts| parts.manifest.id = SnapshotId::from_number(2));
    let same_id = Parts::whole(1).with(damage).with(|parts| {
        parts.chunks.remove(0);
        parts.manifest.chunks.remove(0);
    });
    let mut flags = flags;
    for parts in [other_id, same_id] {
        let damaged = parts.open(&pool).unwrap();
        // A dependency of both stays known. A chunk of the damaged one does not become so.
        let next = Parts::whole(7).on(&[&good, &damaged], false).open(&pool).unwrap();
        flags = flags.for_next(&next);
        assert_eq!(flags.verified_of(&good), Some(vec![true; 3]));
        assert_eq!(flags.verified_of(&next), Some(vec![false; 3]));
        assert_eq!(flags.verified_of(&damaged), Some(vec![false; damaged.manifest().chunks.len()]));
        let error = flags.open(&damaged, ChunkIndex(1)).unwrap_err();
        assert!(matches!(error, Error::Format { index: 1, .. }), "{error:?}");
        assert!(flags.open(&damaged, ChunkIndex(1)).is_err(), "once more");
        flags.open(&damaged, ChunkIndex(2)).unwrap();
        assert_eq!(flags.verified_of(&damaged).unwrap().iter().filter(|verified| **verified).count(), 1);
    }
    // What no later snapshot depends on is forgotten.
    let unrelated = Parts::whole(8).open(&pool).unwrap();
    let flags = flags.for_next(&unrelated);
    assert_eq!((flags.verified_of(&good), flags.verified_of(&unrelated)), (None, Some(vec![false; 3])));
}

/// Each snapshot that a series makes verifies the parent's chunks, unless one before it has done so.
#[test]
fn dependencies_of_dependencies_are_verified_once_as_well() {
    let scene = Scene::new();
    let mut guest = Guest::with(4 << 20, [((0, 0), noise(1)), ((1, 0), noise(2))]);
    let first = scene.save("first", &guest, None).snapshot;
    guest.write((0, 1), noise(3));
    let second = scene.save("second", &guest, Some(&first)).snapshot;
    guest.write((1, 1), noise(3));
    let third = scene.save("third", &guest, Some(&second)).snapshot;
    let flags = VerifiedFlags::new(&third);
    let mut out = [0; PAGE_BYTES];
    // The parent's page, through the chunk of the child.
    ChunkResolver::checked(&third, ChunkIndex(1), &flags).page(PageIndex::new(0).unwrap(), &mut out).unwrap();
    let flags_of = |snapshot| flags.verified_of(snapshot).unwrap();
    assert_eq!(
        [flags_of(&third), flags_of(&second), flags_of(&first)],
        [[false, true].to_vec(), vec![false; 2], vec![false, true]]
    );
}
