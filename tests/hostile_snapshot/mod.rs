//! Snapshots made by an attacker or damaged by failing memory: they give an error, but never a panic and never wrong bytes.

mod manifest;

use std::collections::BTreeMap;

use cloner::chunk_id::ChunkId;
use cloner::layout::chunks;
use cloner::restore::eager;
use cloner::snapshot::{Error, MANIFEST_LABEL, MEMORY_REGION, ManifestV2, STATE_LABEL, Snapshot};
use cloner_codec::chunk::{Page, PageIndex, PageRef};
use cloner_codec::hot::{ChunkInput, Dedup, Encoder, EncoderOptions, PageSet, VerifiedChunk};
use cloner_testing::{Guest, Studio, assert_names, guest, room_for};
use guest_images::pulse::{Mix, Params};
use vmm::VmState;
use vmm::memory::GuestMemory;
use vmm::schema::envelope::Schema;

use crate::MIB;

const PAGE_BYTES: usize = 4096;

/// What the pool holds of a snapshot, so that it can be changed.
#[derive(Clone)]
struct Parts {
    /// By index in the region of memory.
    chunks: BTreeMap<u32, Vec<u8>>,
    blobs: BTreeMap<&'static str, Vec<u8>>,
    manifest: ManifestV2,
}

impl Parts {
    fn of(studio: &Studio, snapshot: &Snapshot) -> Self {
        let stored = studio.pool.get(snapshot.name()).unwrap();
        let blob = |label| (label, stored.blob(label).unwrap().to_vec());
        Self {
            chunks: stored.chunks().iter().map(|chunk| (chunk.id().index, chunk.bytes().to_vec())).collect(),
            blobs: BTreeMap::from([blob(MANIFEST_LABEL), blob(STATE_LABEL)]),
            manifest: snapshot.manifest().clone(),
        }
    }

    /// Replaces the manifest, in a valid envelope whatever it says.
    fn with_manifest(mut self, change: impl FnOnce(&mut ManifestV2)) -> Self {
        change(&mut self.manifest);
        self.blobs.insert(MANIFEST_LABEL, self.manifest.to_bytes());
        self
    }

    fn with_manifest_text(mut self, text: &[u8]) -> Self {
        let schema = Schema { magic: *b"CLNSNAP\0", version: 2, name: "snapshot manifest" };
        self.blobs.insert(MANIFEST_LABEL, schema.wrap(text));
        self
    }

    /// The id that the manifest gives a chunk; one with a checksum of zero if it lists none.
    fn id(&self, index: u32) -> ChunkId {
        let listed = self.manifest.chunks.iter().find(|chunk| chunk.index == index);
        listed.copied().unwrap_or(ChunkId { region: MEMORY_REGION, index, checksum: 0 })
    }

    /// Puts the parts into the pool under a separate name while `use_it` runs.
    fn stored<T>(&self, studio: &Studio, use_it: impl FnOnce(Result<Snapshot, Error>) -> T) -> T {
        let reservation = studio.pool.reserve("hostile").unwrap();
        for (index, bytes) in &self.chunks {
            reservation.put_chunk(self.id(*index), bytes).unwrap();
        }
        for (label, bytes) in &self.blobs {
            reservation.put_blob(label, bytes).unwrap();
        }
        let result = use_it(Snapshot::open(reservation.publish()));
        studio.pool.remove("hostile").unwrap();
        result
    }

    /// Opens the snapshot and restores its memory.
    fn restore(&self, studio: &Studio) -> Result<GuestMemory, Error> {
        self.stored(studio, |snapshot| match studio.try_memory(&snapshot?) {
            Ok(memory) => Ok(memory),
            Err(eager::Error::Snapshot(error)) => Err(error),
            Err(other) => panic!("{other:?}"),
        })
    }

    #[track_caller]
    fn refused(&self, studio: &Studio) -> Error {
        match self.restore(studio) {
            Err(error) => error,
            Ok(_) => panic!("the snapshot was restored"),
        }
    }
}

/// A snapshot of a guest with every kind of page, and with chunks that are full, short and untouched.
fn real(studio: &Studio) -> (Parts, GuestMemory) {
    let mix = Mix { zero: 200, fill: 200, duplicate: 200, structured: 300, random: 100 };
    let params = Params { beat_ms: 0, mix, ..Params::new(1, 4 * MIB) };
    let source = Guest::boot(&guest::pulse(&params, 9 * MIB, 1));
    source.line("pulse: ready");
    let (snapshot, memory) = studio.save_and_compare(&source.pause(), "real");
    let parts = Parts::of(studio, &snapshot);
    assert_eq!(parts.chunks.keys().copied().collect::<Vec<_>>(), [0, 1, 2]);
    (parts, memory)
}

