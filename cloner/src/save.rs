//! From a paused VM to a snapshot in the pool.
//!
//! ```text
//! reserve the name ─► pause ─► save state ─► which pages were touched? ─► encode in parallel ─► manifest ─► seal
//!                    └───────────────────── the source stands still ────────────────────────┘
//! ```
//! That is stop mode; in live mode ([`crate::live`]) the source stands still for its state only.
//!
//!
//! Whatever fails, the reservation is dropped: the pool is as it was, and the source runs on when its guard is dropped.
//!
//! # Children
//! A snapshot saved against another stores what differs: pages equal to the parent's in the same place are PARENT, pages
//! of which a few words differ PATCH, and pages that any snapshot concerned holds somewhere DUP. If the snapshot saved
//! against is a child itself, its parent becomes the new one's parent too, and it stays a dependency for DUP markers:
//! chains of snapshots do not make chains of references.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloner_codec::chunk::{
    CHUNK_BYTES, CodecError, ENCODED_BYTES_MAX, PAGE_BYTES, Page, PageHash, PageIndex, PageRef,
    TargetContents, page_hash,
};
use cloner_codec::hot::{
    ChunkInput, ChunkStats, Dedup, Encoder, Options, PageSet, VerifiedChunk, decode_chunk,
};
use vmm::memory::{self, StillMemory};
use vmm::{Paused, VmState};

use crate::dedup::PageTable;
use crate::layout::{self, Chunk, PageNumber, PlaceRef};
use crate::pool::{self, Reservation};
use crate::snapshot::{
    self, ChunkEntryV1, InChunk, MANIFEST_LABEL, ManifestV1, STATE_LABEL, Snapshot, SnapshotId,
};
use crate::sync::lock;
use crate::walk::{Progress, StartError, Walker};

