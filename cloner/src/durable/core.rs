//! What a durable pool decides; without threads, so that a simulation can drive it step by step.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use crate::battery::{Battery, Charge, Clock, Mains, PowerState, Reading, SourceError};
use crate::flush::{self, FlushReport, FlushSettings, Flusher, Folder, Form, Gauge};
use crate::pool::{self, Labels, Ledger, Limit, Pool, PutOptions, Reservation, Usage, flushed_bytes};
use crate::rate::Rate;
use crate::sync::lock;
use crate::walk::{Progress, StartError};

/// Why a durable pool could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pool refused.
    #[error(transparent)]
    Pool(#[from] pool::Error),
    /// The folder refused.
    #[error(transparent)]
    Flush(#[from] flush::Error),
    /// No threads.
    #[error("threads")]
    Threads(#[from] StartError),
    /// No thread.
    #[error("cannot start a thread")]
    Thread(#[source] std::io::Error),
}

/// How a durable pool works.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// Threads that transcode and seal while flushing.
    pub threads: usize,
    /// Always this form, instead of the one that is sooner.
    pub form: Option<Form>,
    /// Bytes of one write; see [`FlushSettings`].
    pub buffer_bytes: usize,
    /// Bytes the device is measured with. Fewer say less, more take longer.
    pub probe_bytes: u64,
    /// Share of the limit at which a background flush begins, 0 to 1.
    pub flush_at: f64,
    /// Share of the limit at which it ends, 0 to `flush_at`.
    pub flush_to: f64,
    /// How often the power source is asked.
    pub poll: Duration,
    /// How often an idle device is measured again.
    pub remeasure: Duration,
}

impl Settings {
    /// The usual ones, with so many threads.
    #[must_use]
    pub const fn new(threads: usize) -> Self {
        let FlushSettings { form, buffer_bytes, .. } = FlushSettings::new(threads);
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
pub struct Admitted {
    /// To be filled, and sealed.
    pub reservation: Reservation,
    /// To be watched while it is filled: a power loss cancels it.
    pub progress: Arc<Progress>,
}

/// A durable pool at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Status {
    /// The power.
    pub state: PowerState,
    /// Charge of the battery, as a share of what it can have at its age.
    pub charge_share: f64,
    /// Time it would last, from now on.
    pub holdup: Duration,
    /// What the flush device does.
    pub rate: Rate,
    /// Unflushed bytes and their limit.
    pub usage: Usage,
}

impl Status {
    /// Unflushed bytes that the battery does not cover at this moment, because the limit was lowered and the flush has not caught up.
    #[must_use]
    pub const fn exposed_bytes(&self) -> u64 {
        self.usage.exposed_bytes()
    }
}

/// From a battery and a device to a limit. There is one; a test tries a wrong one.
pub(super) type Rule = fn(&Battery, Rate) -> Limit;

#[derive(Debug)]
pub(super) struct Core {
    pool: Arc<Pool>,
    ledger: Arc<Ledger>,
    flusher: Flusher,
    clock: Arc<dyn Clock>,
    power: Mutex<Power>,
    saves: Mutex<Vec<Weak<Progress>>>,
    settings: Settings,
    rule: Rule,
}

#[derive(Debug)]
struct Power {
    battery: Battery,
    state: PowerState,
    mains: Mains,
    /// When the battery was last charged or discharged.
    since: Duration,
}

impl Core {
    pub(super) fn new(
        pool: Arc<Pool>,
        folder: Arc<Folder>,
        battery: Battery,
        clock: Arc<dyn Clock>,
        settings: Settings,
    ) -> Result<Self, Error> {
        let Settings { threads, form, buffer_bytes, .. } = settings;
        // Until the device was measured it can do nothing, so nothing is admitted.
        let gauge = Gauge::new(Rate { bytes_per_second: 0.0, commit: Duration::ZERO }, buffer_bytes as u64);
        let how = FlushSettings { threads, form, buffer_bytes };
        let flusher = Flusher::new(Arc::clone(&pool), folder, gauge, Arc::clone(&clock), how)?;
        let power = Power { battery, state: PowerState::Mains, mains: Mains::Present, since: clock.now() };
        let ledger = Ledger::new(Limit { bytes: 0, per_snapshot_bytes: 0 });
        let (power, saves) = (Mutex::new(power), Mutex::default());
        Ok(Self { pool, ledger, flusher, clock, power, saves, settings, rule: Battery::limit })
    }

    pub(super) fn pool(&self) -> &Pool {
        &self.pool
    }

    pub(super) const fn settings(&self) -> &Settings {
        &self.settings
    }

    pub(super) const fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// Measures the device, and moves the limit by what was found.
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
        waiting: impl FnMut(Usage) -> bool,
    ) -> Result<Admitted, Error> {
        let folder = self.flusher.folder();
        if folder.lists(name) && self.pool.get(name).is_err() {
            let (folder, name) = (folder.place(), name.to_owned());
            return Err(flush::Error::NameOnDisk { folder, name }.into());
        }
        let progress = Arc::new(Progress::default());
        // Before the claim: a power loss from here on finds it.
        let mut saves = lock(&self.saves);
        saves.retain(|save| save.strong_count() > 0);
        saves.push(Arc::downgrade(&progress));
        drop(saves);
        let beside = flushed_bytes(0);
        let claim = self.ledger.claim_when_possible(bytes.saturating_add(beside), waiting);
        let claim = Some(claim.map_err(pool::Error::from)?);
        let options = PutOptions { labels, claim, ..PutOptions::default() };
        Ok(Admitted { reservation: self.pool.reserve_with(name, options)?, progress })
    }

    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        self.pool.remove(name)?;
        Ok(self.flusher.folder().remove(name)?)
    }

    /// Takes note of what a power source said. Time that has passed since the last call was spent as that one had it.
    pub(super) fn observe(&self, reading: Result<Reading, &SourceError>) {
        let mut power = self.lock();
        self.pass_time(&mut power);
        let (mains, charge, low) = match reading {
            Ok(Reading { mains, charge, low }) => (mains, charge, low),
            // What is not known to be there is not relied on.
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
            tracing::warn!(from = %before, to = %power.state, ?holdup, unflushed = ?self.ledger.usage(), "power");
        }
        self.move_limit(&power);
        if power.state.has_mains() {
            self.ledger.open();
        } else {
            self.ledger.close();
            self.cancel_saves();
        }
    }

    /// Flushes one snapshot, if anything has to be flushed: all of it without mains, else what is beyond `share` of the limit.
    /// Says whether there may be more. What failed is added to `skip`.
    pub(super) fn flush_step(&self, share: f64, skip: &mut BTreeSet<u128>) -> bool {
        let usage = self.ledger.usage();
        if usage.snapshots == 0 || (usage.open && !self.ledger.is_beyond(share)) {
            return false;
        }
        let outcome = self.flusher.flush_next(skip, &Progress::default());
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
                tracing::error!(snapshot = failure.name, error = why, "not safe");
                true
            }
        }
    }

    pub(super) fn flush_all(&self, progress: &Progress) -> FlushReport {
        let report = self.flusher.flush_all(progress);
        self.move_limit(&self.lock());
        report
    }

    pub(super) fn status(&self) -> Status {
        let mut power = self.lock();
        self.pass_time(&mut power);
        let Power { battery, state, .. } = &*power;
        Status {
            state: *state,
            charge_share: battery.charge_share(),
            holdup: battery.holdup(),
            rate: self.flusher.gauge().rate(),
            usage: self.ledger.usage(),
        }
    }

    fn pass_time(&self, power: &mut Power) {
        let now = self.clock.now();
        let passed = now.saturating_sub(power.since);
        power.since = now;
        match power.mains {
            Mains::Present => power.battery.recharge(passed),
            Mains::Failed => power.battery.discharge(passed),
        }
    }

    fn move_limit(&self, power: &Power) {
        let limit = (self.rule)(&power.battery, self.flusher.gauge().rate());
        self.ledger.set_limit(limit);
    }

    /// Encodes that run are of no use any more: what they make would not be admitted.
    fn cancel_saves(&self) {
        let saves = std::mem::take(&mut *lock(&self.saves));
        saves.iter().filter_map(Weak::upgrade).for_each(|save| save.cancel());
    }

    fn lock(&self) -> MutexGuard<'_, Power> {
        lock(&self.power)
    }

    /// Another battery and another rule, for a test.
    #[cfg(test)]
    pub(super) fn set(&mut self, battery: Battery, rule: Rule) {
        self.rule = rule;
        let mut power = self.lock();
        *power = Power { battery, state: PowerState::Mains, mains: Mains::Present, since: self.clock.now() };
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
