//! How much of a lazy clone's memory has arrived: for the threads that bring it, wait for it, or watch.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm::memory::MemoryLost;

use cloner_codec::chunk::PAGE_BYTES;

use crate::layout::{Chunk, PageNumber};
use crate::sync::lock;

use super::LossReason;

/// A missing page that the guest touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// The page that was touched.
    pub page: PageNumber,
    /// Time from noticing the fault until the page had arrived.
    pub time: Duration,
}

/// Pages of one chunk that this process itself needs.
#[derive(Debug, Clone)]
pub(super) struct PageRequest {
    pub(super) chunk: Chunk,
    pub(super) pages: Range<usize>,
}

/// Ends the VM.
pub(super) type OnLoss = Box<dyn FnOnce(&MemoryLost) + Send>;

/// Shared by the memory's threads, its owner, and watchers. It does not refer to the memory, so watching does not keep that alive.
#[derive(Debug)]
pub(super) struct ArrivalStatus {
    /// What `state.outcome` says, to be read without the lock.
    phase: AtomicU8,
    /// Pages that have arrived, out of `pages` that are to arrive.
    arrived: AtomicU64,
    pages: u64,
    state: Mutex<State>,
    changed: Condvar,
    started: Instant,
}

const FILLING: u8 = 0;
const COMPLETE: u8 = 1;
const LOST: u8 = 2;

struct State {
    outcome: Option<Result<Duration, MemoryLost>>,
    /// The memory has been dropped, so the threads end.
    gone: bool,
    prefetched: bool,
    fill_wanted: bool,
    on_loss: Option<OnLoss>,
    requests: VecDeque<PageRequest>,
    faults: Vec<Fault>,
}

impl std::fmt::Debug for State {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { outcome, gone, faults, .. } = self;
        write!(f, "{outcome:?}, gone: {gone}, {} faults", faults.len())
    }
}

