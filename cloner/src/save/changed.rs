//! Later snapshots of a series: markers of clean pages are kept from the last snapshot, and the other pages are read.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use cloner_codec::chunk::{
    CHUNK_PAGES, PAGE_BYTES, Page, PageIndex, PageKind, PageRef, page_hash, stored_checksum,
};
use cloner_codec::hot::{ChunkInput, ChunkStats, Dedup, KeptRecord, PageSet, VerifiedChunk};
use vmm::memory::{DirtySet, StillMemory};

use crate::chunk_id::ChunkId;
use crate::layout::{self, Chunk, ChunkIndex, PageNumber, PlaceRef};
use crate::moment::LastSnapshot;
use crate::pool::Reservation;
use crate::progress::Watch;
use crate::snapshot::{ChunkResolver, MEMORY_REGION, Snapshot, VerifiedFlags};
use crate::sync::{into_inner, lock};
use crate::walk::Walker;

use super::worker::Worker;
use super::{ChangeReport, EncodedChunks, Error};

/// What one chunk adds to the report.
struct ChunkPart {
    touched_pages: u64,
    read_pages: u64,
    stats: ChunkStats,
}

impl ChunkPart {
    fn kept(chunk: &VerifiedChunk<'_>) -> Self {
        let touched = chunk.page_indices().filter(|page| chunk.kind(*page) != Some(PageKind::Untouched));
        Self { touched_pages: touched.count() as u64, read_pages: 0, stats: ChunkStats::default() }
    }
}

/// What the next snapshot of a series is made from.
pub(super) struct IncrementalSource<'a> {
    memory: &'a dyn StillMemory,
    dirty: &'a DirtySet<'a>,
    last: &'a Snapshot,
    checks: &'a VerifiedFlags,
}

impl<'a> IncrementalSource<'a> {
    pub(super) fn new(memory: &'a dyn StillMemory, dirty: &'a DirtySet<'a>, last: &'a LastSnapshot) -> Self {
        Self { memory, dirty, last: &last.snapshot, checks: &last.checks }
    }

    /// The parent of the snapshot being made: that of the last one if it has one, otherwise the last one itself.
    pub(super) fn parent(&self) -> &'a Snapshot {
        self.last.parent().unwrap_or(self.last)
    }

    fn dirty_pages(&self, chunk: &Chunk) -> PageSet {
        let mut words = [0; CHUNK_PAGES / 64];
        self.dirty.copy_to(chunk.region, chunk.offset / PAGE_BYTES / 64, &mut words);
        PageSet::from_words(words)
    }

    fn last_is_parent(&self) -> bool {
        self.last.parent().is_none()
    }

    /// Whether a chunk of the last snapshot has the same meaning in the new one.
    fn stands_alone(&self, last: &VerifiedChunk<'_>) -> bool {
        !self.last_is_parent()
            && last
                .page_indices()
                .all(|page| last.marker(page).is_ok_and(|KeptRecord { kind, record }| stays(kind, record)))
    }

    /// The marker that a clean page gets in the new snapshot without being read; `None` if the page has to be read and encoded.
    fn kept<'c>(&self, last: &VerifiedChunk<'c>, page: PageIndex) -> Option<KeptRecord<'c>> {
        let marker = last.marker(page).ok()?;
        let KeptRecord { kind, record } = marker;
        let same = Some(marker);
        match kind {
            PageKind::Untouched | PageKind::Zero | PageKind::Fill => same,
            _ if self.last_is_parent() => Some(KeptRecord { kind: PageKind::Parent, record: &[] }),
            // Its vectors are in the dictionary of the last snapshot's chunk.
            PageKind::WordMarked => None,
            _ => same.filter(|_| stays(kind, record)),
        }
    }
}

