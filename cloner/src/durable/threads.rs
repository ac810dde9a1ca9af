//! The two threads of a durable pool: one watches the power, one flushes.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::core::{Core, Error, Settings};
use crate::battery::PowerSource;
use crate::sync::lock;

/// Dropping it ends both threads, as soon as a snapshot that is being written is done.
#[derive(Debug)]
pub(super) struct Threads {
    core: Arc<Core>,
    stop: Arc<Stop>,
    handles: Vec<JoinHandle<()>>,
}

/// Ends sleeps.
#[derive(Debug, Default)]
struct Stop {
    flag: AtomicBool,
    sleep: Mutex<()>,
    wake: Condvar,
}

impl Stop {
    fn is_set(&self) -> bool {
        self.flag.load(Ordering::Relaxed)
    }

    /// Sleeps, unless it is set.
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

impl Threads {
    pub(super) fn start(core: &Arc<Core>, mut source: Box<dyn PowerSource>) -> Result<Self, Error> {
        let stop = Arc::new(Stop::default());
        let mut threads = Self { core: Arc::clone(core), stop: Arc::clone(&stop), handles: Vec::new() };
        // Once before anything is admitted: the mains may have failed already.
        look(core, &mut *source);
        let (watched, stopped) = (Arc::clone(core), Arc::clone(&stop));
        threads.spawn("power", move || watch(&watched, &mut *source, &stopped))?;
        let (flushed, stopped) = (Arc::clone(core), stop);
        threads.spawn("flush", move || flush(&flushed, &stopped))?;
        Ok(threads)
    }

    fn spawn(&mut self, name: &str, body: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        let handle = thread::Builder::new().name(name.to_owned()).spawn(body).map_err(Error::Thread)?;
        self.handles.push(handle);
        Ok(())
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.stop.set();
        self.core.ledger().wake();
        for handle in self.handles.drain(..) {
            // A panic has been printed by the thread it happened on.
            let _ = handle.join();
        }
    }
}

fn watch(core: &Core, source: &mut dyn PowerSource, stop: &Stop) {
    let &Settings { poll, remeasure, .. } = core.settings();
    let mut measured = Instant::now();
    while !stop.is_set() {
        stop.sleep(poll);
        look(core, source);
        let status = core.status();
        if measured.elapsed() >= remeasure && status.state.has_mains() {
            measured = Instant::now();
            if let Err(error) = core.measure(false) {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the flush device cannot be measured"
                );
            }
        }
    }
}

fn look(core: &Core, source: &mut dyn PowerSource) {
    let reading = source.read();
    if let Err(error) = &reading {
        let error: &dyn std::error::Error = error;
        tracing::warn!(source = source.name(), error, "taken for failed mains");
    }
    core.observe(reading.as_ref().copied());
}

fn flush(core: &Core, stop: &Stop) {
    /// How long a thread that waits for the ledger goes without looking whether it is to end.
    const LOOK: Duration = Duration::from_millis(100);
    /// After a round in which something failed.
    const BACK_OFF: Duration = Duration::from_millis(200);
    let &Settings { flush_at, flush_to, .. } = core.settings();
    while !stop.is_set() {
        if !core.ledger().wait_for_excess(flush_at, LOOK) {
            continue;
        }
        let mut failed = BTreeSet::new();
        while !stop.is_set() && core.flush_step(flush_to, &mut failed) {}
        // Nothing left to try, and still too much: of what failed, or of puts that are under way.
        stop.sleep(if failed.is_empty() { LOOK / 10 } else { BACK_OFF });
    }
}
