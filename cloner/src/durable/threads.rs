//! The two threads of a durable pool: one watches the power, one flushes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::decisions::{Decisions, DurableSettings, Error};
use crate::battery::PowerSource;
use crate::sync::lock;

/// The two threads. Dropping this ends both, once a snapshot that is being written is done.
#[derive(Debug)]
pub(super) struct BackgroundThreads {
    decisions: Arc<Decisions>,
    stop: Arc<StopSignal>,
    handles: Vec<JoinHandle<()>>,
}

/// Tells the threads to end, and wakes them from their sleep.
#[derive(Debug, Default)]
struct StopSignal {
    flag: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl StopSignal {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Sleeps for at most `time`, or not at all if the stop is set.
    fn sleep(&self, time: Duration) {
        let guard = lock(&self.sleep);
        if !self.is_set() {
            drop(self.wake.wait_timeout(guard, time));
        }
    }

    fn set(&self) {
        let _guard = lock(&self.sleep);
        self.flag.store(true, Ordering::Relaxed);
        self.wake.notify_all();
    }
}

impl BackgroundThreads {
    pub(super) fn start(decisions: &Arc<Decisions>, mut source: Box<dyn PowerSource>) -> Result<Self, Error> {
        let stop = Arc::new(StopSignal::default());
        let mut threads =
            Self { decisions: Arc::clone(decisions), stop: Arc::clone(&stop), handles: Vec::new() };
        // Read once before anything is admitted, because the mains may have failed already.
        look(decisions, &mut *source);
        let (watched, stopped) = (Arc::clone(decisions), Arc::clone(&stop));
        threads.spawn("power", move || watch(&watched, &mut *source, &stopped))?;
        let (flushed, stopped) = (Arc::clone(decisions), stop);
        threads.spawn("flush", move || flush(&flushed, &stopped))?;
        Ok(threads)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let handle = thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::Thread)?;
        self.handles.push(handle);
        Ok(())
    }
}

impl Drop for BackgroundThreads {
    fn drop(&mut self) {
        self.stop.set();
        self.decisions.ledger().wake();
        for handle in self.handles.drain(..) {
            // A panic was printed by the thread on which it happened.
            let _ = handle.join();
        }
    }
}

fn watch(decisions: &Decisions, source: &mut dyn PowerSource, stop: &StopSignal) {
    let &DurableSettings { poll, remeasure, .. } = decisions.settings();
    let mut measured = Instant::now();
    while !stop.is_set() {
        stop.sleep(poll);
        look(decisions, source);
        let status = decisions.status();
        if measured.elapsed() >= remeasure && status.state.has_mains() {
            measured = Instant::now();
            if let Err(error) = decisions.measure(false) {
                tracing::warn!(error = &error as &dyn std::error::Error, "cannot measure the flush device");
            }
        }
    }
}

fn look(decisions: &Decisions, source: &mut dyn PowerSource) {
    let reading = source.read();
    if let Err(error) = &reading {
        let error: &dyn std::error::Error = error;
        tracing::warn!(
            source = source.name(),
            error,
            "cannot read the power source, so the mains count as failed"
        );
    }
    decisions.observe(reading.as_ref().copied());
}

fn flush(decisions: &Decisions, stop: &StopSignal) {
    /// The longest wait for the ledger before this thread looks whether it must end.
    const LOOK: Duration = Duration::from_millis(100);
    /// Pause after a round in which something failed.
    const BACK_OFF: Duration = Duration::from_millis(200);
    let &DurableSettings { flush_at, flush_to, .. } = decisions.settings();
    while !stop.is_set() {
        if !decisions.ledger().wait_for_excess(flush_at, LOOK) {
            continue;
        }
        let mut failed = BTreeSet::new();
        while !stop.is_set() && decisions.flush_step(flush_to, &mut failed) {}
        // Nothing is left to try, but still too much is unflushed: snapshots that failed, or puts that are under way.
        stop.sleep(if failed.is_empty() { LOOK / 10 } else { BACK_OFF });
    }
}
