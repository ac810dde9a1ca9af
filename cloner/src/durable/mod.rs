//! A pool that survives a failure of the mains.
//!
//! ```text
//!   PowerSource ─► watch: Battery, PowerState ─► limit, open or closed ─┐
//!        gauge of the device ───────────────────────────────────────────┤
//!                                                                       ▼
//!   reserve(name, bytes) ─► claim ─► Reservation ─► publish ─► unflushed: Ledger ─► Flusher ─► Folder: safe
//! ```
//!
//! # The promise
//! At any moment, no more bytes are in the pool and not on the disk than can be written before the battery is empty: with the
//! charge that it has now, at the rate that the device had at its last measurement, less a margin. So everything that was admitted
//! becomes safe if the mains fail. The promise is kept in three ways:
//!
//! * *Admission*: a put claims its bytes first. If they do not fit, a flush makes room while the put waits, or the put is refused
//!   with the numbers.
//! * *Shrinking*: if the battery ages or discharges, or the device gets slower, the limit is lowered at once, and the bytes beyond
//!   it are flushed at once. Until that is done, [`DurableStatus::exposed_bytes`] says how many are not covered; nothing is
//!   admitted meanwhile.
//! * *Power loss*: admission closes, running encodes are cancelled, and unflushed snapshots are written by priority, then by size.
//!
//! The promise does not cover a device that gets slower by more than the margin, or a load that grows by more than the margin,
//! between the last measurement and the failure. The test `durable::tests::schedules` checks all of this on a simulated clock.

mod decisions;
mod threads;

use std::sync::Arc;

pub use self::decisions::{AdmittedPut, DurableSettings, DurableStatus, Error};

use self::decisions::Decisions;
use self::threads::BackgroundThreads;
use crate::battery::{Battery, Clock, PowerSource, RealClock};
use crate::flush::{Cleaning, FlushReport, Folder, RecoverOptions, RecoverReport, Recoverer};
use crate::pool::{Labels, LedgerUsage, Pool};
use crate::progress::Watch;
use crate::walk::Threads;

/// A pool, the folder that it is flushed to, and the battery that protects what is not flushed yet. Shared by reference; every
/// method may be called from any thread. Dropping it ends its two threads and flushes nothing: call [`DurablePool::flush`] for
/// that.
#[derive(Debug)]
pub struct DurablePool {
    decisions: Arc<Decisions>,
    // Ends both threads when dropped. They hold references to the decisions.
    _threads: BackgroundThreads,
}

impl DurablePool {
    /// Recovers `folder` into `pool`, measures the device, and starts watching `source`.
    ///
    /// # Errors
    /// [`Error::Flush`] if the folder cannot be recovered as a whole, if the device cannot be measured, or if the caller
    /// cancels; [`Error::Threads`] or [`Error::Thread`] if threads cannot be started. Single files that are damaged are in the
    /// report instead.
    pub fn open(
        pool: Arc<Pool>,
        folder: Folder,
        (battery, source): (Battery, Box<dyn PowerSource>),
        settings: DurableSettings,
        watch: Watch<'_>,
    ) -> Result<(Self, RecoverReport), Error> {
        Self::open_with_clock(Arc::new(RealClock::new()), pool, folder, (battery, source), settings, watch)
    }

    /// As [`DurablePool::open`], but the device is measured by `clock`.
    fn open_with_clock(
        clock: Arc<dyn Clock>,
        pool: Arc<Pool>,
        folder: Folder,
        (battery, source): (Battery, Box<dyn PowerSource>),
        settings: DurableSettings,
        watch: Watch<'_>,
    ) -> Result<(Self, RecoverReport), Error> {
        let recoverer = Recoverer::new(&Threads::new(settings.threads.max(2) * 2)?);
        let options = RecoverOptions { cleaning: Cleaning::Delete, watch, ..RecoverOptions::default() };
        let report = recoverer.recover(&folder, &pool, &options)?;
        let decisions = Arc::new(Decisions::new(pool, Arc::new(folder), battery, clock, settings)?);
        decisions.measure(true)?;
        let threads = BackgroundThreads::start(&decisions, source)?;
        Ok((Self { decisions, _threads: threads }, report))
    }

    /// The pool. Snapshots that are put there directly are neither counted nor flushed.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.decisions.pool()
    }

    /// Starts a put of an estimated `bytes` bytes. While the reservation is filled, more than that is admitted only if there is
    /// room at that time. If there is no room now, a flush makes some; meanwhile `waiting` is called every now and then, and
    /// returns whether to go on waiting.
    ///
    /// # Errors
    /// [`Error::Pool`] if the name or the labels are not valid, if the name is taken, or if the bytes are not admitted, with the
    /// numbers; [`Error::Flush`] if a snapshot in the folder that is not in the pool has the name.
    pub fn reserve(
        &self,
        name: &str,
        bytes: u64,
        labels: Labels,
        waiting: impl FnMut(LedgerUsage) -> bool,
    ) -> Result<AdmittedPut, Error> {
        self.decisions.reserve(name, bytes, labels, waiting)
    }

    /// Removes a snapshot from pool and folder. Once this has succeeded, no recovery brings the snapshot back under its name.
    ///
    /// # Errors
    /// [`Error::Pool`] if there is no such snapshot; [`Error::Flush`] if the file cannot be removed: then the snapshot is gone from
    /// the pool only.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.decisions.remove(name)
    }

    /// Makes every unflushed snapshot safe that can be, for example before the program ends.
    pub fn flush(&self, watch: Watch<'_>) -> FlushReport {
        self.decisions.flush_all(watch)
    }

    /// The present state of power, battery and unflushed bytes.
    #[must_use]
    pub fn status(&self) -> DurableStatus {
        self.decisions.status()
    }
}

#[cfg(test)]
mod tests;
