//! From a guest at one instant to a snapshot in the pool.
//!
//! ```text
//! reserve the name ─► a moment of the source ─► which pages were touched? ─► encode in parallel ─► manifest ─► publish
//! ```
//! How a guest is taken at one instant is the business of [`crate::moment`]: it may stand still meanwhile, or run on.
//!
//! Whatever fails, the reservation is dropped: the pool is as it was, and the source runs on when its guard is dropped.
//!
//! # Children
//! A snapshot that is saved as the child of another stores what differs: pages equal to the parent's in the same place are PARENT, pages
//! of which a few words differ PATCH, and pages that any snapshot concerned holds somewhere DUP. If the other
//! is a child itself, its parent becomes the new one's parent too, and it stays a dependency for DUP markers:
//! chains of snapshots do not make chains of references.

mod changed;
mod full;
mod references;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloner_codec::chunk::{CodecError, PAGE_BYTES};
use cloner_codec::hot::ChunkStats;
use vmm::memory;

use crate::dedup::PageTable;
use crate::moment::{Changes, LiveReport, Memory, Moment};
use crate::pool::{self, Reservation};
use crate::snapshot::{self, ChunkEntryV1, MANIFEST_LABEL, ManifestV1, STATE_LABEL, Snapshot, SnapshotId};
use crate::walk::{Progress, StartError, Walker};

use references::References;
use worker::Worker;

