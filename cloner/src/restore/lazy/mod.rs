//! Lazy restore: memory arrives while the target runs. See [`Restorer::lazy`](super::Restorer::lazy).
//!
//! ```text
//!   guest touches a missing page ─► kernel ─► server ─┐                   ┌─► UFFDIO_COPY, UFFDIO_ZEROPAGE
//!   this process does ───► Supplier::supply ─► server ┼─► Source ─► Pager ─┤
//!   working set first, then chunk by chunk: filler ───┘   (verify, decode) └─► a page that is there stays as it is
//!
//!   watchdog: neither server nor filler may take longer than the limit for one request
//! ```
//!
//! No step before the target runs takes longer for a larger memory. Chunks that were never touched are not registered, so the
//! kernel serves them as it always does; each of the others is verified once, when it is first needed. When every page that is not
//! zero has arrived, the ranges are unregistered, and the kernel supplies zeros for what is still missing.
//!
//! # When a page cannot be brought
//! If a chunk is damaged, or a handler panics or takes longer than the limit, the memory is *lost*. First the VM is ended
//! ([`Ending::MemoryLost`](vmm::Ending) says why). Then every thread that waits for a missing page is refused it: all access to the
//! page is taken away, and the thread is woken. So `KVM_RUN` fails with `EFAULT` instead of hanging, and a page that should hold
//! data never appears as zeros. This process's own accesses get the reason as an error, because they ask before they touch.
//!
//! # Ending early
//! The memory owns its threads. Dropping it, or the VM that has it, ends them at any time; [`Fill`] only watches. A VM that is
//! dropped gives up what is missing first, because the kernel cannot close it while anything waits for a page.

mod faults;
mod pager;
mod service;
mod source;
#[cfg(test)]
mod stand_ins;
mod status;
#[cfg(test)]
mod tests;
mod working_set;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloner_codec::chunk::CHUNK_PAGES;
use vmm::memory::userfault::{self, Userfault};
use vmm::memory::{self, Backing, GuestMemory, MemoryLost};

use crate::layout::PageNumber;

pub(super) use source::SnapshotSource;
pub use source::{PageSource, SourceError};
pub use status::{Fault, Fill};
pub use working_set::WorkingSet;

use pager::Pager;
use service::Service;

