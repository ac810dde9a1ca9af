//! Chooses which snapshot comes next, and makes it safe.
//!
//! Snapshots go by priority, then by size. Of two that matter equally, the smaller one is safe sooner, so more of them are safe if
//! there is no time for all. The snapshots that one refers to come before it, whatever their priority, or it could not be
//! recovered.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::files::Files;
use super::folder::Folder;
use super::form::FormChoice;
use super::gauge::Gauge;
use super::write_buffers::BUFFER_BYTES;
use super::writer::{Writer, identity};
use super::{Error, Form};
use crate::battery::{Clock, RealClock};
use crate::pool::{Pool, StoredSnapshot};
use crate::progress::Watch;
use crate::rate::Rate;
use crate::sync::lock;
use crate::walk::Threads;

/// One snapshot that is now safe on disk.
#[derive(Debug, Clone)]
pub struct FlushedSnapshot {
    /// Name of the snapshot.
    pub name: String,
    /// Length of its file in bytes.
    pub file_bytes: u64,
    /// Bytes of the pool that it occupies.
    pub pool_bytes: u64,
    /// The form in which it was written, and why.
    pub choice: FormChoice,
    /// Time from choosing the form until the folder's sync returned.
    pub time: Duration,
}

/// One snapshot that could not be made safe.
#[derive(Debug)]
pub struct FlushFailure {
    /// Name of the snapshot.
    pub name: String,
    /// What went wrong.
    pub why: Error,
}

/// What a flush of everything did.
#[derive(Debug, Default)]
pub struct FlushReport {
    /// Snapshots that are now safe, in the order in which they became so.
    pub safe: Vec<FlushedSnapshot>,
    /// Snapshots that could not be made safe.
    pub failed: Vec<FlushFailure>,
}

/// How to flush.
#[derive(Debug, Clone)]
pub struct FlushSettings {
    /// Tells how long writing takes; tests have a clock of their own.
    pub clock: Arc<dyn Clock>,
    /// Always use this form, instead of the one that is safe sooner.
    pub form: Option<Form>,
    /// Bytes of one write, a multiple of 4096. Four buffers of this size are kept.
    pub buffer_bytes: usize,
}

impl Default for FlushSettings {
    /// The clock of this host, the form that is safe sooner, and writes of 4 MiB.
    fn default() -> Self {
        Self { clock: Arc::new(RealClock::new()), form: None, buffer_bytes: BUFFER_BYTES }
    }
}

/// Makes snapshots of one pool safe in one folder, one at a time.
#[derive(Debug)]
pub struct Flusher {
    pool: Arc<Pool>,
    folder: Arc<Folder>,
    writer: Writer,
    gauge: Gauge,
    clock: Arc<dyn Clock>,
    /// Always use this form, instead of the one that is safe sooner.
    form: Option<Form>,
    /// Held during a flush, so that there is one at a time: two would not be faster, and a snapshot must not be written twice.
    turn: Mutex<()>,
}

impl Flusher {
    /// Makes a flusher for the snapshots of `pool`, which transcodes and encrypts on `threads`. `gauge` gives the rate of the device
    /// that `folder` is on.
    ///
    /// # Errors
    /// [`Error::File`] if memory cannot be allocated.
    pub fn new(
        threads: &Threads,
        pool: Arc<Pool>,
        folder: Arc<Folder>,
        gauge: Gauge,
        settings: FlushSettings,
    ) -> Result<Self, Error> {
        let files: Arc<dyn Files> = Arc::clone(folder.files());
        let encryption = (folder.id(), folder.key().cloned());
        let FlushSettings { clock, form, buffer_bytes } = settings;
        let writer = Writer::new(threads, files, encryption, Arc::clone(&clock), buffer_bytes)?;
        Ok(Self { pool, folder, writer, gauge, clock, form, turn: Mutex::new(()) })
    }

    /// The gauge that estimates the device's rate.
    #[must_use]
    pub const fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Measures the device by writing `bytes` bytes, and reports the result to the gauge. With `first`, the gauge forgets what it
    /// knew before.
    ///
    /// # Errors
    /// [`Error::File`] if a file operation fails. The gauge is then unchanged.
    pub fn measure(&self, bytes: u64, first: bool) -> Result<Rate, Error> {
        let _turn = lock(&self.turn);
        let rate = self.writer.measure(bytes)?;
        if first {
            self.gauge.reset(rate);
        } else {
            self.gauge.measured(rate);
        }
        Ok(rate)
    }

