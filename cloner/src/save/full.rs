//! Full snapshots: everything that was ever touched is read.

use std::sync::Mutex;
use std::time::Instant;

use cloner_codec::chunk::{CHUNK_PAGES, PAGE_BYTES, Page, PageIndex, PageRef, page_hash, stored_checksum};
use cloner_codec::hot::{ChunkInput, ChunkStats, Dedup, PageSet};
use vmm::memory::StillMemory;

use crate::chunk_id::ChunkId;
use crate::dedup::PageTable;
use crate::layout::{self, Chunk, PageNumber, PlaceRef};
use crate::pool::Reservation;
use crate::progress::Watch;
use crate::snapshot::MEMORY_REGION;
use crate::sync::{into_inner, lock};
use crate::walk::Walker;

use super::references::References;
use super::worker::Worker;
use super::{EncodedChunks, Error};

/// A chunk, and the pages of it that were touched.
struct PlannedChunk {
    chunk: Chunk,
    touched: PageSet,
}

/// Encodes everything that was ever touched.
pub(super) fn encode(
    walker: &Walker<Worker>,
    memory: &dyn StillMemory,
    references: &References,
    reservation: &Reservation,
    watch: Watch<'_>,
) -> Result<EncodedChunks, Error> {
    let started = Instant::now();
    let planned = plan(walker, memory)?;
    let plan_time = started.elapsed();
    let touched_pages = planned.iter().map(|planned| planned.touched.len()).sum::<usize>();
    watch.start((touched_pages * PAGE_BYTES) as u64);
    let table = PageTable::new(touched_pages);
    let known = KnownPages { table: &table, memory, chunks: layout::chunks(memory.layout()), references };
    let (chunks, stats) = encode_planned(walker, &known, &planned, reservation, watch)?;
    let (touched_pages, read_pages) = (touched_pages as u64, touched_pages as u64);
    Ok(EncodedChunks {
        chunks,
        stats,
        touched_pages,
        read_pages,
        plan_time,
        changed: None,
        table: Some(table),
    })
}

/// The chunks that hold anything, in order.
fn plan(walker: &Walker<Worker>, memory: &dyn StillMemory) -> Result<Vec<PlannedChunk>, Error> {
    let planned = Mutex::new(Vec::new());
    walker.walk(&layout::chunks(memory.layout()), |_, chunk| {
        let touched = layout::touched(memory, chunk).map_err(Error::Touched)?;
        if !touched.is_empty() {
            lock(&planned).push(PlannedChunk { chunk: *chunk, touched });
        }
        Ok::<(), Error>(())
    })?;
    let mut planned = into_inner(planned);
    planned.sort_unstable_by_key(|planned| planned.chunk.index);
    Ok(planned)
}

fn encode_planned(
    walker: &Walker<Worker>,
    known: &KnownPages<'_>,
    planned: &[PlannedChunk],
    reservation: &Reservation,
    watch: Watch<'_>,
) -> Result<(Vec<ChunkId>, ChunkStats), Error> {
    let done = Mutex::new((Vec::with_capacity(planned.len()), ChunkStats::default()));
    walker.walk(planned, |worker, planned| {
        if watch.is_cancelled() {
            return Err(Error::Cancelled);
        }
        let stats = worker.encode_touched(known, planned)?;
        let (index, checksum) = (planned.chunk.index.0, stored_checksum(&worker.encoded));
        let id = ChunkId { region: MEMORY_REGION, index, checksum };
        reservation.put_chunk(id, &worker.encoded)?;
        watch.add((planned.touched.len() * PAGE_BYTES) as u64);
        let mut done = lock(&done);
        done.0.push(id);
        done.1 += stats;
        Ok::<(), Error>(())
    })?;
    let (mut chunks, stats) = into_inner(done);
    chunks.sort_unstable();
    Ok((chunks, stats))
}

impl Worker {
    /// Encodes a chunk into `self.encoded`.
    fn encode_touched(
        &mut self,
        known: &KnownPages<'_>,
        planned: &PlannedChunk,
    ) -> Result<ChunkStats, Error> {
        let Self { encoder, pages, encoded, parent, other } = self;
        let PlannedChunk { chunk, touched } = planned;
        let pages = &mut pages[..chunk.len_bytes()];
        for (start, end) in runs(touched) {
            let range = start * PAGE_BYTES..end * PAGE_BYTES;
            known.memory.read(chunk.region, chunk.offset + range.start, &mut pages[range])?;
        }
        encoded.clear();
        let mut input = ChunkInput::new(pages, touched)?;
        let parent = &mut parent[..chunk.len_bytes()];
        if known.references.decode_parent(chunk, parent)? {
            input = input.with_parent(parent)?;
        }
        let mut dedup = Duplicates { known, chunk: *chunk, other };
        Ok(encoder.encode_chunk(&input, &mut dedup, encoded))
    }
}

/// Everything that may already hold a page.
struct KnownPages<'a> {
    /// Pages of the snapshot being made.
    table: &'a PageTable,
    /// The memory that holds the bytes of those pages.
    memory: &'a dyn StillMemory,
    chunks: Vec<Chunk>,
    references: &'a References,
}

/// Tells the encoder whether a page is held already.
struct Duplicates<'a> {
    known: &'a KnownPages<'a>,
    chunk: Chunk,
    other: &'a mut Page,
}

impl Dedup for Duplicates<'_> {
    fn find(&mut self, page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let Self { known: KnownPages { table, memory, chunks, references }, chunk, other } = self;
        let hash = page_hash(bytes);
        let found = references.find(hash, bytes, other).or_else(|| {
            let same = |candidate: PageNumber| {
                let Some((index, page)) = candidate.split() else { return false };
                let chunk = &chunks[index.0 as usize];
                let offset = chunk.offset + page.get() * PAGE_BYTES;
                memory.read(chunk.region, offset, &mut other[..]).is_ok() && **other == *bytes
            };
            let page = table.find_or_insert(hash, PageNumber::new(chunk.index, page), same)?;
            Some(PlaceRef { dependency: None, page })
        })?;
        Some(PageRef(found.to_bits()))
    }
}

/// The runs of consecutive pages of a set, as half-open ranges.
fn runs(pages: &PageSet) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = (next..CHUNK_PAGES).find(|page| pages.contains(*page))?;
        let end = (start..).find(|page| !pages.contains(*page)).expect("a set ends somewhere");
        next = end;
        Some((start, end))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_cover_exactly_the_set() {
        assert_eq!(runs(&PageSet::EMPTY).count(), 0);
        assert_eq!(runs(&PageSet::ALL).collect::<Vec<_>>(), [(0, 512)]);
        let mut set = PageSet::EMPTY;
        for page in [0, 1, 63, 64, 500, 511] {
            set.insert(page);
        }
        assert_eq!(runs(&set).collect::<Vec<_>>(), [(0, 2), (63, 65), (500, 501), (511, 512)]);
    }
}
