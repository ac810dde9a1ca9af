//! Snapshots of one VM in a row, of which each but the first reads only what has changed.
//!
//! ```text
//! take the dirty log ─► save state ─► for each chunk: keep, or read and encode ─► manifest ─► seal ─► commit the log
//!         └──────────────── on failure: the log goes back, the reservation is undone ────────────┘
//! ```
//!
//! A [`Series`] begins with a full snapshot, taken in the same pause in which tracking of dirty pages begins. After that, a page
//! that is not dirty has the marker it had in the snapshot before, which is *kept* without looking at memory:
//!
//! * If that snapshot has no parent, it becomes the parent, and a clean page is PARENT (or zero, as it was there).
//! * If it has one, that is the new one's parent as well. What changed since the parent but not since the last snapshot is
//!   kept as the record it is. Only word-marked pages are read and encoded again, in chunks that have dirty pages: their
//!   vectors stand in the old chunk's dictionary. A chunk without dirty pages is copied as it is.
//!
//! So every snapshot of a series refers to one parent and to nobody else, however long the series is; any of them can be
//! removed without the others noticing. The price is that each holds all that differs from the parent: begin a new series when
//! that has grown too much.

mod encode;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cloner_codec::chunk::{CodecError, PAGE_BYTES};
use cloner_codec::hot::VerifiedChunk;
use vmm::Paused;
use vmm::memory::{AccessError, Epoch};

use crate::layout;
use crate::pool::{self, Reservation};
use crate::save::{self, Saver};
use crate::snapshot::{
    self, Checks, ChunkEntryV1, MANIFEST_LABEL, ManifestV1, STATE_LABEL, Snapshot, SnapshotId,
};
use crate::walk::{Progress, StartError, Walker};

use encode::{Part, Source, Worker};

