//! The decisions of a durable pool. There are no threads here, so that a simulation can drive it step by step.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use crate::battery::{Battery, Charge, Clock, Mains, PowerReading, PowerState, SourceError};
use crate::flush::{self, FlushReport, FlushSettings, Flusher, Folder, Form, Gauge};
use crate::pool::{
    self, Labels, Ledger, LedgerUsage, Pool, PutOptions, Reservation, UnflushedLimit, flushed_bytes,
};
use crate::progress::{Cancel, Watch};
use crate::rate::Rate;
use crate::sync::lock;
use crate::walk::{StartError, Threads};

/// Why a durable pool could not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pool refused.
    #[error(transparent)]
    Pool(#[from] pool::Error),
    /// Flushing or recovering failed, or the folder has the name already.
    #[error(transparent)]
    Flush(#[from] flush::Error),
    /// The threads that recover, or those that transcode and encrypt, could not be started.
    #[error("cannot start the threads that recover and flush")]
    Threads(#[from] StartError),
    /// The thread that watches the power or the one that flushes could not be started.
    #[error("cannot start a thread of the durable pool")]
    Thread(#[source] std::io::Error),
}

/// How a durable pool works.
#[derive(Debug, Clone, Copy)]
pub struct DurableSettings {
    /// Number of threads that transcode and encrypt while flushing. They are the durable pool's own, so that a save never waits for
    /// a flush.
    pub threads: usize,
    /// Always use this form, instead of the one that is safe sooner.
    pub form: Option<Form>,
    /// Bytes of one write; see [`FlushSettings`].
    pub buffer_bytes: usize,
    /// Bytes that are written to measure the device. Fewer bytes measure less well, more take longer.
    pub probe_bytes: u64,
    /// Share of the limit at which a background flush begins, 0 to 1.
    pub flush_at: f64,
    /// Share of the limit at which a background flush ends, 0 to `flush_at`.
    pub flush_to: f64,
    /// Time between two readings of the power source.
    pub poll: Duration,
    /// Time between two measurements of the device. It is not measured without mains power.
    pub remeasure: Duration,
}

impl DurableSettings {
    /// The usual settings, with this number of threads.
    #[must_use]
    pub fn new(threads: usize) -> Self {
        let FlushSettings { form, buffer_bytes, .. } = FlushSettings::default();
        Self {
            threads,
            form,
            buffer_bytes,
            probe_bytes: 64 << 20,
            flush_at: 0.7,
            flush_to: 0.3,
            poll: Duration::from_millis(200),
            remeasure: Duration::from_secs(60),
        }
    }
}

/// A put that was admitted.
#[derive(Debug)]
pub struct AdmittedPut {
    /// The reservation that the caller fills and then publishes.
    pub reservation: Reservation,
    /// A power loss cancels this, so the caller has to stop filling the reservation then; a save that is given it does.
    pub cancel: Arc<Cancel>,
}

/// The state of a durable pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DurableStatus {
    /// What is known about the power.
    pub state: PowerState,
    /// Charge of the battery, as a share (0 to 1) of what it can hold at its age.
    pub charge_share: f64,
    /// Time for which the battery would supply the host from now on.
    pub holdup: Duration,
    /// Estimated rate of the flush device.
    pub rate: Rate,
    /// Number of unflushed bytes, and their limit.
    pub usage: LedgerUsage,
}

impl DurableStatus {
    /// Unflushed bytes that the battery does not cover at this moment, because the limit was lowered and the flush has not caught
    /// up.
    #[must_use]
    pub const fn exposed_bytes(&self) -> u64 {
        self.usage.exposed_bytes()
    }
}

/// Derives the limit from a battery and a device. The product uses one rule; a test tries wrong ones.
pub(super) type LimitRule = fn(&Battery, Rate) -> UnflushedLimit;

#[derive(Debug)]
pub(super) struct Decisions {
    pool: Arc<Pool>,
    ledger: Arc<Ledger>,
    flusher: Flusher,
    clock: Arc<dyn Clock>,
    power: Mutex<PowerRecord>,
    saves: Mutex<Vec<Weak<Cancel>>>,
    settings: DurableSettings,
    rule: LimitRule,
}

#[derive(Debug)]
struct PowerRecord {
    battery: Battery,
    state: PowerState,
    mains: Mains,
    /// Time at which the battery model was last brought up to date.
    since: Duration,
}

impl Decisions {
    pub(super) fn new(
        pool: Arc<Pool>,
        folder: Arc<Folder>,
        battery: Battery,
        clock: Arc<dyn Clock>,
        settings: DurableSettings,
    ) -> Result<Self, Error> {
        let DurableSettings { threads, form, buffer_bytes, .. } = settings;
        // Until the device has been measured its rate is zero, so nothing is admitted.
        let gauge = Gauge::new(Rate { bytes_per_second: 0.0, commit: Duration::ZERO }, buffer_bytes as u64);
        let how = FlushSettings { clock: Arc::clone(&clock), form, buffer_bytes };
        // Not those of the caller's tools: a walk occupies its threads, and a save that began during a flush would wait for it while
        // its source stands still.
        let own = Threads::new(threads)?;
        let flusher = Flusher::new(&own, Arc::clone(&pool), folder, gauge, how)?;
        let power =
            PowerRecord { battery, state: PowerState::Mains, mains: Mains::Present, since: clock.now() };
        let ledger = Ledger::new(UnflushedLimit { bytes: 0, per_snapshot_bytes: 0 });
        let (power, saves) = (Mutex::new(power), Mutex::default());
        Ok(Self { pool, ledger, flusher, clock, power, saves, settings, rule: Battery::limit })
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) const fn settings(&self) -> &DurableSettings {
        &self.settings
    }

    pub(super) const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Measures the device, and adapts the limit to the result.
    pub(super) fn measure(&self, first: bool) -> Result<Rate, Error> {
        let rate = self.flusher.measure(self.settings.probe_bytes, first)?;
        self.move_limit(&self.lock());
        Ok(rate)
    }

    pub(super) fn reserve(
        &self,
        name: &str,
        bytes: u64,
        labels: Labels,
        waiting: impl FnMut(LedgerUsage) -> bool,
    ) -> Result<AdmittedPut, Error> {
        let folder = self.flusher.folder();
        if folder.lists(name) && self.pool.get(name).is_err() {
            let (folder, name) = (folder.place(), name.to_owned());
            return Err(flush::Error::NameOnDisk { folder, name }.into());
        }
        let cancel = Arc::new(Cancel::new());
        // Before the claim: a power loss from here on finds it.
        let mut saves = lock(&self.saves);
        saves.retain(|save| save.strong_count() > 0);
        saves.push(Arc::downgrade(&cancel));
        drop(saves);
        let beside = flushed_bytes(0);
        let claim = self.ledger.claim_when_possible(bytes.saturating_add(beside), waiting);
        let claim = Some(claim.map_err(pool::Error::from)?);
        let options = PutOptions { labels, claim, ..PutOptions::default() };
        Ok(AdmittedPut { reservation: self.pool.reserve_with(name, options)?, cancel })
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        self.pool.remove(name)?;
        Ok(self.flusher.folder().remove(name)?)
    }

    /// Takes note of what a power source reported. The time since the last call counts as charging or discharging by the report of
    /// that call.
    pub(super) fn observe(&self, reading: Result<PowerReading, &SourceError>) {
        let mut power = self.lock();
        self.pass_time(&mut power);
        let (mains, charge, low) = match reading {
            Ok(PowerReading { mains, charge, low }) => (mains, charge, low),
            // Power that is not known to be there is not relied on.
            Err(_) => (Mains::Failed, Charge::Unknown, false),
        };
        if let Charge::Share(share) = charge {
            power.battery.set_charge_share(share);
        }
        let before = power.state;
        power.mains = mains;
        power.state = before.next(mains, low, &power.battery);
        if before != power.state {
            let holdup = power.battery.holdup();
            tracing::warn!(from = %before, to = %power.state, ?holdup, unflushed = ?self.ledger.usage(), "power changed");
        }
        self.move_limit(&power);
        if power.state.has_mains() {
            self.ledger.open();
        } else {
            self.ledger.close();
            self.cancel_saves();
        }
    }

    /// Flushes one snapshot, if any must be flushed: with mains, while more than `share` of the limit is used; without mains, until
    /// none is unflushed. Returns whether there may be more to flush. A snapshot that failed is added to `skip`.
    pub(super) fn flush_step(&self, share: f64, skip: &mut BTreeSet<u128>) -> bool {
        let usage = self.ledger.usage();
        if usage.snapshots == 0 || (usage.open && !self.ledger.is_beyond(share)) {
            return false;
        }
        let outcome = self.flusher.flush_next(skip, Watch::default());
        {
            let mut power = self.lock();
            self.pass_time(&mut power);
            self.move_limit(&power);
        }
        match outcome {
            None => false,
            Some(Ok(_)) => true,
            Some(Err(failure)) => {
                let why: &dyn std::error::Error = &failure.why;
                tracing::error!(snapshot = failure.name, error = why, "the snapshot could not be made safe");
                true
            }
        }
    }

    pub(super) fn flush_all(&self, watch: Watch<'_>) -> FlushReport {
        let report = self.flusher.flush_all(watch);
        self.move_limit(&self.lock());
        report
    }

    pub(super) fn status(&self) -> DurableStatus {
        let mut power = self.lock();
        self.pass_time(&mut power);
        let PowerRecord { battery, state, .. } = &*power;
        DurableStatus {
            state: *state,
            charge_share: battery.charge_share(),
            holdup: battery.holdup(),
            rate: self.flusher.gauge().rate(),
            usage: self.ledger.usage(),
        }
    }

    fn pass_time(&self, power: &mut PowerRecord) {
        let now = self.clock.now();
        let passed = now.saturating_sub(power.since);
        power.since = now;
        match power.mains {
            Mains::Present => power.battery.recharge(passed),
            Mains::Failed => power.battery.discharge(passed),
        }
    }

    fn move_limit(&self, power: &PowerRecord) {
        let limit = (self.rule)(&power.battery, self.flusher.gauge().rate());
        self.ledger.set_limit(limit);
    }

    /// Cancels all running encodes, because their results would no longer be admitted.
    fn cancel_saves(&self) {
        let saves = std::mem::take(&mut *lock(&self.saves));
        saves.iter().filter_map(Weak::upgrade).for_each(|save| save.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, PowerRecord> {
        lock(&self.power)
    }

    /// Installs another battery and another rule, for a test.
    #[cfg(test)]
    pub(super) fn set(&mut self, battery: Battery, rule: LimitRule) {
        self.rule = rule;
        let mut power = self.lock();
        *power =
            PowerRecord { battery, state: PowerState::Mains, mains: Mains::Present, since: self.clock.now() };
        self.move_limit(&power);
    }

    /// Lets the battery grow older, for a test.
    #[cfg(test)]
    pub(super) fn age(&self, years: f64) {
        let mut power = self.lock();
        power.battery.age(years);
        self.move_limit(&power);
    }
}
