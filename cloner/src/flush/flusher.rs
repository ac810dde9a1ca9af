//! Which snapshot next, and making it safe.
//!
//! By priority, then by size: of two that matter equally, the smaller one is safe sooner, and so more of them are if there is no time for
//! all. What a snapshot refers to comes before it, whatever its priority, or it could not be recovered.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::files::Files;
use super::folder::Folder;
use super::form::Choice;
use super::gauge::Gauge;
use super::stage::BUFFER_BYTES;
use super::writer::{Writer, identity};
use super::{Error, Form};
use crate::battery::Clock;
use crate::pool::{Pool, Stored};
use crate::rate::Rate;
use crate::sync::lock;
use crate::walk::Progress;

/// One snapshot that is safe now.
#[derive(Debug, Clone)]
pub struct Safe {
    /// Its name.
    pub name: String,
    /// Length of its file.
    pub file_bytes: u64,
    /// Bytes the pool has of it.
    pub pool_bytes: u64,
    /// The form it was written in, and why.
    pub choice: Choice,
    /// From the first look at it to the folder's sync.
    pub time: Duration,
}

/// One snapshot that is not.
#[derive(Debug)]
pub struct Failure {
    /// Its name.
    pub name: String,
    /// Why.
    pub why: Error,
}

/// What a flush of everything did.
#[derive(Debug, Default)]
pub struct FlushReport {
    /// Safe now, in the order they became so.
    pub safe: Vec<Safe>,
    /// Not safe.
    pub failed: Vec<Failure>,
}

/// How to flush.
#[derive(Debug, Clone, Copy)]
pub struct FlushSettings {
    /// Threads that transcode and seal.
    pub threads: usize,
    /// Always this form, instead of the one that is sooner.
    pub form: Option<Form>,
    /// Bytes of one write, a multiple of 4096. Four times as many are kept for it.
    pub buffer_bytes: usize,
}

impl FlushSettings {
    /// The usual ones.
    #[must_use]
    pub const fn new(threads: usize) -> Self {
        Self { threads, form: None, buffer_bytes: BUFFER_BYTES }
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
    /// Always this form, instead of the one that is sooner.
    form: Option<Form>,
    /// One flush at a time: the device has nothing from two, and a snapshot must not be written twice.
    turn: Mutex<()>,
}

impl Flusher {
    /// `gauge` knows the device.
    ///
    /// # Errors
    /// [`Error::File`] if there is no memory or there are no threads.
    pub fn new(
        pool: Arc<Pool>,
        folder: Arc<Folder>,
        gauge: Gauge,
        clock: Arc<dyn Clock>,
        settings: FlushSettings,
    ) -> Result<Self, Error> {
        let files: Arc<dyn Files> = Arc::clone(folder.files());
        let sealing = (folder.id(), folder.key().cloned());
        let FlushSettings { threads, form, buffer_bytes } = settings;
        let writer = Writer::new(files, sealing, Arc::clone(&clock), (threads, buffer_bytes))?;
        Ok(Self { pool, folder, writer, gauge, clock, form, turn: Mutex::new(()) })
    }

    /// What the device does.
    #[must_use]
    pub const fn gauge(&self) -> &Gauge {
        &self.gauge
    }

    /// Measures the device by writing `bytes` bytes, and lets the gauge know. `first` means that nothing was known of it.
    ///
    /// # Errors
    /// [`Error::File`].
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

    /// The folder.
    #[must_use]
    pub const fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    /// Makes the next snapshot safe. `None` if there is none, apart from those whose numbers are in `skip`; one that fails is
    /// added there.
    ///
    /// # Errors
    /// The name of the snapshot, and what happened.
    pub fn flush_next(
        &self,
        skip: &mut BTreeSet<u128>,
        progress: &Progress,
    ) -> Option<Result<Safe, Failure>> {
        let _turn = lock(&self.turn);
        let (id, stored) = self.next(skip)?;
        let name = stored.name().to_owned();
        let outcome = self.flush(&stored, progress);
        if outcome.is_err() {
            skip.insert(id);
        }
        Some(outcome.map_err(|why| Failure { name, why }))
    }