/// Why no snapshot was made. Source and pool are as they were, and the next snapshot will have what this one would have had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The VM cannot be saved, or its dirty pages not be told.
    #[error("cannot save the state of the source")]
    Vm(#[from] vmm::Error),
    /// The first snapshot of a series.
    #[error("full snapshot")]
    Full(#[from] save::Error),
    /// Somebody else's epoch.
    #[error(
        "the dirty pages of this VM do not continue the snapshot {snapshot:?}: it is of another VM, or another series was \
         begun since"
    )]
    OtherSeries {
        /// The series' last snapshot.
        snapshot: String,
    },
    /// A chunk reaches out of guest memory, which a layout excludes, or has not arrived in a lazy clone.
    #[error("cannot read the memory of the source")]
    Memory(#[from] AccessError),
    /// The encoder was given an impossible chunk, which a layout excludes.
    #[error("cannot encode")]
    Codec(#[from] CodecError),
    /// The pool has no room.
    #[error("cannot store the snapshot")]
    Pool(#[from] pool::Error),
    /// The parent or the last snapshot is damaged.
    #[error("cannot save against this snapshot")]
    Snapshot(#[from] snapshot::Error),
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// What a save did, and how long each part took.
#[derive(Debug, Clone)]
pub struct Report {
    /// Bytes of dirty pages.
    pub dirty_bytes: u64,
    /// Bytes read from guest memory: those, and word-marked pages encoded again.
    pub read_bytes: u64,
    /// Chunks with dirty pages.
    pub dirty_chunks: usize,
    /// Taking the log and saving vCPUs and devices.
    pub state_time: Duration,
    /// Reading, encoding and storing, and keeping what is kept.
    pub encode_time: Duration,
}

/// The snapshots of one VM, and where its dirty log continues.
#[derive(Debug)]
pub struct Series {
    last: Snapshot,
    epoch: Epoch,
    /// Of the last snapshot and all it depends on.
    checks: Checks,
}

impl Series {
    /// Takes a full snapshot, or with `against` a child of that one, and tracks dirty pages from here on.
    ///
    /// # Errors
    /// See [`Error`]. Dirty pages are not tracked then.
    pub fn begin(
        saver: &Saver,
        paused: &Paused<'_>,
        against: Option<&Snapshot>,
        reservation: Reservation,
        progress: &Progress,
    ) -> Result<(Self, save::Report), Error> {
        let epoch = paused.track_dirty()?;
        match saver.save(paused, against, reservation, progress) {
            Ok((last, report)) => Ok((Self { checks: Checks::new(&last), last, epoch }, report)),
            Err(error) => {
                paused.untrack_dirty()?;
                Err(error.into())
            }
        }
    }

    /// The last snapshot.
    #[must_use]
    pub const fn last(&self) -> &Snapshot {
        &self.last
    }

    fn follow(&mut self, snapshot: &Snapshot) {
        self.checks = std::mem::take(&mut self.checks).for_next(snapshot);
        self.last = snapshot.clone();
    }
}

/// Takes the snapshots of a series. Holds threads and scratch memory, so that a pause pays for neither.
#[derive(Debug)]
pub struct IncrementalSaver {
    walker: Walker<Worker>,
}

impl IncrementalSaver {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// If they cannot be started.
    pub fn new(threads: usize) -> Result<Self, StartError> {
        Ok(Self { walker: Walker::new(threads, Worker::new)? })
    }

    /// Saves what changed since the series' last snapshot into `reservation`, which becomes the last one.
    ///
    /// # Errors
    /// See [`Error`]. The series goes on where it was; the reservation is gone, and with it all it held.
    pub fn save(
        &self,
        series: &mut Series,
        paused: &Paused<'_>,
        reservation: Reservation,
        progress: &Progress,
    ) -> Result<(Snapshot, Report), Error> {
        let started = Instant::now();
        let dirty = paused.take_dirty()?;
        if dirty.since() != series.epoch {
            return Err(Error::OtherSeries { snapshot: series.last.name().to_owned() });
        }
        let state = paused.save()?;
        let state_time = started.elapsed();

        let started = Instant::now();
        let memory = paused.memory();
        let dirty_bytes = (dirty.pages() * PAGE_BYTES) as u64;
        progress.start(dirty_bytes);
        let parent = series.last.parent().unwrap_or(&series.last);
        let source = Source { memory, dirty: &dirty, last: &series.last, parent, checks: &series.checks };
        let done = self.encode(&source, &reservation, progress)?;
        let encode_time = started.elapsed();

        let manifest = ManifestV1 {
            id: SnapshotId::random(),
            memory_bytes: memory.layout().size_bytes(),
            touched_pages: done.touched_pages,
            dependencies: vec![parent.manifest().id.clone()],
            has_parent: true,
            chunks: done.entries,
        };
        reservation.put_blob(STATE_LABEL, &state.to_bytes())?;
        reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes())?;
        reservation.depend_on(Arc::clone(parent.stored()));
        let snapshot = Snapshot::with(reservation.seal(), vec![parent.clone()], None)?;
        let report = Report {
            dirty_bytes,
            read_bytes: done.read_pages * PAGE_BYTES as u64,
            dirty_chunks: done.dirty_chunks,
            state_time,
            encode_time,
        };
        // Now, and not before, the log may be forgotten.
        series.epoch = dirty.commit();
        series.follow(&snapshot);
        tracing::info!(snapshot = snapshot.name(), ?report, "saved what changed");
        Ok((snapshot, report))
    }

    fn encode(
        &self,
        source: &Source<'_>,
        reservation: &Reservation,
        progress: &Progress,
    ) -> Result<Done, Error> {
        let done = Mutex::new(Done::default());
        self.walker.walk(&layout::chunks(source.memory.layout()), |worker, chunk| {
            if progress.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let dirty = source.dirty_pages(chunk);
            let last = source.checks.open(source.last, chunk.index)?;
            let index = chunk.index.0;
            let (encoded, part) = match last {
                // Never touched, then or now.
                None if dirty.is_empty() => return Ok(()),
                Some(last) if dirty.is_empty() && source.stands_alone(&last) => {
                    (last.as_bytes(), Part::kept(&last))
                }
                last => {
                    let part = worker.encode(source, chunk, &dirty, last.as_ref())?;
                    (worker.encoded(), part)
                }
            };
            reservation.put_chunk(u64::from(index), encoded)?;
            let checksum =
                VerifiedChunk::reopen(encoded).expect("the encoder keeps to the format").checksum();
            progress.add((dirty.len() * PAGE_BYTES) as u64);
            let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
            done.entries.push(ChunkEntryV1 { index, checksum });
            done.touched_pages += part.touched_pages;
            done.read_pages += part.read_pages;
            done.dirty_chunks += usize::from(!dirty.is_empty());
            Ok(())
        })?;
        let mut done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
        done.entries.sort_unstable_by_key(|entry| entry.index);
        Ok(done)
    }
}

/// All chunks, once they are encoded.
#[derive(Default)]
struct Done {
    entries: Vec<ChunkEntryV1>,
    touched_pages: u64,
    read_pages: u64,
    dirty_chunks: usize,
}
