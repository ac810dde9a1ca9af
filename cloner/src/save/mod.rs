//! From a guest at one instant to a snapshot in the pool.
//!
//! ```text
//! reserve the name ─► a moment of the source ─► which pages were touched? ─► encode in parallel ─► manifest ─► publish
//! ```
//! How a guest is taken at one instant is described in [`crate::moment`]: it may stand still while it is saved, or run on.
//!
//! If any step fails, the reservation is dropped and the pool is as it was; the source runs on when its guard is dropped.
//!
//! # Children
//! A snapshot that is saved as the child of another stores what differs: a page equal to the parent's in the same place is
//! PARENT, a page of which a few words differ is PATCH, and a page that any snapshot concerned holds somewhere is DUP. If the
//! other snapshot is a child itself, its parent becomes the new one's parent too, and it stays a dependency for DUP markers:
//! chains of snapshots do not make chains of references.

mod changed;
mod full;
mod references;
#[cfg(test)]
pub(crate) mod tests;
mod worker;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloner_codec::chunk::{CodecError, PAGE_BYTES};
use cloner_codec::hot::ChunkStats;
use vmm::memory;

use crate::chunk_id::ChunkId;
use crate::dedup::PageTable;
use crate::moment::{Changes, LiveReport, Moment, MomentMemory};
use crate::pool::{self, Reservation};
use crate::progress::{Cancel, Progress, Watch};
use crate::snapshot::{self, MANIFEST_LABEL, ManifestV2, RegionV2, STATE_LABEL, Snapshot, SnapshotId};
use crate::walk::{Threads, Walker};

use references::References;
use worker::Worker;

