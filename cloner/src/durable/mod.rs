//! A pool that survives the mains.
//!
//! ```text
//!   PowerSource ─► watch: Battery, PowerState ─► limit, open or closed ─┐
//!        gauge of the device ───────────────────────────────────────────┤
//!                                                                       ▼
//!   reserve(name, bytes) ─► claim ─► Reservation ─► seal ─► unflushed: Ledger ─► Flusher ─► Folder: safe
//! ```
//!
//! # The promise
//! At any moment, the bytes that are in the pool and not on the disk are no more than can be written before the battery is empty: by the
//! charge it has, at the rate the device had when it was measured last, less a margin. So whatever was admitted is safe when the mains
//! fail. It is kept in three ways:
//!
//! * *Admission*: a put claims its bytes first. If they do not fit, a flush makes room while the put waits, or it is refused with the numbers.
//! * *Shrinking*: a battery that ages or discharges, or a device that got slower, lowers the limit at once, and what is beyond it is flushed
//!   at once. Until that is done, [`Status::exposed_bytes`] says how much is not covered; nothing is admitted meanwhile.
//! * *Power loss*: admission closes, running encodes are cancelled, and what is unflushed goes out by priority, then size.
//!
//! What it does not cover: a device that gets slower by more than the margin, or a load that grows by more than it, between the last
//! measurement and the failure. The test `durable::tests::schedules` holds all of this on a simulated clock.

mod core;
mod threads;

use std::sync::Arc;

pub use self::core::{Admitted, Error, Settings, Status};

use self::core::Core;
use self::threads::Threads;
use crate::battery::{Battery, PowerSource, RealClock};
use crate::flush::{Cleaning, FlushReport, Folder, RecoverReport, Recoverer};
use crate::pool::{Labels, Pool, Usage};
use crate::walk::Progress;

/// A pool, the folder it is flushed to, and the battery that protects what is not flushed yet. Shared by reference; every method may be
/// called from any thread. Dropping it ends its two threads and flushes nothing: see [`DurablePool::flush`].
#[derive(Debug)]
pub struct DurablePool {
    core: Arc<Core>,
    // Before the core is given up, they have ended.
    _threads: Threads,
}

impl DurablePool {
    /// Recovers `folder` into `pool`, measures the device, and starts watching `source`.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(
        pool: Arc<Pool>,
        folder: Folder,
        (battery, source): (Battery, Box<dyn PowerSource>),
        settings: Settings,
        progress: &Progress,
    ) -> Result<(Self, RecoverReport), Error> {
        let recoverer = Recoverer::new(settings.threads.max(2) * 2)?;
        let report = recoverer.recover(&folder, &pool, (|_: &str| true, Cleaning::Delete), progress)?;
        let core =
            Arc::new(Core::new(pool, Arc::new(folder), battery, Arc::new(RealClock::new()), settings)?);
        core.measure(true)?;
        let threads = Threads::start(&core, source)?;
        Ok((Self { core, _threads: threads }, report))
    }

    /// The pool. What is put there directly is not counted and not flushed.
    #[must_use]
    pub fn pool(&self) -> &Pool {
        self.core.pool()
    }

    /// Starts a put of at most `bytes` bytes, as far as can be known: more is admitted while it is filled only if there is room then. If there is
    /// no room now, a flush makes some; `waiting` is called now and then and says whether to go on waiting.
    ///
    /// # Errors
    /// [`Error::Pool`], with the numbers if it was refused; [`Error::Flush`] for a name that the folder has and the pool has not.
    pub fn reserve(
        &self,
        name: &str,
        bytes: u64,
        labels: Labels,
        waiting: impl FnMut(Usage) -> bool,
    ) -> Result<Admitted, Error> {
        self.core.reserve(name, bytes, labels, waiting)
    }

    /// Removes a snapshot from pool and folder. When this returns, it does not come back.
    ///
    /// # Errors
    /// [`Error::Pool`] if there is none; [`Error::Flush`] if the folder refuses: then it is gone from the pool only.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.core.remove(name)
    }

    /// Makes everything safe that can be, for example before the program ends.
    pub fn flush(&self, progress: &Progress) -> FlushReport {
        self.core.flush_all(progress)
    }

    /// How it stands with power, battery and unflushed bytes.
    #[must_use]
    pub fn status(&self) -> Status {
        self.core.status()
    }
}

#[cfg(test)]
mod tests;
