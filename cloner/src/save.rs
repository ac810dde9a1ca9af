//! From a paused VM to a snapshot in the pool.
//!
//! ```text
//! reserve the name ─► pause ─► save state ─► which pages were touched? ─► encode in parallel ─► manifest ─► seal
//!                    └───────────────────── the source stands still ────────────────────────┘
//! ```
//!
//! Whatever fails, the reservation is dropped: the pool is as it was, and the source runs on when its guard is dropped.

use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use vmm::Paused;
use vmm::memory::GuestMemory;
use vmm::sys::mmap::OutOfRange;

use crate::chunk::{self, Chunk, PageNumber};
use crate::codec::{self, ChunkInput, ChunkStats, Dedup, Encoder, Options, PageRef, PageSet};
use crate::dedup::PageTable;
use crate::format::{CHUNK_BYTES, ENCODED_BYTES_MAX, PAGE_BYTES, Page, PageIndex, VerifiedChunk, page_hash};
use crate::pool::{self, Reservation};
use crate::snapshot::{self, ChunkEntryV1, MANIFEST_LABEL, ManifestV1, STATE_LABEL, Snapshot};
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
    /// A chunk reaches out of guest memory, which a layout excludes.
    #[error("cannot read the memory of the source")]
    Memory(#[from] OutOfRange),
    /// The encoder was given an impossible chunk, which a layout excludes.
    #[error("cannot encode")]
    Codec(#[from] codec::Error),
    /// The pool has no room.
    #[error("cannot store the snapshot")]
    Pool(#[from] pool::Error),
    /// What was stored cannot be opened.
    #[error("the new snapshot does not open")]
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

    /// Saves a paused VM into `reservation`.
    ///
    /// # Errors
    /// See [`Error`]. The reservation is gone, and with it all it held.
    pub fn save(
        &self,
        paused: &Paused<'_>,
        reservation: Reservation,
        progress: &Progress,
    ) -> Result<(Snapshot, Report), Error> {
        let started = Instant::now();
        let state = paused.save()?;
        let state_time = started.elapsed();

        let started = Instant::now();
        let memory = paused.memory();
        let planned = self.plan(memory)?;
        let touched_pages: usize = planned.iter().map(|planned| planned.touched.len()).sum();
        let plan_time = started.elapsed();

        let started = Instant::now();
        progress.start((touched_pages * PAGE_BYTES) as u64);
        let (chunks, stats) = self.encode(memory, &planned, touched_pages, &reservation, progress)?;
        let encode_time = started.elapsed();

        let memory_bytes = memory.layout().size_bytes();
        let manifest = ManifestV1 { memory_bytes, touched_pages: touched_pages as u64, chunks };
        reservation.put_blob(STATE_LABEL, &state.to_bytes())?;
        reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes())?;
        let snapshot = Snapshot::open(reservation.seal())?;
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

    /// The chunks that hold anything, in order.
    fn plan(&self, memory: &GuestMemory) -> Result<Vec<Planned>, Error> {
        let planned = Mutex::new(Vec::new());
        self.walker.walk(&chunk::chunks(memory.layout()), |_, chunk| {
            let mut words = [0; 8];
            memory.regions()[chunk.region]
                .touched(chunk.offset, chunk.pages, &mut words)
                .map_err(Error::Touched)?;
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
        memory: &GuestMemory,
        planned: &[Planned],
        touched_pages: usize,
        reservation: &Reservation,
        progress: &Progress,
    ) -> Result<(Vec<ChunkEntryV1>, ChunkStats), Error> {
        let table = PageTable::new(touched_pages);
        let chunks = chunk::chunks(memory.layout());
        let done = Mutex::new((Vec::with_capacity(planned.len()), ChunkStats::default()));
        self.walker.walk(planned, |worker, Planned { chunk, touched }| {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let Worker { encoder, pages, encoded, other } = worker;
            let pages = &mut pages[..chunk.len_bytes()];
            for (start, end) in runs(touched) {
                let range = start * PAGE_BYTES..end * PAGE_BYTES;
                memory.regions()[chunk.region].read(chunk.offset + range.start, &mut pages[range])?;
            }
            encoded.clear();
            let mut dedup = Duplicates { table: &table, memory, chunks: &chunks, chunk: *chunk, other };
            let stats = encoder.encode_chunk(&ChunkInput::new(pages, touched)?, &mut dedup, encoded);
            reservation.put_chunk(u64::from(chunk.index.0), encoded)?;
            let checksum =
                VerifiedChunk::reopen(encoded).expect("the encoder writes what the format says").checksum();
            progress.add((touched.len() * PAGE_BYTES) as u64);
            let mut done = lock(&done);
            done.0.push(ChunkEntryV1 { index: chunk.index.0, checksum });
            done.1 += stats;
            Ok(())
        })?;
        let (mut entries, stats) = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        entries.sort_unstable_by_key(|entry: &ChunkEntryV1| entry.index);
        Ok((entries, stats))
    }
}

/// Answers the encoder's question whether a page is kept already.
struct Duplicates<'a> {
    table: &'a PageTable,
    memory: &'a GuestMemory,
    chunks: &'a [Chunk],
    chunk: Chunk,
    other: &'a mut Page,
}

impl Dedup for Duplicates<'_> {
    fn find(&mut self, page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let Self { table, memory, chunks, chunk, other } = self;
        let number = PageNumber::new(chunk.index, page);
        let found = table.find_or_insert(page_hash(bytes), number, |candidate| {
            // The source stands still: the earlier page is still what was encoded.
            let Some((index, page)) = candidate.split() else { return false };
            let chunk = &chunks[index.0 as usize];
            let offset = chunk.offset + page.get() * PAGE_BYTES;
            memory.regions()[chunk.region].read(offset, &mut other[..]).is_ok() && **other == *bytes
        })?;
        Some(PageRef(found.0))
    }
}

/// The runs of consecutive pages of a set, as half-open ranges.
fn runs(pages: &PageSet) -> impl Iterator<Item = (usize, usize)> + '_ {
    let mut next = 0;
    std::iter::from_fn(move || {
        let start = (next..crate::format::CHUNK_PAGES).find(|page| pages.contains(*page))?;
        let end = (start..).find(|page| !pages.contains(*page)).expect("a set ends somewhere");
        next = end;
        Some((start, end))
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
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
