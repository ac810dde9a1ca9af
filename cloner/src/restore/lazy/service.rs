//! The threads that bring a lazy clone's memory: one serves faults, one fills in the background, one watches the two.

use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES};
use vmm::memory::{MemoryLost, Supplier};

use crate::layout::PageNumber;
use crate::sync::{into_inner, lock};

use super::pager::{PageInChunk, Pager, ZeroPages};
use super::status::{ArrivalStatus, Fault, OnLoss, PageRequest};
use super::{LazyOptions, LossReason};

/// The longest that the server sleeps if nothing wakes it. Something always should: this only limits the effect of a mistake.
const IDLE: Duration = Duration::from_secs(3600);
/// Pause after an error from the kernel, which may keep coming back.
const BACK_OFF: Duration = Duration::from_millis(10);

/// Serves the memory of one lazy clone until it is complete or dropped.
#[derive(Debug)]
pub(super) struct Service {
    /// Owned by the threads: when the last of them ends, source and descriptor are closed.
    pager: Weak<Pager>,
    status: Arc<ArrivalStatus>,
    server: Worker,
    filler: Worker,
    watchdog: Option<JoinHandle<()>>,
    /// The longest that one request may take.
    limit: Duration,
}

/// A thread that asks the source for pages, and may have to wait forever.
#[derive(Debug)]
struct Worker {
    status: Arc<WorkerStatus>,
    /// The thread, and what is disconnected when it has ended.
    thread: Option<(JoinHandle<()>, Mutex<Receiver<Infallible>>)>,
}

/// What a worker is doing, for the watchdog.
#[derive(Debug)]
struct WorkerStatus {
    name: &'static str,
    epoch: Instant,
    /// Nanoseconds from `epoch` to the beginning of the request; 0 between requests.
    since: AtomicU64,
    /// The fault that is being served, if the request is a fault.
    fault: Mutex<Option<PageInChunk>>,
}

impl WorkerStatus {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self { name, epoch: Instant::now(), since: AtomicU64::new(0), fault: Mutex::new(None) })
    }

    /// Does work that the watchdog limits in time.
    fn during<T>(&self, fault: Option<PageInChunk>, work: impl FnOnce() -> T) -> T {
        *lock(&self.fault) = fault;
        let now = u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.since.store(now.max(1), Ordering::Release);
        let result = work();
        self.since.store(0, Ordering::Release);
        result
    }

    fn has_taken(&self) -> Duration {
        match self.since.load(Ordering::Acquire) {
            0 => Duration::ZERO,
            since => self.epoch.elapsed().saturating_sub(Duration::from_nanos(since)),
        }
    }

    fn fault(&self) -> Option<PageInChunk> {
        *lock(&self.fault)
    }
}

impl Worker {
    fn idle(name: &'static str) -> Self {
        Self { status: WorkerStatus::new(name), thread: None }
    }

    fn start(&mut self, name: &str, body: impl FnOnce(&WorkerStatus) + Send + 'static) -> io::Result<()> {
        let (ending, ended) = channel();
        let status = Arc::clone(&self.status);
        let thread = Builder::new().name(name.into()).spawn(move || {
            body(&status);
            drop(ending);
        })?;
        self.thread = Some((thread, Mutex::new(ended)));
        Ok(())
    }

    /// Waits for the thread to end. If one request takes it longer than `limit`, it is left behind, with all it holds, until its
    /// source returns. The mapping stays alive for it.
    fn end(&mut self, limit: Duration) {
        let Some((thread, ended)) = self.thread.take() else { return };
        let (ended, mut left) = (into_inner(ended), limit);
        while ended.recv_timeout(left) == Err(RecvTimeoutError::Timeout) {
            let taken = self.status.has_taken();
            if taken > limit {
                return;
            }
            left = limit - taken;
        }
        join(thread);
    }
}

