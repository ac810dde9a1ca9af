//! The threads behind a lazy clone's memory: one serves faults, one fills, one watches the two.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::thread::{self, Builder, JoinHandle};
use std::time::{Duration, Instant};

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES};
use vmm::memory::{Lost, Supplier};

use crate::layout::PageNumber;
use crate::sync::lock;

use super::pager::{Pager, Spot, Zeros};
use super::status::{Fault, Request, Status, Stop};
use super::{Loss, Options};

/// How long the server sleeps at most if nothing wakes it. It is always woken: this bounds mistakes.
const IDLE: Duration = Duration::from_secs(3600);
/// After an error of the kernel's that keeps coming back.
const BACK_OFF: Duration = Duration::from_millis(10);

/// Serves a memory until it is complete, or dropped.
#[derive(Debug)]
pub(super) struct Service {
    /// The threads have it; it goes with the last of them, and source and descriptor with it.
    pager: Weak<Pager>,
    status: Arc<Status>,
    server: Worker,
    filler: Worker,
    watchdog: Option<JoinHandle<()>>,
}

/// A thread that asks the source, which may take for ever.
#[derive(Debug)]
struct Worker {
    duty: Arc<Duty>,
    thread: Option<JoinHandle<()>>,
}

/// What a worker is doing, for the watchdog.
#[derive(Debug)]
struct Duty {
    name: &'static str,
    epoch: Instant,
    /// Nanoseconds from `epoch` to the beginning of the request; 0 between requests.
    since: AtomicU64,
    /// The fault that is being served, if it is one.
    fault: Mutex<Option<Spot>>,
    stalled: AtomicBool,
}

impl Duty {
    fn new(name: &'static str) -> Arc<Self> {
        Arc::new(Self {
            name,
            epoch: Instant::now(),
            since: AtomicU64::new(0),
            fault: Mutex::new(None),
            stalled: AtomicBool::new(false),
        })
    }

    /// Does something that must not take long.
    fn during<T>(&self, fault: Option<Spot>, work: impl FnOnce() -> T) -> T {
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

    fn fault(&self) -> Option<Spot> {
        *lock(&self.fault)
    }
}

impl Service {
    /// Starts the threads; the filler brings `first` before anything else.
    pub(super) fn start(pager: Pager, options: &Options, first: Vec<PageNumber>) -> io::Result<Self> {
        let pager = Arc::new(pager);
        let (server, filler) = (Duty::new("fault handler"), Duty::new("background fill"));
        let mut service = Self {
            pager: Arc::downgrade(&pager),
            status: Arc::clone(&pager.status),
            server: Worker { duty: Arc::clone(&server), thread: None },
            filler: Worker { duty: Arc::clone(&filler), thread: None },
            watchdog: None,
        };
        // On failure the drop ends those that were started.
        let spawn = |name: &str, body: Box<dyn FnOnce() + Send>| Builder::new().name(name.into()).spawn(body);
        let (own, duty) = (Arc::clone(&pager), Arc::clone(&server));
        service.server.thread = Some(spawn("lazy-serve", Box::new(move || serve_always(&own, &duty)))?);
        let (own, duty) = (Arc::clone(&pager), Arc::clone(&filler));
        let background = options.background;
        let fill = move || guarded(&own, &duty, || fill(&own, &duty, &first, background));
        service.filler.thread = Some(spawn("lazy-fill", Box::new(fill))?);
        let limit = options.limit;
        let watch = move || watch(&pager, [&server, &filler], limit);
        service.watchdog = Some(spawn("lazy-watch", Box::new(watch))?);
        Ok(service)
    }

    fn pager(&self) -> Result<Arc<Pager>, Lost> {
        // The threads are there until all has arrived or this is dropped.
        self.pager.upgrade().ok_or_else(|| Lost::new(Loss::Dropped))
    }
}

impl Supplier for Service {
    fn supply(&self, region: usize, offset: usize, len_bytes: usize) -> Result<(), Lost> {
        if len_bytes == 0 || self.status.is_complete() {
            return Ok(());
        }
        let pager = match self.pager() {
            Ok(pager) => pager,
            // It has completed between the two.
            Err(_) if self.status.is_complete() => return Ok(()),
            Err(lost) => return Err(lost),
        };
        let end = offset + len_bytes;
        let mut at = offset;
        while at < end {
            let Some(Spot { chunk, page }) = pager.at_offset(region, at) else { break };
            let pages_end = chunk.pages.min((end - chunk.offset).div_ceil(PAGE_BYTES));
            let there = || (page..pages_end).all(|page| pager.is_present(&chunk, page));
            if !there() {
                self.status.request(Request { chunk, pages: page..pages_end });
                pager.ring();
                self.status.wait_until(there)?;
            }
            at = chunk.offset + CHUNK_BYTES;
        }
        Ok(())
    }

    fn supply_all(&self) -> Result<(), Lost> {
        self.status.want_fill();
        self.status.wait_until(|| false)
    }