    /// Makes one snapshot safe, whether or not anybody counts its bytes, and whatever it refers to before it.
    ///
    /// # Errors
    /// The first failure; what was safe by then stays so.
    pub fn flush_snapshot(
        &self,
        stored: &Arc<Stored>,
        progress: &Progress,
    ) -> Result<Vec<Safe>, Box<Failure>> {
        let _turn = lock(&self.turn);
        let mut safe = Vec::new();
        for stored in stored.kept().iter().chain([stored]) {
            if !self.is_safe(stored) {
                let failed = |why| Box::new(Failure { name: stored.name().to_owned(), why });
                safe.push(self.flush(stored, progress).map_err(failed)?);
            }
        }
        Ok(safe)
    }

    /// Makes everything safe that can be.
    pub fn flush_all(&self, progress: &Progress) -> FlushReport {
        progress.start(self.unflushed().iter().map(|stored| stored.len_bytes() as u64).sum());
        let mut report = FlushReport::default();
        let mut skip = BTreeSet::new();
        while !progress.is_cancelled()
            && let Some(outcome) = self.flush_next(&mut skip, progress)
        {
            match outcome {
                Ok(safe) => report.safe.push(safe),
                Err(failure) => report.failed.push(failure),
            }
        }
        report
    }

    fn flush(&self, stored: &Arc<Stored>, progress: &Progress) -> Result<Safe, Error> {
        let started = self.clock.now();
        let complete = self.writer.write(stored, self.form, &self.gauge, progress)?;
        let committing = self.clock.now();
        // Listed if the pool has it under its name, and not a later one that took the name.
        let listed = || self.pool.get(stored.name()).is_ok_and(|listed| Arc::ptr_eq(&listed, stored));
        self.folder.commit(&complete, stored, listed)?;
        let now = self.clock.now();
        self.gauge.committed(complete.overhead + now.saturating_sub(committing));
        stored.mark_safe();
        let safe = Safe {
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
            "safe"
        );
        Ok(safe)
    }

    /// Listed snapshots that are not safe, and whatever they refer to that is not, each once and after what it refers to itself.
    fn unflushed(&self) -> Vec<Arc<Stored>> {
        let mut wanted: Vec<Arc<Stored>> =
            self.pool.all().into_iter().filter(|stored| stored.is_unflushed()).collect();
        wanted.sort_by_key(|stored| (std::cmp::Reverse(stored.labels().priority), stored.len_bytes()));
        let mut ordered: Vec<Arc<Stored>> = Vec::new();
        for stored in wanted {
            for stored in stored.kept().into_iter().chain([stored]) {
                if !ordered.iter().any(|known| Arc::ptr_eq(known, &stored)) && !self.is_safe(&stored) {
                    ordered.push(stored);
                }
            }
        }
        ordered
    }

    fn next(&self, skip: &BTreeSet<u128>) -> Option<(u128, Arc<Stored>)> {
        let failed = |stored: &Arc<Stored>| number(stored).is_some_and(|id| skip.contains(&id));
        self.unflushed().into_iter().find_map(|stored| {
            // What refers to a snapshot that could not be made safe is not tried: it could not be recovered.
            if failed(&stored) || stored.kept().iter().any(failed) {
                return None;
            }
            number(&stored).map(|id| (id, stored))
        })
    }

    fn is_safe(&self, stored: &Stored) -> bool {
        number(stored).is_some_and(|id| self.folder.holds(id))
    }
}

/// The snapshot's own number; none for what is no snapshot, which is never flushed.
fn number(stored: &Stored) -> Option<u128> {
    stored.number(|stored| identity(stored).ok().map(|(id, _)| id))
}