/// Why no snapshot was made. Source and pool are as they were before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel does not say which memory the source has touched.
    #[error("cannot tell which memory the source has touched")]
    Touched(#[source] io::Error),
    /// The memory cannot be read: the process that holds it is gone, or some of it will never arrive.
    #[error("cannot read the memory of the source")]
    Memory(#[from] memory::ReadError),
    /// The encoder was given an impossible chunk. Chunks of a valid layout never are.
    #[error("cannot encode a chunk")]
    Codec(#[from] CodecError),
    /// The kernel has no random number for the snapshot's id.
    #[error("cannot make an id for the snapshot")]
    Id(#[source] io::Error),
    /// The pool has no room, or refuses for another reason.
    #[error("cannot store the snapshot")]
    Pool(#[from] pool::Error),
    /// A snapshot that the new one refers to is damaged, or cannot be its parent.
    #[error("cannot save a snapshot that refers to this parent")]
    Snapshot(#[from] snapshot::Error),
    /// A parent was given for a later snapshot of a series, whose parent is determined by the series.
    #[error("a parent cannot be chosen for a later snapshot of a series: the series determines it")]
    ParentOfSeries,
    /// The caller cancelled the save through its [`Cancel`].
    #[error("cancelled")]
    Cancelled,
}

/// How to save a [`Moment`]. The default stores everything, counts nothing and cannot be cancelled.
#[derive(Debug, Clone, Copy, Default)]
pub struct SaveOptions<'a> {
    parent: Option<&'a Snapshot>,
    watch: Watch<'a>,
}

impl<'a> SaveOptions<'a> {
    /// Stores only what differs from `parent`, a snapshot of a machine with the same memory size. `None` stores everything.
    #[must_use]
    pub fn parent(self, parent: impl Into<Option<&'a Snapshot>>) -> Self {
        Self { parent: parent.into(), ..self }
    }

    /// Counts in `progress` the bytes that are done.
    #[must_use]
    pub const fn progress(self, progress: &'a Progress) -> Self {
        Self { watch: self.watch.progress(progress), ..self }
    }

    /// Lets the caller stop the save with `cancel`.
    #[must_use]
    pub const fn cancel(self, cancel: &'a Cancel) -> Self {
        Self { watch: self.watch.cancel(cancel), ..self }
    }
}

/// A snapshot, and the report on how it was saved.
#[derive(Debug, Clone)]
pub struct Saved {
    /// The snapshot, which the pool holds from now on.
    pub snapshot: Snapshot,
    /// What was done, and how long each part took.
    pub report: SaveReport,
}

/// What a save did, and how long each part took.
#[derive(Debug, Clone)]
pub struct SaveReport {
    /// Size of the guest's memory, in bytes.
    pub memory_bytes: u64,
    /// Bytes of pages that the guest had ever touched.
    pub touched_bytes: u64,
    /// Bytes read from guest memory: all that was touched or, in a series, what had changed and what had to be encoded again.
    pub read_bytes: u64,
    /// Pages by kind, and the bytes they were encoded to. Pages of chunks that were never touched, or that were taken over
    /// unchanged from the last snapshot of a series, are not counted.
    pub stats: ChunkStats,
    /// What had changed since the last snapshot of a series; `None` for the first one, and outside a series.
    pub changed: Option<ChangeReport>,
    /// What it cost to let the source run on; `None` if it stood still.
    pub live: Option<LiveReport>,
    /// Time to save vCPUs and devices; in a series, also to take the log of dirty pages.
    pub state_time: Duration,
    /// Time to find the touched pages.
    pub plan_time: Duration,
    /// Time to read, encode and store.
    pub encode_time: Duration,
}

/// What had changed since the last snapshot of a series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeReport {
    /// Bytes of pages that the guest had written.
    pub dirty_bytes: u64,
    /// Number of chunks of 2 MiB that had dirty pages.
    pub dirty_chunks: usize,
}

/// All chunks of a snapshot, in order, and how they were made.
#[derive(Default)]
struct EncodedChunks {
    chunks: Vec<ChunkId>,
    stats: ChunkStats,
    touched_pages: u64,
    read_pages: u64,
    plan_time: Duration,
    changed: Option<ChangeReport>,
    /// Finds the snapshot's pages by content. `None` if no such table was made.
    table: Option<PageTable>,
}

/// Saves moments as snapshots. It has encoders and scratch memory on threads that other tools may share, so that no pause has to wait
/// for either; it does wait if another tool is using the threads at that moment.
#[derive(Debug)]
pub struct Saver {
    walker: Walker<Worker>,
}

impl Saver {
    /// Makes the encoder and the scratch memory of each thread.
    #[must_use]
    pub fn new(threads: &Threads) -> Self {
        Self { walker: Walker::new(threads, Worker::new) }
    }

    /// Number of threads.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.walker.threads()
    }

    /// Saves a guest as it was at one instant, under the name that was reserved.
    ///
    /// # Errors
    /// [`Error::Pool`] if there is no room, [`Error::Touched`] or [`Error::Memory`] if the source's memory cannot be read,
    /// [`Error::Snapshot`] or [`Error::ParentOfSeries`] if the parent does not fit or is damaged, and [`Error::Cancelled`]. The
    /// reservation is gone then, with all it held; a series goes on where it was.
    pub fn save(
        &self,
        moment: Moment<'_>,
        reservation: Reservation,
        options: &SaveOptions<'_>,
    ) -> Result<Saved, Error> {
        let started = Instant::now();
        let (encoded, references) = self.encode(&moment, &reservation, options)?;
        let encode_time = started.elapsed().saturating_sub(encoded.plan_time);
        let EncodedChunks { chunks, stats, touched_pages, read_pages, plan_time, changed, table } = encoded;

        let memory_bytes = moment.memory().layout().size_bytes();
        let manifest = ManifestV2 {
            producer: ManifestV2::this_producer(),
            id: SnapshotId::random().map_err(Error::Id)?,
            dependencies: references.ids(),
            has_parent: references.parent().is_some(),
            touched_pages,
            regions: vec![RegionV2::memory(memory_bytes)],
            chunks,
        };
        reservation.put_blob(STATE_LABEL, &moment.state.to_bytes())?;
        reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes())?;
        for snapshot in &references.dependencies {
            reservation.depend_on(Arc::clone(snapshot.stored()));
        }
        let snapshot = Snapshot::with(reservation.publish(), references.dependencies, table)?;

        let Moment { memory, changes, state_time, .. } = moment;
        if let Changes::InSeries { series, dirty } = changes {
            // Only now may the log be forgotten: the snapshot is published.
            series.follow(&snapshot, dirty.commit());
        }
        let live = match memory {
            MomentMemory::Frozen(memory) => Some(memory.release()),
            MomentMemory::Still(_) => None,
        };
        let page_bytes = PAGE_BYTES as u64;
        let (touched_bytes, read_bytes) = (touched_pages * page_bytes, read_pages * page_bytes);
        let report = SaveReport {
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
            "saved a snapshot"
        );
        Ok(Saved { snapshot, report })
    }

    fn encode(
        &self,
        moment: &Moment<'_>,
        reservation: &Reservation,
        options: &SaveOptions<'_>,
    ) -> Result<(EncodedChunks, References), Error> {
        if let Changes::InSeries { series, dirty } = &moment.changes
            && let Some(last) = series.reference()
        {
            if options.parent.is_some() {
                return Err(Error::ParentOfSeries);
            }
            let source = changed::IncrementalSource::new(moment.memory(), dirty, last);
            let encoded = changed::encode(&self.walker, &source, reservation, options.watch)?;
            return Ok((encoded, References::only(source.parent())));
        }
        let references = References::of(options.parent);
        if let Some(parent) = references.parent() {
            // Before anything is published: opening the new snapshot would find it too, but by then the pool lists it.
            parent.check_as_parent_of(reservation.name(), moment.memory().layout().size_bytes())?;
        }
        let encoded = full::encode(&self.walker, moment.memory(), &references, reservation, options.watch)?;
        Ok((encoded, references))
    }
}