    fn on_loss(&self, stop: Stop) {
        self.status.on_loss(stop);
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        self.status.go();
        if let Some(pager) = self.pager.upgrade() {
            pager.ring();
        }
        for Worker { duty, thread } in [&mut self.server, &mut self.filler] {
            // A stalled one is left behind, with all it holds, until its source lets it go: the mapping stays for it.
            match thread.take() {
                Some(thread) if !duty.stalled.load(Ordering::Acquire) => join(thread),
                _ => {}
            }
        }
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

/// Runs a worker's body; a panic of it loses the memory.
fn guarded(pager: &Pager, duty: &Duty, body: impl FnOnce()) {
    // What the body leaves half done is at most a page that is not installed.
    if catch_unwind(AssertUnwindSafe(body)).is_err() {
        duty.since.store(0, Ordering::Release);
        pager.status.lose(Loss::Died(duty.name));
        if let Some(spot) = duty.fault() {
            refuse(pager, &spot);
        }
    }
}

fn serve_always(pager: &Pager, duty: &Duty) {
    // Once more after a panic: to refuse what nobody can serve any more.
    guarded(pager, duty, || serve(pager, duty));
    if !pager.status.is_over() {
        serve(pager, duty);
    }
}

/// Serves faults and requests until it is over; once memory is lost, refuses them.
fn serve(pager: &Pager, duty: &Duty) {
    let mut scratch = vec![0; CHUNK_BYTES];
    while !pager.status.is_over() {
        let woken = pager.userfault.wait(&pager.bell, IDLE);
        if let Err(error) = woken.and_then(|()| serve_all(pager, duty, &mut scratch)) {
            pager.status.lose(Loss::Kernel(error));
            thread::sleep(BACK_OFF);
        }
    }
    // There may be another one, who did not hear it.
    pager.ring();
}

/// Everything there is to serve at the moment.
fn serve_all(pager: &Pager, duty: &Duty, scratch: &mut [u8]) -> io::Result<()> {
    // Says only that it rang, or not.
    let _ = pager.bell.read();
    while let Some(address) = pager.userfault.next_fault()? {
        let Some(spot) = pager.at_address(address) else { continue };
        let noticed = Instant::now();
        if !pager.status.is_lost() {
            match duty.during(Some(spot), || pager.bring_around(&spot, scratch)) {
                Ok(()) => pager.status.record(Fault { page: spot.number(), time: noticed.elapsed() }),
                Err(loss) => pager.status.lose(loss),
            }
        }
        if pager.status.is_lost() {
            refuse(pager, &spot);
        }
    }
    while let Some(Request { chunk, pages }) = pager.status.next_request() {
        if !pager.status.is_settled() {
            let brought = duty.during(None, || pager.bring(&chunk, pages, Zeros::Install, scratch));
            brought.unwrap_or_else(|loss| pager.status.lose(loss));
        }
        pager.status.arrived();
    }
    Ok(())
}

fn refuse(pager: &Pager, spot: &Spot) {
    if let Err(error) = pager.refuse(spot) {
        // The VM has been ended and kicked; newer kernels let a kicked vCPU go even so.
        tracing::error!(%error, ?spot, "cannot refuse a page");
    }
}

/// Brings the working set, then, when wanted, everything.
fn fill(pager: &Pager, duty: &Duty, first: &[PageNumber], background: Option<Duration>) {
    let mut scratch = vec![0; CHUNK_BYTES];
    let bring = |work: &mut dyn FnMut() -> Result<(), Loss>| {
        if pager.status.is_settled() {
            return false;
        }
        let result = duty.during(None, work);
        result.map_err(|loss| pager.status.lose(loss)).is_ok()
    };
    let spots = first.iter().filter_map(|number| pager.at_number(*number));
    for spot in spots {
        if !bring(&mut || pager.bring_around(&spot, &mut scratch)) {
            return;
        }
    }
    pager.status.prefetched();
    if !pager.status.wait_for_wish(background) {
        return;
    }
    for chunk in pager.chunks() {
        if !bring(&mut || pager.bring(chunk, 0..chunk.pages, Zeros::Leave, &mut scratch)) {
            return;
        }
    }
    if let Err(loss) = pager.complete() {
        pager.status.lose(loss);
    }
}

/// Sees to it that no worker takes too long. If one does, the memory is lost, and this thread refuses what the worker no
/// longer can.
fn watch(pager: &Pager, duties: [&Arc<Duty>; 2], limit: Duration) {
    while !pager.status.is_over() {
        pager.status.nap(limit / 4);
        for duty in duties {
            if duty.has_taken() <= limit {
                continue;
            }
            duty.stalled.store(true, Ordering::Release);
            pager.status.lose(Loss::Stalled { thread: duty.name, limit });
            if let Some(spot) = duty.fault() {
                refuse(pager, &spot);
            }
            return serve(pager, &Duty::new("watchdog"));
        }
    }
}