/// Encodes what has changed, and keeps what has not.
pub(super) fn encode(
    walker: &Walker<Worker>,
    source: &IncrementalSource<'_>,
    reservation: &Reservation,
    watch: Watch<'_>,
) -> Result<EncodedChunks, Error> {
    let dirty_bytes = (source.dirty.pages() * PAGE_BYTES) as u64;
    watch.start(dirty_bytes);
    let encoded = Mutex::new(EncodedChunks::default());
    let dirty_chunks = AtomicUsize::new(0);
    walker.walk(&layout::chunks(source.memory.layout()), |worker, chunk| {
        if watch.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let dirty = source.dirty_pages(chunk);
        let last = source.checks.open(source.last, chunk.index)?;
        let index = chunk.index.0;
        let (bytes, part) = match last {
            // Not touched by then, and not since.
            None if dirty.is_empty() => return Ok(()),
            Some(last) if dirty.is_empty() && source.stands_alone(&last) => {
                (last.as_bytes(), ChunkPart::kept(&last))
            }
            last => {
                let part = worker.encode_changed(source, chunk, &dirty, last.as_ref())?;
                (&worker.encoded[..], part)
            }
        };
        let id = ChunkId { region: MEMORY_REGION, index, checksum: stored_checksum(bytes) };
        reservation.put_chunk(id, bytes)?;
        watch.add((dirty.len() * PAGE_BYTES) as u64);
        dirty_chunks.fetch_add(usize::from(!dirty.is_empty()), Ordering::Relaxed);
        let mut encoded = lock(&encoded);
        encoded.chunks.push(id);
        encoded.touched_pages += part.touched_pages;
        encoded.read_pages += part.read_pages;
        encoded.stats += part.stats;
        Ok(())
    })?;
    let mut encoded = into_inner(encoded);
    encoded.chunks.sort_unstable();
    encoded.changed = Some(ChangeReport { dirty_bytes, dirty_chunks: dirty_chunks.into_inner() });
    Ok(encoded)
}

/// Whether a record of a snapshot with a parent has the same meaning in a snapshot with that parent and no other dependency.
fn stays(kind: PageKind, record: &[u8]) -> bool {
    const PARENT: Option<usize> = Some(0);
    kind != PageKind::Dup
        || record
            .try_into()
            .is_ok_and(|bits| PlaceRef::from_bits(u64::from_le_bytes(bits)).dependency == PARENT)
}

impl Worker {
    /// Encodes a chunk into `self.encoded`.
    fn encode_changed(
        &mut self,
        source: &IncrementalSource<'_>,
        chunk: &Chunk,
        dirty: &PageSet,
        last: Option<&VerifiedChunk<'_>>,
    ) -> Result<ChunkPart, Error> {
        let Self { encoder, pages, parent, encoded, other } = self;
        let (pages, parent) = (&mut pages[..chunk.len_bytes()], &mut parent[..chunk.len_bytes()]);
        let parents = ChunkResolver::checked(source.parent(), chunk.index, source.checks);

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
                source.memory.read(chunk.region, chunk.offset + at * PAGE_BYTES, bytes)?;
                parents.page(page, parent)?;
                read.insert(at);
            }
        }
        encoded.clear();
        let input = ChunkInput::new(pages, &read)?.with_parent(parent)?.with_kept(&kept);
        let stats = encoder.encode_chunk(&input, &mut ParentPages { source, other }, encoded);
        Ok(ChunkPart { touched_pages: touched(&stats), read_pages: read.len() as u64, stats })
    }
}

fn touched(stats: &ChunkStats) -> u64 {
    stats.pages() - stats[PageKind::Untouched].pages
}

/// Tells the encoder whether the parent holds a page anywhere.
///
/// Pages of the snapshot being made are not searched, because a chunk that refers only to the parent can be copied into the next
/// snapshot.
struct ParentPages<'a> {
    source: &'a IncrementalSource<'a>,
    other: &'a mut Page,
}

impl Dedup for ParentPages<'_> {
    fn find(&mut self, _page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let Self { source, other } = self;
        let (parent, checks) = (source.parent(), source.checks);
        let same = |page: PageNumber| {
            let Some((chunk, page)) = page.split() else { return false };
            let place = |chunk: ChunkIndex| ChunkResolver::checked(parent, chunk, checks);
            place(chunk).page(page, other).is_ok() && **other == *bytes
        };
        let page = parent.pages()?.find(page_hash(bytes), same)?;
        Some(PageRef(PlaceRef { dependency: Some(0), page }.to_bits()))
    }
}