impl Service {
    /// Starts the threads; the filler brings `first` before anything else.
    pub(super) fn start(pager: Pager, options: &LazyOptions, first: Vec<PageNumber>) -> io::Result<Self> {
        let pager = Arc::new(pager);
        let mut service = Self {
            pager: Arc::downgrade(&pager),
            status: Arc::clone(&pager.status),
            server: Worker::idle("fault handler"),
            filler: Worker::idle("background fill"),
            watchdog: None,
            limit: options.limit,
        };
        // If one cannot be started, dropping `service` ends those that were.
        let own = Arc::clone(&pager);
        service.server.start("lazy-serve", move |status| serve_always(&own, status))?;
        let (own, background) = (Arc::clone(&pager), options.background);
        let fill = move |status: &_| guarded(&own, status, || fill(&own, status, &first, background));
        service.filler.start("lazy-fill", fill)?;
        let limit = options.limit;
        let statuses = [&service.server, &service.filler].map(|worker| Arc::clone(&worker.status));
        let watch = move || watch(&pager, &statuses, limit);
        service.watchdog = Some(Builder::new().name("lazy-watch".into()).spawn(watch)?);
        Ok(service)
    }

    fn pager(&self) -> Result<Arc<Pager>, MemoryLost> {
        // The threads keep it until everything has arrived or this is dropped.
        self.pager.upgrade().ok_or_else(|| MemoryLost::new(LossReason::Dropped))
    }
}

impl Supplier for Service {
    fn supply(&self, region: usize, offset: usize, len_bytes: usize) -> Result<(), MemoryLost> {
        if len_bytes == 0 || self.status.is_complete() {
            return Ok(());
        }
        let pager = match self.pager() {
            Ok(pager) => pager,
            // Everything has arrived since the check above.
            Err(_) if self.status.is_complete() => return Ok(()),
            Err(lost) => return Err(lost),
        };
        let end = offset + len_bytes;
        let mut at = offset;
        while at < end {
            let Some(PageInChunk { chunk, page }) = pager.at_offset(region, at) else { break };
            let pages_end = chunk.pages.min((end - chunk.offset).div_ceil(PAGE_BYTES));
            let there = || (page..pages_end).all(|page| pager.is_present(&chunk, page));
            if !there() {
                self.status.request(PageRequest { chunk, pages: page..pages_end });
                pager.wake_server();
                self.status.wait_until(there)?;
            }
            at = chunk.offset + CHUNK_BYTES;
        }
        Ok(())
    }

    fn supply_all(&self) -> Result<(), MemoryLost> {
        self.status.want_fill();
        self.status.wait_until(|| false)
    }

    fn on_loss(&self, stop: OnLoss) {
        self.status.on_loss(stop);
    }

    fn give_up(&self) {
        if self.status.is_complete() {
            return;
        }
        // The vCPUs are told to stop before they see an error.
        self.status.lose(LossReason::Dropped);
        // This thread refuses the pages, because the server may be waiting for a source that never answers.
        if let Some(Err(error)) = self.pager.upgrade().map(|pager| pager.refuse_all()) {
            tracing::error!(%error, "cannot refuse the pages that are missing");
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.status.go();
        if let Some(pager) = self.pager.upgrade() {
            pager.wake_server();
        }
        self.server.end(self.limit);
        self.filler.end(self.limit);
        if let Some(thread) = self.watchdog.take() {
            join(thread);
        }
    }
}

fn join(thread: JoinHandle<()>) {
    if thread.join().is_err() {
        tracing::error!("a thread of a lazy clone panicked");
    }
}

/// Runs a worker's body. If it panics, the memory is lost.
fn guarded(pager: &Pager, status: &WorkerStatus, body: impl FnOnce()) {
    // A panic leaves at most one page half done, and that page is not installed yet.
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        status.since.store(0, Ordering::Release);
        pager.status.lose(LossReason::Died(status.name));
        if let Some(place) = status.fault() {
            refuse(pager, &place);
        }
    }
}

fn serve_always(pager: &Pager, status: &WorkerStatus) {
    // Once more after a panic: to refuse the pages that can no longer be served.
    guarded(pager, status, || serve(pager, status));
    if !pager.status.is_over() {
        serve(pager, status);
    }
}

/// Serves faults and requests until it is over; once memory is lost, refuses them.
fn serve(pager: &Pager, status: &WorkerStatus) {
    let mut scratch = vec![0; CHUNK_BYTES];
    while !pager.status.is_over() {
        serve_next(pager, status, IDLE, &mut scratch);
    }
    // A watchdog may be serving as well, and may have missed the wake-up.
    pager.wake_server();
}