    /// The folder that snapshots are flushed to.
    #[must_use]
    pub const fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Makes the next snapshot safe. Snapshots whose numbers are in `skip` are left out, and so are those that refer to them; a
    /// snapshot that fails is added to `skip`. `None` if no snapshot is left.
    ///
    /// # Errors
    /// [`FlushFailure`] with the name of the snapshot and what went wrong.
    pub fn flush_next(
        &self,
        skip: &mut BTreeSet<u128>,
        watch: Watch<'_>,
    ) -> Option<Result<FlushedSnapshot, FlushFailure>> {
        let _turn = lock(&self.turn);
        let (id, stored) = self.next(skip)?;
        let name = stored.name().to_owned();
        let outcome = self.flush(&stored, watch);
        if outcome.is_err() {
            skip.insert(id);
        }
        Some(outcome.map_err(|why| FlushFailure { name, why }))
    }

    /// Makes one snapshot safe, whether or not a ledger counts its bytes. The snapshots that it refers to are made safe before it.
    ///
    /// # Errors
    /// The first [`FlushFailure`]. Snapshots that were safe by then stay so.
    pub fn flush_snapshot(
        &self,
        stored: &Arc<StoredSnapshot>,
        watch: Watch<'_>,
    ) -> Result<Vec<FlushedSnapshot>, Box<FlushFailure>> {
        let _turn = lock(&self.turn);
        let mut safe = Vec::new();
        for stored in stored.kept().iter().chain([stored]) {
            if !self.is_safe(stored) {
                let failed = |why| Box::new(FlushFailure { name: stored.name().to_owned(), why });
                safe.push(self.flush(stored, watch).map_err(failed)?);
            }
        }
        Ok(safe)
    }

    /// Makes every unflushed snapshot safe that can be.
    pub fn flush_all(&self, watch: Watch<'_>) -> FlushReport {
        watch.start(self.unflushed().iter().map(|stored| stored.len_bytes() as u64).sum());
        let mut report = FlushReport::default();
        let mut skip = BTreeSet::new();
        while !watch.is_cancelled()
            && let Some(outcome) = self.flush_next(&mut skip, watch)
        {
            match outcome {
                Ok(safe) => report.safe.push(safe),
                Err(failure) => report.failed.push(failure),
            }
        }
        report
    }

    fn flush(&self, stored: &Arc<StoredSnapshot>, watch: Watch<'_>) -> Result<FlushedSnapshot, Error> {
        let started = self.clock.now();
        let complete = self.writer.write(stored, self.form, &self.gauge, watch)?;
        let committing = self.clock.now();
        // Listed if the pool still has this very snapshot under the name, and not a later one that took it.
        let listed = || self.pool.get(stored.name()).is_ok_and(|listed| Arc::ptr_eq(&listed, stored));
        self.folder.commit(&complete, stored, listed)?;
        let now = self.clock.now();
        self.gauge.committed(complete.overhead + now.saturating_sub(committing));
        stored.mark_safe();
        let safe = FlushedSnapshot {
            name: stored.name().to_owned(),
            file_bytes: complete.file_bytes,
            pool_bytes: stored.occupied_bytes() as u64,
            choice: complete.choice,
            time: now.saturating_sub(started),
        };
        tracing::info!(
            snapshot = safe.name,
            file_bytes = safe.file_bytes,
            form = %safe.choice.form,
            time = ?safe.time,
            "the snapshot is safe on disk"
        );
        Ok(safe)
    }

    /// The listed snapshots that are not safe, and those that they refer to and that are not safe either. Each appears once, after
    /// those that it refers to itself.
    fn unflushed(&self) -> Vec<Arc<StoredSnapshot>> {
        let mut wanted: Vec<Arc<StoredSnapshot>> =
            self.pool.all().into_iter().filter(|stored| stored.is_unflushed()).collect();
        wanted.sort_by_key(|stored| (std::cmp::Reverse(stored.labels().priority), stored.len_bytes()));
        let mut ordered: Vec<Arc<StoredSnapshot>> = Vec::new();
        for stored in wanted {
            for stored in stored.kept().into_iter().chain([stored]) {
                if !ordered.iter().any(|known| Arc::ptr_eq(known, &stored)) && !self.is_safe(&stored) {
                    ordered.push(stored);
                }
            }
        }
        ordered
    }

    fn next(&self, skip: &BTreeSet<u128>) -> Option<(u128, Arc<StoredSnapshot>)> {
        let failed = |stored: &Arc<StoredSnapshot>| number(stored).is_some_and(|id| skip.contains(&id));
        self.unflushed().into_iter().find_map(|stored| {
            // A snapshot that refers to one that could not be made safe is not tried: it could not be recovered.
            if failed(&stored) || stored.kept().iter().any(failed) {
                return None;
            }
            number(&stored).map(|id| (id, stored))
        })
    }

    fn is_safe(&self, stored: &StoredSnapshot) -> bool {
        number(stored).is_some_and(|id| self.folder.holds(id))
    }
}

/// The snapshot's own number. `None` for an entry that is not a snapshot; such entries are never flushed.
fn number(stored: &StoredSnapshot) -> Option<u128> {
    stored.number(|stored| identity(stored).ok().map(|(id, _)| id))
}