fn studio() -> Studio {
    Studio::new(32 * MIB)
}

#[test]
fn unharmed_it_is_restored() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, memory) = real(&studio);
    let again = parts.clone().with_manifest(|_| ()).restore(&studio).unwrap();
    assert_eq!(studio.comparer.first_difference(&memory, &again).unwrap(), None);
}

/// One bit is flipped in every byte of the headers and of the page map, and in some hundred bytes after them.
#[test]
fn a_chunk_with_a_bit_flipped() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    for key in [0, 2] {
        let len = parts.chunks[&key].len();
        let places = (0..2200.min(len)).step_by(3).chain((2200..len).step_by(len / 150)).chain(len - 40..len);
        for at in places {
            let mut parts = parts.clone();
            parts.chunks.get_mut(&key).unwrap()[at] ^= 1 << (at % 8);
            let error = parts.refused(&studio);
            assert!(matches!(error, Error::Format { index, .. } if index == key), "byte {at}: {error:?}");
            assert_names(&error, &[&format!("chunk {key}")]);
        }
    }
    studio.check();
}

#[test]
fn a_chunk_cut_short_or_too_long() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    let whole = &parts.chunks[&1];
    let lens = (1..200).chain((200..whole.len()).step_by(whole.len() / 150)).chain([whole.len() - 1]);
    for len in lens {
        let mut parts = parts.clone();
        parts.chunks.get_mut(&1).unwrap().truncate(len);
        let error = parts.refused(&studio);
        assert!(matches!(error, Error::Format { index: 1, .. }), "{len} of {} bytes: {error:?}", whole.len());
    }
    let mut parts = parts.clone();
    parts.chunks.get_mut(&1).unwrap().push(0);
    assert!(matches!(parts.refused(&studio), Error::Format { index: 1, .. }));
}

#[test]
fn chunks_exchanged_missing_or_added() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);

    let mut exchanged = parts.clone();
    exchanged.chunks.insert(0, parts.chunks[&1].clone());
    exchanged.chunks.insert(1, parts.chunks[&0].clone());
    let error = exchanged.refused(&studio);
    assert!(matches!(error, Error::Exchanged { index: 0 | 1, .. }), "{error:?}");
    assert_names(&error, &["checksum", "manifest"]);

    for (change, held) in [
        (&(|parts: &mut Parts| drop(parts.chunks.remove(&1))) as &dyn Fn(&mut Parts), 2),
        (&|parts| drop(parts.chunks.insert(3, parts.chunks[&0].clone())), 4),
        (&|parts| drop(parts.chunks.insert(u32::MAX, parts.chunks[&0].clone())), 4),
    ] {
        let mut parts = parts.clone();
        change(&mut parts);
        let error = parts.refused(&studio);
        assert!(
            matches!(error, Error::Chunks { listed: 3, held: found, count: 5, .. } if found == held),
            "{error:?}"
        );
    }
    // Stored under another number than the manifest says.
    let mut moved = parts.clone();
    let chunk = moved.chunks.remove(&1).unwrap();
    moved.chunks.insert(3, chunk);
    assert!(matches!(moved.refused(&studio), Error::Chunks { listed: 3, held: 3, .. }));
}

/// A full chunk where the guest has half of one, and the other way round.
#[test]
fn a_chunk_of_another_length() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    let short = encode(&[[1; PAGE_BYTES]; 256], &mut Refer(BTreeMap::new()));
    let mut wrong = parts.clone();
    let checksum = VerifiedChunk::verify(&short).unwrap().checksum();
    wrong.chunks.insert(0, short.clone());
    let error = wrong.with_manifest(|manifest| manifest.chunks[0].checksum = checksum).refused(&studio);
    assert!(matches!(error, Error::PageCount { index: 0, expected: 512, found: 256 }), "{error:?}");

    // The last chunk of 9 MiB has 256 pages, so the short one fits there.
    let mut right = parts.clone();
    right.chunks.insert(4, short);
    let memory = right
        .with_manifest(|manifest| manifest.chunks.push(ChunkId { region: MEMORY_REGION, index: 4, checksum }))
        .restore(&studio);
    let mut page = [0; PAGE_BYTES];
    memory.unwrap().read(9 * MIB - 4096, &mut page).unwrap();
    assert_eq!(page, [1; PAGE_BYTES]);
    let mut full = parts.clone();
    full.chunks.insert(4, parts.chunks[&0].clone());
    let entry = ChunkId { index: 4, ..parts.manifest.chunks[0] };
    let error = full.with_manifest(|manifest| manifest.chunks.push(entry)).refused(&studio);
    assert!(matches!(error, Error::PageCount { index: 4, expected: 256, found: 512 }), "{error:?}");
}