/// Waits for faults and requests, but no longer than `limit`, and serves those that have come.
fn serve_next(pager: &Pager, status: &WorkerStatus, limit: Duration, scratch: &mut [u8]) {
    let woken = pager.userfault.wait(&pager.waker, limit);
    if let Err(error) = woken.and_then(|()| serve_all(pager, status, scratch)) {
        pager.status.lose(LossReason::Kernel(error));
        thread::sleep(BACK_OFF);
    }
}

/// Serves all faults and requests that are waiting at the moment.
fn serve_all(pager: &Pager, status: &WorkerStatus, scratch: &mut [u8]) -> io::Result<()> {
    // Resets the event; whether it had been signalled does not matter.
    let _ = pager.waker.read();
    while let Some(address) = pager.userfault.next_fault()? {
        let Some(place) = pager.at_address(address) else { continue };
        let noticed = Instant::now();
        if !pager.status.is_lost() {
            match status.during(Some(place), || pager.bring_around(&place, scratch)) {
                Ok(()) => pager.status.record(Fault { page: place.number(), time: noticed.elapsed() }),
                Err(loss) => pager.status.lose(loss),
            }
        }
        if pager.status.is_lost() {
            refuse(pager, &place);
        }
    }
    while let Some(PageRequest { chunk, pages }) = pager.status.next_request() {
        if !pager.status.is_settled() {
            let brought = status.during(None, || pager.bring(&chunk, pages, ZeroPages::Install, scratch));
            brought.unwrap_or_else(|loss| pager.status.lose(loss));
        }
        pager.status.arrived();
    }
    Ok(())
}

fn refuse(pager: &Pager, place: &PageInChunk) {
    if let Err(error) = pager.refuse(place) {
        // The VM has been ended and its vCPUs kicked; newer kernels release a kicked vCPU all the same.
        tracing::error!(%error, ?place, "cannot refuse a page");
    }
}

/// Brings the working set first and then, once it is wanted or `background` has passed, everything.
fn fill(pager: &Pager, status: &WorkerStatus, first: &[PageNumber], background: Option<Duration>) {
    let mut scratch = vec![0; CHUNK_BYTES];
    let bring = |work: &mut dyn FnMut() -> Result<(), LossReason>| {
        if pager.status.is_settled() {
            return false;
        }
        let result = status.during(None, work);
        result.map_err(|loss| pager.status.lose(loss)).is_ok()
    };
    let places = first.iter().filter_map(|number| pager.at_number(*number));
    for place in places {
        if !bring(&mut || pager.bring_around(&place, &mut scratch)) {
            return;
        }
    }
    pager.status.prefetched();
    if !pager.status.wait_for_wish(background) {
        return;
    }
    for chunk in pager.chunks() {
        if !bring(&mut || pager.bring(chunk, 0..chunk.pages, ZeroPages::Leave, &mut scratch)) {
            return;
        }
    }
    if let Err(loss) = pager.complete() {
        pager.status.lose(loss);
    }
}

/// Makes sure that no worker takes longer than `limit` for one request. If one does, the memory is lost, and this thread refuses
/// the pages that the worker no longer can. It goes on watching: a source that hangs one worker soon hangs the other.
fn watch(pager: &Pager, statuses: &[Arc<WorkerStatus>; 2], limit: Duration) {
    let (own, mut scratch) = (WorkerStatus::new("watchdog"), vec![0; CHUNK_BYTES]);
    let mut stalled = [false; 2];
    while !pager.status.is_over() {
        if stalled.contains(&true) {
            // The server may be the one that hangs.
            serve_next(pager, &own, limit / 4, &mut scratch);
        } else {
            pager.status.nap(limit / 4);
        }
        for (status, stalled) in statuses.iter().zip(&mut stalled) {
            if *stalled || status.has_taken() <= limit {
                continue;
            }
            *stalled = true;
            pager.status.lose(LossReason::Stalled { thread: status.name, limit });
            if let Some(place) = status.fault() {
                refuse(pager, &place);
            }
        }
    }
    // The server serves as well, and may have missed the wake-up.
    pager.wake_server();
}

#[cfg(test)]
mod tests;