/// Why the target's memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host cannot provide the memory.
    #[error("cannot make memory for the target")]
    Memory(#[from] memory::Error),
    /// The kind of memory asked for has content already: it lies over a template.
    #[error("a lazy restore needs memory of its own, not memory that is {0}")]
    NotOwn(String),
    /// [`LazyOptions::granule_pages`] is not a power of two, or is larger than a chunk.
    #[error(
        "cannot bring {0} pages for one fault: the number must be a power of two from 1 to {CHUNK_PAGES}"
    )]
    Granule(usize),
    /// This host does not let faults be served, or this process is not permitted to serve them.
    #[error(transparent)]
    Userfault(#[from] userfault::OpenError),
    /// The event descriptor that wakes the server thread cannot be made.
    #[error("cannot make an event descriptor")]
    Waker(#[source] io::Error),
    /// The kernel refuses to report the faults of a range of memory.
    #[error("cannot register memory for its faults to be served")]
    Register(#[source] io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A page of the working set could not be brought.
    #[error("cannot prefetch the working set")]
    Lost(#[from] MemoryLost),
}

/// Why memory was lost.
#[derive(Debug, thiserror::Error)]
pub enum LossReason {
    /// A page cannot be decoded: its chunk, or one it refers to, is damaged.
    #[error("cannot bring page {page} of chunk {chunk}")]
    Page {
        /// Index of the chunk in the guest's memory.
        chunk: u32,
        /// Index of the page in the chunk, from 0.
        page: usize,
        /// The reason that the source of pages gave.
        source: SourceError,
    },
    /// The kernel refuses to install a page, or to report a fault.
    #[error("the kernel refused to serve a fault")]
    Kernel(#[source] io::Error),
    /// A thread that brings pages has panicked.
    #[error("the {0} has died")]
    Died(&'static str),
    /// A thread that brings pages has not finished a request within the limit.
    #[error("the {thread} has been busy with one request for more than {limit:?}")]
    Stalled {
        /// Name of the thread: `fault handler` or `background fill`.
        thread: &'static str,
        /// The longest that one request may take.
        limit: Duration,
    },
    /// The memory was dropped before all of it had arrived.
    #[error("the target was dropped")]
    Dropped,
}

/// How the memory is to arrive.
#[derive(Debug, Clone)]
pub struct LazyOptions {
    /// Pages brought for one fault: a power of two from 1 to 512, aligned around the page that was touched. Memory on 2 MiB
    /// pages is always brought by the chunk.
    pub granule_pages: usize,
    /// Time from making the memory until the background fill begins to bring the rest: a head start for building the VM and for
    /// its first output. The fill begins earlier when something needs all of the memory, such as a save; with `None`, it
    /// begins only then.
    pub background: Option<Duration>,
    /// Pages to bring before the target runs.
    pub working_set: Option<WorkingSet>,
    /// The longest that one request may take. A thread that takes longer counts as stalled, and the memory is lost.
    pub limit: Duration,
}

impl Default for LazyOptions {
    /// 16 pages for a fault, the rest in the background after 20 ms, a limit of 30 s.
    fn default() -> Self {
        Self {
            granule_pages: 16,
            background: Some(Duration::from_millis(20)),
            working_set: None,
            limit: Duration::from_secs(30),
        }
    }
}

/// Memory that arrives while the target runs, and a view of how far that has come.
#[derive(Debug)]
pub struct Restored {
    /// The memory. Dropping it, or the VM that has it, ends the threads that bring its pages.
    pub memory: GuestMemory,
    /// Watches how the pages arrive.
    pub fill: Fill,
}

/// Checks whether this process can restore lazily on this host. Call it early, before there is anything to restore.
///
/// # Errors
/// [`Error::Userfault`], which says what would have to be changed.
pub fn check() -> Result<(), Error> {
    Userfault::open()?;
    Ok(())
}

/// Does the same as [`Restorer::lazy`](super::Restorer::lazy) for a snapshot, with any source of pages.
///
/// # Errors
/// [`Error::NotOwn`] or [`Error::Granule`] if `backing` or `options` do not fit, [`Error::Userfault`] if this host does not allow
/// it, [`Error::Lost`] if a page of the working set cannot be brought, and otherwise the resource that the host refused. Memory and
/// threads are gone then.
pub fn memory_from(
    source: Box<dyn PageSource>,
    backing: Backing,
    options: &LazyOptions,
) -> Result<Restored, Error> {
    let started = Instant::now();
    if matches!(backing, Backing::OverTemplate(_)) {
        return Err(Error::NotOwn(backing.to_string()));
    }
    if !options.granule_pages.is_power_of_two() || options.granule_pages > CHUNK_PAGES {
        return Err(Error::Granule(options.granule_pages));
    }
    let memory = GuestMemory::new(source.layout(), backing)?;
    let userfault = Box::new(Userfault::open()?);
    let first = options.working_set.iter().flat_map(WorkingSet::pages).copied().collect();
    let pager = Pager::new(userfault, source, &memory, options.granule_pages, started)?;
    supplied_by(pager, memory, options, first)
}

/// Starts the threads that bring the pages of `memory`. Returns when those of `first` have arrived.
fn supplied_by(
    pager: Pager,
    memory: GuestMemory,
    options: &LazyOptions,
    first: Vec<PageNumber>,
) -> Result<Restored, Error> {
    let (fill, held_chunks) = (pager.fill(), pager.held_chunks());
    let service = Service::start(pager, options, first).map_err(Error::Thread)?;
    // If the working set is lost, this is dropped on the way out, which ends the threads.
    let memory = memory.supplied_by(&(Arc::new(service) as _));
    fill.wait_prefetched()?;
    tracing::info!(held_chunks, backing = %memory.backing(), "made memory that arrives lazily");
    Ok(Restored { memory, fill })
}
