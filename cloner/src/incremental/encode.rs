//! One chunk of an incremental snapshot: which markers are kept, and which pages are read.

use cloner_codec::chunk::{
    CHUNK_BYTES, CHUNK_PAGES, ENCODED_BYTES_MAX, PAGE_BYTES, Page, PageIndex, PageKind, PageRef, page_hash,
};
use cloner_codec::hot::{
    ChunkInput, ChunkStats, Dedup, Encoder, KeptRecord, Options, PageSet, VerifiedChunk,
};
use vmm::memory::{DirtySet, GuestMemory};

use crate::layout::{Chunk, ChunkIndex, PageNumber, PlaceRef};
use crate::snapshot::{Checks, InChunk, Snapshot};

use super::Error;

/// What one thread needs.
pub(super) struct Worker {
    encoder: Encoder,
    /// The pages that are read, each in its place.
    pages: Vec<u8>,
    /// The parent's pages in those places.
    parent: Vec<u8>,
    encoded: Vec<u8>,
    other: Box<Page>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

/// What one chunk adds.
pub(super) struct Part {
    pub(super) touched_pages: u64,
    pub(super) read_pages: u64,
}

impl Part {
    pub(super) fn kept(chunk: &VerifiedChunk<'_>) -> Self {
        let touched = chunk.page_indices().filter(|page| chunk.kind(*page) != Some(PageKind::Untouched));
        Self { touched_pages: touched.count() as u64, read_pages: 0 }
    }
}

/// What a snapshot is made from.
pub(super) struct Source<'a> {
    pub(super) memory: &'a GuestMemory,
    pub(super) dirty: &'a DirtySet<'a>,
    pub(super) last: &'a Snapshot,
    /// Of the snapshot being made: the last one, or that one's.
    pub(super) parent: &'a Snapshot,
    pub(super) checks: &'a Checks,
}

impl Source<'_> {
    pub(super) fn dirty_pages(&self, chunk: &Chunk) -> PageSet {
        let mut words = [0; CHUNK_PAGES / 64];
        self.dirty.copy_to(chunk.region, chunk.offset / PAGE_BYTES / 64, &mut words);
        PageSet::from_words(words)
    }

    fn last_is_parent(&self) -> bool {
        self.last.parent().is_none()
    }

    /// Whether a chunk of the last snapshot means the same in the new one.
    pub(super) fn stands_alone(&self, last: &VerifiedChunk<'_>) -> bool {
        !self.last_is_parent()
            && last
                .page_indices()
                .all(|page| last.marker(page).is_ok_and(|KeptRecord { kind, record }| stays(kind, record)))
    }

    /// The marker a clean page had in the last snapshot, if it can have it in the new one.
    fn kept<'c>(&self, last: &VerifiedChunk<'c>, page: PageIndex) -> Option<KeptRecord<'c>> {
        let marker = last.marker(page).ok()?;
        let KeptRecord { kind, record } = marker;
        let same = Some(marker);
        match kind {
            PageKind::Untouched | PageKind::Zero | PageKind::Fill => same,
            _ if self.last_is_parent() => Some(KeptRecord { kind: PageKind::Parent, record: &[] }),
            // Its vectors stand in the dictionary of the last snapshot's chunk.
            PageKind::WordMarked => None,
            _ => same.filter(|_| stays(kind, record)),
        }
    }
}

/// Whether a record of a snapshot with a parent means the same in another snapshot with that parent and no other dependency.
fn stays(kind: PageKind, record: &[u8]) -> bool {
    const PARENT: Option<usize> = Some(0);
    kind != PageKind::Dup
        || record
            .try_into()
            .is_ok_and(|bits| PlaceRef::from_bits(u64::from_le_bytes(bits)).dependency == PARENT)
}

impl Worker {
    pub(super) fn new() -> Self {
        // Not zeros: those would be mapped lazily, and touched for the first time while a source stands still.
        let touched = |len| vec![0xff; len];
        let mut encoded = touched(ENCODED_BYTES_MAX);
        encoded.clear();
        Worker {
            encoder: Encoder::new(Options::default()),
            pages: touched(CHUNK_BYTES),
            parent: touched(CHUNK_BYTES),
            encoded,
            other: Box::new([0; PAGE_BYTES]),
        }
    }

    /// The last chunk that was encoded.
    pub(super) fn encoded(&self) -> &[u8] {
        &self.encoded
    }

    /// Encodes a chunk.
    pub(super) fn encode(
        &mut self,
        source: &Source<'_>,
        chunk: &Chunk,
        dirty: &PageSet,
        last: Option<&VerifiedChunk<'_>>,
    ) -> Result<Part, Error> {
        let Self { encoder, pages, parent, encoded, other } = self;
        let (pages, parent) = (&mut pages[..chunk.len_bytes()], &mut parent[..chunk.len_bytes()]);
        let region = &source.memory.regions()[chunk.region];
        let parents = InChunk::checked(source.parent, chunk.index, source.checks);

        let mut kept = [None; CHUNK_PAGES];
        let mut read = PageSet::EMPTY;
        let places = pages.as_chunks_mut::<PAGE_BYTES>().0.iter_mut().zip(parent.as_chunks_mut().0);
        for (page, (bytes, parent)) in PageIndex::first(chunk.pages).zip(places) {
            let at = page.get();
            if !dirty.contains(at) {
                let untouched = KeptRecord { kind: PageKind::Untouched, record: &[] };
                kept[at] = last.map_or(Some(untouched), |last| source.kept(last, page));
            }
            if kept[at].is_none() {
                region.read(chunk.offset + at * PAGE_BYTES, bytes)?;
                parents.page(page, parent)?;
                read.insert(at);
            }
        }
        encoded.clear();
        let input = ChunkInput::new(pages, &read)?.with_parent(parent)?.with_kept(&kept);
        let stats = encoder.encode_chunk(&input, &mut InParent { source, other }, encoded);
        Ok(Part { touched_pages: touched(&stats), read_pages: read.len() as u64 })
    }
}

fn touched(stats: &ChunkStats) -> u64 {
    stats.pages() - stats[PageKind::Untouched].pages
}

/// Answers the encoder's question whether the parent has a page somewhere.
///
/// Pages of the snapshot being made are not searched: a chunk that refers to its parent only can be copied into the next one.
struct InParent<'a> {
    source: &'a Source<'a>,
    other: &'a mut Page,
}

impl Dedup for InParent<'_> {
    fn find(&mut self, _page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let Self { source: Source { parent, checks, .. }, other } = self;
        let same = |page: PageNumber| {
            let Some((chunk, page)) = page.split() else { return false };
            let place = |chunk: ChunkIndex| InChunk::checked(parent, chunk, checks);
            place(chunk).page(page, other).is_ok() && **other == *bytes
        };
        let page = parent.pages()?.find(page_hash(bytes), same)?;
        Some(PageRef(PlaceRef { dependency: Some(0), page }.to_bits()))
    }
}