impl ArrivalStatus {
    pub(super) fn new(started: Instant, pages: u64) -> Self {
        let state = State {
            outcome: None,
            gone: false,
            prefetched: false,
            fill_wanted: false,
            on_loss: None,
            requests: VecDeque::new(),
            faults: Vec::new(),
        };
        Self {
            phase: AtomicU8::new(FILLING),
            arrived: AtomicU64::new(0),
            pages,
            state: Mutex::new(state),
            changed: Condvar::new(),
            started,
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.phase.load(Ordering::Acquire) == COMPLETE
    }

    pub(super) fn is_lost(&self) -> bool {
        self.phase.load(Ordering::Acquire) == LOST
    }

    /// Whether the threads have nothing left to do. Once memory is lost, they go on refusing pages until it is dropped.
    pub(super) fn is_over(&self) -> bool {
        self.is_complete() || self.lock().gone
    }

    /// Whether no further page is to be brought.
    pub(super) fn is_settled(&self) -> bool {
        self.is_lost() || self.is_over()
    }

    /// Notes that everything has arrived.
    pub(super) fn complete(&self) {
        let mut state = self.lock();
        if state.outcome.is_none() {
            state.outcome = Some(Ok(self.started.elapsed()));
            self.phase.store(COMPLETE, Ordering::Release);
        }
        drop(state);
        self.changed.notify_all();
    }

    /// Notes that some of the memory will never arrive. Only the first loss counts. When this returns, the VM has been ended.
    pub(super) fn lose(&self, loss: LossReason) {
        let is_dropped = matches!(loss, LossReason::Dropped);
        let lost = MemoryLost::new(loss);
        let mut state = self.lock();
        if state.outcome.is_some() {
            return;
        }
        if is_dropped {
            tracing::debug!("a lazy clone was dropped before all of its memory had arrived");
        } else {
            tracing::warn!(reason = lost.reason(), "the memory of a lazy clone is lost");
        }
        state.outcome = Some(Err(lost.clone()));
        self.phase.store(LOST, Ordering::Release);
        let on_loss = state.on_loss.take();
        drop(state);
        if let Some(stop) = on_loss {
            stop(&lost);
        }
        self.changed.notify_all();
    }

    pub(super) fn on_loss(&self, stop: OnLoss) {
        let mut state = self.lock();
        if let Some(Err(lost)) = &state.outcome {
            let lost = lost.clone();
            drop(state);
            stop(&lost);
        } else {
            state.on_loss = Some(stop);
        }
    }

    pub(super) fn go(&self) {
        self.lock().gone = true;
        self.changed.notify_all();
    }

    pub(super) fn prefetched(&self) {
        self.lock().prefetched = true;
        self.changed.notify_all();
    }

    pub(super) fn want_fill(&self) {
        self.lock().fill_wanted = true;
        self.changed.notify_all();
    }

    /// Waits until something needs all of the memory, but no longer than `limit`; `false` if there is nothing left to do.
    pub(super) fn wait_for_wish(&self, limit: Option<Duration>) -> bool {
        let idle = |state: &mut State| !state.fill_wanted && !state.gone && state.outcome.is_none();
        let state = self.lock();
        let state = match limit {
            Some(limit) => {
                let waited = self.changed.wait_timeout_while(state, limit, idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.changed.wait_while(state, idle).unwrap_or_else(PoisonError::into_inner),
        };
        !state.gone && state.outcome.is_none()
    }

    /// Waits until something has changed, but no longer than `limit`.
    pub(super) fn nap(&self, limit: Duration) {
        let state = self.lock();
        if !state.gone && !matches!(state.outcome, Some(Ok(_))) {
            drop(self.changed.wait_timeout(state, limit));
        }
    }

    pub(super) fn request(&self, request: PageRequest) {
        self.lock().requests.push_back(request);
    }

    pub(super) fn next_request(&self) -> Option<PageRequest> {
        self.lock().requests.pop_front()
    }

    /// Wakes the threads that may be waiting for pages that have arrived.
    pub(super) fn arrived(&self) {
        // Under the lock, so that no thread misses it between looking and waiting.
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// Waits until `there` holds, or everything has arrived.
    pub(super) fn wait_until(&self, mut there: impl FnMut() -> bool) -> Result<(), MemoryLost> {
        let mut state = self.lock();
        loop {
            match &state.outcome {
                Some(Ok(_)) => return Ok(()),
                _ if there() => return Ok(()),
                Some(Err(lost)) => return Err(lost.clone()),
                None if state.gone => return Err(MemoryLost::new(LossReason::Dropped)),
                None => {}
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(super) fn has_arrived(&self, pages: u64) {
        self.arrived.fetch_add(pages, Ordering::Relaxed);
    }

    pub(super) fn record(&self, fault: Fault) {
        self.lock().faults.push(fault);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Every change is complete when the lock is free.
        lock(&self.state)
    }
}

/// Watches the memory of a lazy clone arrive, without keeping it alive.
#[derive(Debug, Clone)]
pub struct Fill(pub(super) Arc<ArrivalStatus>);

impl Fill {
    /// Whether all of the memory is there.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.0.is_complete()
    }

    /// Bytes of memory that are to arrive: those of all pages in chunks that the source has touched.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        self.0.pages * PAGE_BYTES as u64
    }

    /// Bytes that have arrived; equals [`total_bytes`](Self::total_bytes) when all of the memory is there.
    #[must_use]
    pub fn arrived_bytes(&self) -> u64 {
        if self.is_complete() {
            return self.total_bytes();
        }
        self.0.arrived.load(Ordering::Relaxed) * PAGE_BYTES as u64
    }

    /// Waits until all of the memory is there. Without a background fill, that happens only if something asks for it: to do so,
    /// call [`GuestMemory::supply_all`](vmm::memory::GuestMemory::supply_all).
    ///
    /// # Errors
    /// [`MemoryLost`] with the reason if the memory was lost, or was dropped before all of it had arrived.
    pub fn wait(&self) -> Result<(), MemoryLost> {
        self.0.wait_until(|| false)
    }

    /// Time from the request until all of the memory was there; `None` if it is not yet, or was lost.
    #[must_use]
    pub fn time(&self) -> Option<Duration> {
        self.0.lock().outcome.as_ref().and_then(|outcome| outcome.as_ref().ok().copied())
    }

    /// The faults served so far, in order. Pages that this process asked for itself are not among them.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.0.lock().faults.clone()
    }

    pub(super) fn wait_prefetched(&self) -> Result<(), MemoryLost> {
        let mut state = self.0.lock();
        while !state.prefetched {
            if let Some(Err(lost)) = &state.outcome {
                return Err(lost.clone());
            }
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        Ok(())
    }
}
