//! Memory that arrives while the target runs.
//!
//! ```text
//!   guest touches a missing page ─► kernel ─► server ─┐                   ┌─► UFFDIO_COPY, UFFDIO_ZEROPAGE
//!   this process does ───► Supplier::supply ─► server ┼─► Source ─► Pager ─┤
//!   working set first, then chunk after chunk: filler ┘   (verify, decode) └─► a page that is there stays as it is
//!
//!   watchdog: neither of them may take longer than the limit
//! ```
//!
//! Nothing here costs time in proportion to the memory: chunks that were never touched are not registered, so that the kernel
//! serves them as ever; the others are verified when they are first needed, each once. When every page that is not zero has
//! arrived, the ranges are unregistered, and what is still missing is the kernel's zeros.
//!
//! # When a page cannot be had
//! A damaged chunk, a handler that panics, one that takes longer than the limit: the memory is *lost*. First the VM is ended
//! ([`Ending::MemoryLost`](vmm::Ending) says why); then whoever waits for a missing page is refused it, by taking all access to the
//! page away and waking him: `KVM_RUN` fails with `EFAULT` instead of hanging, and no page is ever zero that should not
//! be. This process's own accesses get the reason as an error, because they ask before they touch.
//!
//! # Ending early
//! The memory owns its threads. Dropping it, or the VM that has it, at any time ends them; [`Fill`] only watches.

mod pager;
mod service;
mod source;
mod status;
mod working_set;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloner_codec::chunk::CHUNK_PAGES;
use vmm::memory::userfault;
use vmm::memory::{self, Backing, GuestMemory, Lost};

use crate::layout::PageNumber;
use crate::snapshot::Snapshot;

pub use source::{Source, SourceError};
pub use status::{Fault, Fill};
pub use working_set::WorkingSet;

use pager::Pager;
use service::Service;
use source::SnapshotSource;

/// Why there is no memory.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be had from the host.
    #[error("cannot make memory for the target")]
    Memory(#[from] memory::Error),
    /// The kind of memory asked for has content of its own.
    #[error("a lazy restore needs memory of its own, not memory that is {0}")]
    NotOwn(String),
    /// Pages are served one by one, or up to a chunk at once.
    #[error("{0} pages cannot be served at once: a power of two from 1 to {CHUNK_PAGES} can")]
    Granule(usize),
    /// Faults cannot be served on this host, or not by this process.
    #[error(transparent)]
    Userfault(#[from] userfault::OpenError),
    /// The threads cannot be woken.
    #[error("cannot make an event descriptor")]
    Bell(#[source] io::Error),
    /// A range of memory cannot be watched.
    #[error("cannot register memory for its faults to be served")]
    Register(#[source] io::Error),
    /// A thread cannot be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// A page of the working set cannot be had.
    #[error("cannot prefetch the working set")]
    Lost(#[from] Lost),
}

/// Why memory was lost.
#[derive(Debug, thiserror::Error)]
pub enum Loss {
    /// A page cannot be decoded: its chunk, or one it refers to, is damaged.
    #[error("page {page} of chunk {chunk} cannot be had")]
    Page {
        /// Number of the chunk.
        chunk: u32,
        /// The page in it.
        page: usize,
        /// Why.
        source: SourceError,
    },
    /// The kernel does not take a page or give a fault.
    #[error("the kernel refused to serve a fault")]
    Kernel(#[source] io::Error),
    /// A thread that brings pages has panicked.
    #[error("the {0} has died")]
    Died(&'static str),
    /// A thread that brings pages does not come back.
    #[error("the {thread} has been busy with one request for more than {limit:?}")]
    Stalled {
        /// Which.
        thread: &'static str,
        /// The longest it may take.
        limit: Duration,
    },
    /// The memory was dropped before all of it had arrived.
    #[error("the target was dropped")]
    Dropped,
}

/// How memory is to arrive.
#[derive(Debug, Clone)]
pub struct Options {
    /// Pages brought for one fault: a power of two from 1 to 512, aligned around the page that was touched. Memory on 2 MiB
    /// pages is always brought by the chunk.
    pub granule_pages: usize,
    /// How long after the memory was made the rest begins to be brought in the background: a head start for whoever builds
    /// the VM and waits for its first output. With `None`, and before, it is when somebody needs all of it, such as a save.
    pub background: Option<Duration>,
    /// Pages to bring before the target runs.
    pub working_set: Option<WorkingSet>,
    /// The longest that one request may take, before the handler counts as stalled.
    pub limit: Duration,
}

impl Default for Options {
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

/// Finds out whether memory can arrive lazily on this host, and in this process: better asked before there is anything to restore.
///
/// # Errors
/// [`Error::Userfault`], which names what would change it.
pub fn check() -> Result<(), Error> {
    userfault::Userfault::open()?;
    Ok(())
}

/// Makes memory into which the snapshot's arrives as it is needed. Returns when the working set, if there is one, is there.
///
/// # Errors
/// See [`Error`]; nothing stays behind.
pub fn memory_for(
    snapshot: &Snapshot,
    backing: Backing,
    options: &Options,
) -> Result<(GuestMemory, Fill), Error> {
    memory_from(Box::new(SnapshotSource::new(snapshot)), backing, options)
}

/// The same from any source of pages.
///
/// # Errors
/// As [`memory_for`].
pub fn memory_from(
    source: Box<dyn Source>,
    backing: Backing,
    options: &Options,
) -> Result<(GuestMemory, Fill), Error> {
    let started = Instant::now();
    if matches!(backing, Backing::OverTemplate(_)) {
        return Err(Error::NotOwn(backing.to_string()));
    }
    if !options.granule_pages.is_power_of_two() || options.granule_pages > CHUNK_PAGES {
        return Err(Error::Granule(options.granule_pages));
    }
    let memory = GuestMemory::new(source.layout(), backing)?;
    let pager = Pager::new(source, &memory, options.granule_pages, started)?;
    let (fill, held_chunks) = (pager.fill(), pager.held_chunks());
    let pages: Vec<PageNumber> = options.working_set.iter().flat_map(WorkingSet::pages).copied().collect();
    let service = Service::start(pager, options, pages).map_err(Error::Thread)?;
    // Dropped on the way out if the working set is lost, and its threads with it.
    let memory = memory.supplied_by(&(Arc::new(service) as _));
    fill.wait_prefetched()?;
    tracing::info!(held_chunks, backing = %memory.backing(), "lazy memory");
    Ok((memory, fill))
}