/// Why no snapshot was made. Source and pool are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The VM's state cannot be saved.
    #[error("cannot save the state of the source")]
    Vm(#[from] vmm::Error),
    /// It cannot be found out which memory was touched.
    #[error("cannot tell which memory the source has touched")]
    Touched(#[source] io::Error),
    /// The memory cannot be read: whoever held it still is gone.
    #[error("cannot read the memory of the source")]
    Memory(#[from] memory::ReadError),
    /// The encoder was given an impossible chunk, which a layout excludes.
    #[error("cannot encode")]
    Codec(#[from] CodecError),
    /// The pool has no room.
    #[error("cannot store the snapshot")]
    Pool(#[from] pool::Error),
    /// The snapshot saved against is damaged, or of another machine.
    #[error("cannot save against this snapshot")]
    Snapshot(#[from] snapshot::Error),
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// What a save did, and how long each part took.
#[derive(Debug, Clone)]
pub struct Report {
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// Bytes of pages ever touched: all that is read.
    pub touched_bytes: u64,
    /// Pages by kind, and what they were encoded to. Pages of chunks that were never touched are not in here.
    pub stats: ChunkStats,
    /// Saving vCPUs and devices.
    pub state_time: Duration,
    /// Finding touched pages.
    pub plan_time: Duration,
    /// Reading, encoding and storing.
    pub encode_time: Duration,
}

/// Takes snapshots. Holds threads and scratch memory, so that a pause pays for neither.
#[derive(Debug)]
pub struct Saver {
    walker: Walker<Worker>,
}

/// What one thread needs.
struct Worker {
    encoder: Encoder,
    /// The chunk's pages, copied out of guest memory.
    pages: Vec<u8>,
    encoded: Vec<u8>,
    /// The parent's chunk, decoded.
    parent: Vec<u8>,
    /// A page to compare with.
    other: Box<Page>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

/// A chunk and which of its pages were touched.
struct Planned {
    chunk: Chunk,
    touched: PageSet,
}

impl Saver {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn new(threads: usize) -> Result<Self, StartError> {
        // Not zeros: those would be mapped lazily, and touched for the first time while a source stands still.
        let touched = |len| vec![0xff; len];
        let make = || {
            let mut encoded = touched(ENCODED_BYTES_MAX);
            encoded.clear();
            Worker {
                encoder: Encoder::new(Options::default()),
                pages: touched(CHUNK_BYTES),
                encoded,
                parent: touched(CHUNK_BYTES),
                other: Box::new([0; PAGE_BYTES]),
            }
        };
        Ok(Self { walker: Walker::new(threads, make)? })
    }

    /// Number of threads.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.walker.threads()
    }

    /// Saves a paused VM into `reservation`; with `against`, only what differs from that snapshot. It has to stand still until
    /// this returns; [`Saver::save_live`] lets it run on.
    ///
    /// # Errors
    /// See [`Error`]. The reservation is gone, and with it all it held.
    pub fn save(
        &self,
        paused: &Paused<'_>,
        against: Option<&Snapshot>,
        reservation: Reservation,
        progress: &Progress,
    ) -> Result<(Snapshot, Report), Error> {
        let started = Instant::now();
        let state = paused.save()?;
        let state_time = started.elapsed();
        self.save_memory(&state, state_time, paused.memory(), against, reservation, progress)
    }

    /// Saves memory that stands still, and the state that belongs to it.
    pub(crate) fn save_memory(
        &self,
        state: &VmState,
        state_time: Duration,
        memory: &dyn StillMemory,
        against: Option<&Snapshot>,
        reservation: Reservation,
        progress: &Progress,
    ) -> Result<(Snapshot, Report), Error> {
        let basis = Basis::new(against);
        let started = Instant::now();
        let planned = self.plan(memory)?;
        let touched_pages = touched_pages(&planned);
        let plan_time = started.elapsed();

        let started = Instant::now();
        progress.start((touched_pages * PAGE_BYTES) as u64);
        let table = PageTable::new(touched_pages);
        let kept = Kept { table: &table, memory, chunks: layout::chunks(memory.layout()), basis: &basis };
        let (chunks, stats) = self.encode(&kept, &planned, &reservation, progress)?;
        let encode_time = started.elapsed();

        let memory_bytes = memory.layout().size_bytes();
        let manifest = ManifestV1 {
            id: SnapshotId::random(),
            memory_bytes,
            touched_pages: touched_pages as u64,
            dependencies: basis.dependencies.iter().map(|snapshot| snapshot.manifest().id.clone()).collect(),
            has_parent: basis.parent().is_some(),
            chunks,
        };
        reservation.put_blob(STATE_LABEL, &state.to_bytes())?;
        reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes())?;
        for snapshot in &basis.dependencies {
            reservation.depend_on(Arc::clone(snapshot.stored()));
        }
        let snapshot = Snapshot::with(reservation.seal(), basis.dependencies, Some(table))?;
        tracing::info!(
            snapshot = snapshot.name(),
            touched_pages,
            occupied_bytes = snapshot.occupied_bytes(),
            ?state_time,
            ?plan_time,
            ?encode_time,
            "saved"
        );
        let touched_bytes = (touched_pages * PAGE_BYTES) as u64;
        Ok((snapshot, Report { memory_bytes, touched_bytes, stats, state_time, plan_time, encode_time }))
    }

    /// Pages of `memory` that hold anything.
    pub(crate) fn touched_pages(&self, memory: &dyn StillMemory) -> Result<usize, Error> {
        Ok(touched_pages(&self.plan(memory)?))
    }

    /// The chunks that hold anything, in order.
    fn plan(&self, memory: &dyn StillMemory) -> Result<Vec<Planned>, Error> {
        let planned = Mutex::new(Vec::new());
        self.walker.walk(&layout::chunks(memory.layout()), |_, chunk| {
            let mut words = [0; 8];
            memory.touched(chunk.region, chunk.offset, chunk.pages, &mut words).map_err(Error::Touched)?;
            let touched = PageSet::from_words(words);
            if !touched.is_empty() {
                lock(&planned).push(Planned { chunk: *chunk, touched });
            }
            Ok::<(), Error>(())
        })?;
        let mut planned = planned.into_inner().unwrap_or_else(PoisonError::into_inner);
        planned.sort_unstable_by_key(|planned| planned.chunk.index);
        Ok(planned)
    }

    fn encode(
        &self,
        kept: &Kept<'_>,
        planned: &[Planned],
        reservation: &Reservation,
        progress: &Progress,
    ) -> Result<(Vec<ChunkEntryV1>, ChunkStats), Error> {
        let done = Mutex::new((Vec::with_capacity(planned.len()), ChunkStats::default()));
        self.walker.walk(planned, |worker, planned| {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let stats = worker.encode(kept, planned)?;
            let index = planned.chunk.index.0;
            reservation.put_chunk(u64::from(index), &worker.encoded)?;
            let encoded = VerifiedChunk::reopen(&worker.encoded).expect("the encoder keeps to the format");
            progress.add((planned.touched.len() * PAGE_BYTES) as u64);
            let mut done = lock(&done);
            done.0.push(ChunkEntryV1 { index, checksum: encoded.checksum() });
            done.1 += stats;
            Ok::<(), Error>(())
        })?;
        let (mut entries, stats) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        entries.sort_unstable_by_key(|entry: &ChunkEntryV1| entry.index);
        Ok((entries, stats))
    }
}

impl Worker {
    /// Encodes a chunk into `self.encoded`.
    fn encode(&mut self, kept: &Kept<'_>, planned: &Planned) -> Result<ChunkStats, Error> {
        let Self { encoder, pages, encoded, parent, other } = self;
        let Planned { chunk, touched } = planned;
        let pages = &mut pages[..chunk.len_bytes()];
        for (start, end) in runs(touched) {
            let range = start * PAGE_BYTES..end * PAGE_BYTES;
            kept.memory.read(chunk.region, chunk.offset + range.start, &mut pages[range])?;
        }
        encoded.clear();
        let mut input = ChunkInput::new(pages, touched)?;
        let parent = &mut parent[..chunk.len_bytes()];
        if kept.basis.decode_parent(chunk, parent)? {
            input = input.with_parent(parent)?;
        }
        let mut dedup = Duplicates { kept, chunk: *chunk, other };
        Ok(encoder.encode_chunk(&input, &mut dedup, encoded))
    }
}

/// The snapshots a new one may refer to.
struct Basis {
    /// In the order that references count them; the parent, if there is one, first.
    dependencies: Vec<Snapshot>,
}

impl Basis {
    /// What a snapshot saved against `against` refers to: the parent of that one, or itself if it has none; then itself,
    /// and whatever else it depends on.
    fn new(against: Option<&Snapshot>) -> Self {
        let mut dependencies: Vec<Snapshot> = Vec::new();
        if let Some(against) = against {
            let parent = against.parent().unwrap_or(against);
            for snapshot in [parent, against].into_iter().chain(against.dependencies()) {
                let known = |other: &Snapshot| other.manifest().id == snapshot.manifest().id;
                if !dependencies.iter().any(known) {
                    dependencies.push(snapshot.clone());
                }
            }
        }
        Self { dependencies }
    }

    fn parent(&self) -> Option<&Snapshot> {
        self.dependencies.first()
    }

    /// Decodes the parent's chunk; `false` if there is none.
    fn decode_parent(&self, chunk: &Chunk, out: &mut [u8]) -> Result<bool, Error> {
        let Some(parent) = self.parent() else { return Ok(false) };
        let Some(encoded) = parent.verify(chunk)? else { return Ok(false) };
        let index = chunk.index.0;
        decode_chunk(&encoded, &InChunk::new(parent, chunk.index), TargetContents::Scratch, out)
            .map_err(|source| snapshot::Error::Decode { index, source })?;
        Ok(true)
    }

    /// Looks for a page in all snapshots that can be searched.
    fn find(&self, hash: PageHash, bytes: &Page, other: &mut Page) -> Option<PlaceRef> {
        self.dependencies.iter().enumerate().find_map(|(index, snapshot)| {
            let same = |page: PageNumber| {
                let Some((chunk, page)) = page.split() else { return false };
                InChunk::new(snapshot, chunk).page(page, other).is_ok() && *other == *bytes
            };
            let page = snapshot.pages()?.find(hash, same)?;
            Some(PlaceRef { dependency: Some(index), page })
        })
    }
}

/// Everything in which a page may be kept already.
struct Kept<'a> {
    /// Pages of the snapshot being made.
    table: &'a PageTable,
    /// Where their bytes are.
    memory: &'a dyn StillMemory,
    chunks: Vec<Chunk>,
    basis: &'a Basis,
}

/// Answers the encoder's question whether a page is kept already.
struct Duplicates<'a> {
    kept: &'a Kept<'a>,
    chunk: Chunk,
    other: &'a mut Page,
}

impl Dedup for Duplicates<'_> {
    fn find(&mut self, page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let Self { kept: Kept { table, memory, chunks, basis }, chunk, other } = self;
        let hash = page_hash(bytes);
        let found = basis.find(hash, bytes, other).or_else(|| {
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

fn touched_pages(planned: &[Planned]) -> usize {
    planned.iter().map(|planned| planned.touched.len()).sum()
}

/// The runs of consecutive pages of a set, as half-open ranges.
fn runs(pages: &PageSet) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = (next..cloner_codec::chunk::CHUNK_PAGES).find(|page| pages.contains(*page))?;
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