/// Why no snapshot was made. Source and pool are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be found out which memory was touched.
    #[error("cannot tell which memory the source has touched")]
    Touched(#[source] io::Error),
    /// The memory cannot be read: the process that holds it is gone, or some of it will never arrive.
    #[error("cannot read the memory of the source")]
    Memory(#[from] memory::ReadError),
    /// The encoder was given an impossible chunk, which a layout excludes.
    #[error("cannot encode")]
    Codec(#[from] CodecError),
    /// The kernel has no random number for the snapshot's id.
    #[error("cannot make an id for the snapshot")]
    Id(#[source] io::Error),
    /// The pool has no room.
    #[error("cannot store the snapshot")]
    Pool(#[from] pool::Error),
    /// The parent is damaged, or of another machine.
    #[error("cannot save against this snapshot")]
    Snapshot(#[from] snapshot::Error),
    /// A parent was given for a snapshot of a series, which has the series' parent.
    #[error("a snapshot of a series that has begun has its parent already")]
    ParentOfSeries,
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// How to save, besides what and where to.
#[derive(Debug, Clone, Copy, Default)]
pub struct SaveOptions<'a> {
    parent: Option<&'a Snapshot>,
    progress: Option<&'a Progress>,
}

impl<'a> SaveOptions<'a> {
    /// Stores only what differs from `parent`, a snapshot of a machine with as much memory. `None` stores everything.
    #[must_use]
    pub fn parent(self, parent: impl Into<Option<&'a Snapshot>>) -> Self {
        Self { parent: parent.into(), ..self }
    }

    /// Counts the bytes that are done, and lets the caller cancel.
    #[must_use]
    pub fn progress(self, progress: &'a Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }
}

/// A snapshot, and what it took.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The snapshot, which the pool holds from now on.
    pub snapshot: Snapshot,
    /// What was done, and how long each part took.
    pub report: Report,
}

/// What a save did, and how long each part took.
#[derive(Debug, Clone)]
pub struct Report {
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// Bytes of pages ever touched.
    pub touched_bytes: u64,
    /// Bytes read from guest memory: all that was touched, or in a series what changed and what had to be encoded again.
    pub read_bytes: u64,
    /// Pages by kind, and what they were encoded to. Pages of chunks that were never touched, or were taken over from the last
    /// snapshot of a series as they were, are not in here.
    pub stats: ChunkStats,
    /// In a series, what had changed.
    pub changed: Option<Changed>,
    /// What it took that the source ran on, if it did.
    pub live: Option<LiveReport>,
    /// Saving vCPUs and devices; in a series, with taking the log of dirty pages.
    pub state_time: Duration,
    /// Finding touched pages.
    pub plan_time: Duration,
    /// Reading, encoding and storing.
    pub encode_time: Duration,
}

/// What had changed since the last snapshot of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Changed {
    /// Bytes of dirty pages.
    pub dirty_bytes: u64,
    /// Chunks of 2 MiB with dirty pages.
    pub dirty_chunks: usize,
}

/// All chunks of a snapshot, in order, and how they came about.
struct Encoded {
    chunks: Vec<ChunkEntryV1>,
    stats: ChunkStats,
    touched_pages: u64,
    read_pages: u64,
    plan_time: Duration,
    changed: Option<Changed>,
    /// Where its pages are found, if they were looked for.
    table: Option<PageTable>,
}

/// Takes snapshots. Holds threads and scratch memory, so that a pause pays for neither.
#[derive(Debug)]
pub struct Saver {
    walker: Walker<Worker>,
}

impl Saver {
    /// Starts `threads` threads.
    ///
    /// # Errors
    /// [`StartError`] if they cannot be started.
    pub fn new(threads: usize) -> Result<Self, StartError> {
        Ok(Self { walker: Walker::new(threads, Worker::new)? })
    }

    /// Number of threads.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.walker.threads()
    }

    /// Saves a guest as it was at one instant, under the name that was reserved.
    ///
    /// # Errors
    /// [`Error::Pool`] if there is no room, [`Error::Cancelled`], or what is wrong with the memory or the parent. The reservation is
    /// gone then, with all it held; a series goes on where it was.
    pub fn save(
        &self,
        moment: Moment<'_>,
        reservation: Reservation,
        options: &SaveOptions<'_>,
    ) -> Result<Saved, Error> {
        let unwatched = Progress::default();
        let progress = options.progress.unwrap_or(&unwatched);
        let started = Instant::now();
        let (encoded, references) = self.encode(&moment, &reservation, options.parent, progress)?;
        let encode_time = started.elapsed().saturating_sub(encoded.plan_time);
        let Encoded { chunks, stats, touched_pages, read_pages, plan_time, changed, table } = encoded;

        let memory_bytes = moment.memory().layout().size_bytes();
        let manifest = ManifestV1 {
            id: SnapshotId::random().map_err(Error::Id)?,
            memory_bytes,
            touched_pages,
            dependencies: references.ids(),
            has_parent: references.parent().is_some(),
            chunks,
        };
        reservation.put_blob(STATE_LABEL, &moment.state.to_bytes())?;
        reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes())?;
        for snapshot in &references.dependencies {
            reservation.depend_on(Arc::clone(snapshot.stored()));
        }
        let snapshot = Snapshot::with(reservation.seal(), references.dependencies, table)?;

        let Moment { memory, changes, state_time, .. } = moment;
        if let Changes::InSeries { series, dirty } = changes {
            // Now, and not before, the log may be forgotten.
            series.follow(&snapshot, dirty.commit());
        }
        let live = match memory {
            Memory::Live(memory) => Some(memory.release()),
            Memory::Still(_) => None,
        };
        let page_bytes = PAGE_BYTES as u64;
        let (touched_bytes, read_bytes) = (touched_pages * page_bytes, read_pages * page_bytes);
        let report = Report {
            memory_bytes,
            touched_bytes,
            read_bytes,
            stats,
            changed,
            live,
            state_time,
            plan_time,
            encode_time,
        };
        tracing::info!(
            snapshot = snapshot.name(),
            occupied_bytes = snapshot.occupied_bytes(),
            ?report,
            "saved"
        );
        Ok(Saved { snapshot, report })
    }

    fn encode(
        &self,
        moment: &Moment<'_>,
        reservation: &Reservation,
        parent: Option<&Snapshot>,
        progress: &Progress,
    ) -> Result<(Encoded, References), Error> {
        if let Changes::InSeries { series, dirty } = &moment.changes
            && let Some(last) = series.reference()
        {
            if parent.is_some() {
                return Err(Error::ParentOfSeries);
            }
            let source = changed::Source::new(moment.memory(), dirty, last);
            let encoded = changed::encode(&self.walker, &source, reservation, progress)?;
            return Ok((encoded, References::only(source.parent())));
        }
        let references = References::of(parent);
        let encoded = full::encode(&self.walker, moment.memory(), &references, reservation, progress)?;
        Ok((encoded, references))
    }
}