/// The state of another machine, in a valid envelope.
#[test]
fn a_state_of_another_machine() {
    let Some(_room) = room_for(2) else { return };
    let studio = studio();
    let (mut parts, _) = real(&studio);
    let other = Guest::boot(&guest::pulse(&Params::new(1, 0), MIB, 1));
    other.line("pulse: ready");
    let state: VmState = other.pause().save().unwrap();
    parts.blobs.insert(STATE_LABEL, state.to_bytes());
    let error = parts.refused(&studio);
    assert!(matches!(error, Error::MemorySize { state_bytes: MIB, .. }), "{error:?}");
}

/// Makes pages refer wherever a hostile writer likes.
struct Refer(BTreeMap<usize, u64>);

impl Dedup for Refer {
    fn find(&mut self, page: PageIndex, _bytes: &Page) -> Option<PageRef> {
        self.0.get(&page.get()).copied().map(PageRef)
    }
}

/// Pages that the coder asks the resolver about: neither zero nor filled with one word.
fn distinct(count: usize) -> Vec<Page> {
    let page = |number: usize| {
        std::array::from_fn(|at| u8::try_from((at * 7 + number * 13 + at / 251) % 251).unwrap())
    };
    (0..count).map(page).collect()
}

fn encode(pages: &[Page], dedup: &mut impl Dedup) -> Vec<u8> {
    let mut encoded = Vec::new();
    let bytes = pages.concat();
    let input = ChunkInput::new(&bytes, &PageSet::ALL).unwrap();
    Encoder::new(EncoderOptions::default()).encode_chunk(&input, dedup, &mut encoded);
    encoded
}

/// A snapshot whose chunk 0 has these references, with valid checksums.
fn with_references(parts: &Parts, references: &[(usize, u64)]) -> Parts {
    let encoded = encode(&distinct(512), &mut Refer(references.iter().copied().collect()));
    let checksum = VerifiedChunk::verify(&encoded).unwrap().checksum();
    let mut parts = parts.clone();
    parts.chunks.insert(0, encoded);
    parts.with_manifest(|manifest| manifest.chunks[0].checksum = checksum)
}

#[test]
fn references_that_lead_astray() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    // The rest of the snapshot refers to pages of chunk 0, which is about to change.
    let mut parts = parts;
    parts.chunks.retain(|key, _| *key == 0);
    let parts = parts.with_manifest(|manifest| manifest.chunks.truncate(1));
    let chunk_count = chunks(vmm::memory::Layout::new(9 * MIB).unwrap()).len() as u64;

    // A valid reference: page 1 equals page 7.
    let memory = with_references(&parts, &[(1, 7)]).restore(&studio).unwrap();
    let mut page = [0; PAGE_BYTES];
    memory.read(4096, &mut page).unwrap();
    assert_eq!(page, distinct(8)[7]);

    // Pages of a chunk that is not stored, of one beyond the guest's memory, and of none that any guest can have.
    for reference in [512, 512 * chunk_count, 1 << 40, u64::MAX] {
        let error = with_references(&parts, &[(1, reference)]).refused(&studio);
        assert!(matches!(error, Error::Decode { index: 0, .. }), "{reference:#x}: {error:?}");
        assert_names(&error, &["page 1", &format!("page reference {reference:#x} leads to no page")]);
    }
    // References to the page itself, in a circle, and in a chain.
    for references in [&[(1, 1)][..], &[(1, 2), (2, 1)], &[(1, 2), (2, 3)]] {
        let error = with_references(&parts, references).refused(&studio);
        assert!(matches!(error, Error::Decode { index: 0, .. }), "{references:?}: {error:?}");
        assert_names(&error, &["leads to another reference"]);
    }
}

/// None of the attempts above leaves anything in the pool.
#[test]
fn the_pool_is_as_it_was() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    let before = studio.pool.stats();
    let mut damaged = parts.clone();
    damaged.chunks.get_mut(&1).unwrap()[30] ^= 1;
    for _ in 0..10 {
        damaged.refused(&studio);
        parts.restore(&studio).unwrap();
    }
    studio.check();
    assert_eq!(studio.pool.stats(), before);
}
