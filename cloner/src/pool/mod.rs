//! RAM that holds encoded snapshots.
//!
//! A pool is one arena of shared memory, in huge pages unless told otherwise. Its bytes are handed out as extents, one
//! per chunk; a set of extents published under a name is a snapshot. The pool knows neither what a chunk means nor what
//! a machine is.
//!
//! ```text
//!            reserve(name, bytes)          publish()               get(name)
//!   Pool ───────────────────────► Reservation ─────► Arc<Stored> ◄─────────── Pool
//!                                 put_chunk(id, …)    chunk(place) -> &[u8]    remove(name)
//!                                 put_blob(label, …)  blob(label) -> &[u8]
//! ```
//!
//! A put has two phases. In the first, a reservation claims a name and an amount of memory, and chunks are copied into it
//! from many threads. In the second, [`Reservation::publish`], which cannot fail, publishes the whole snapshot at once. Every
//! claim is a value that gives back what it holds when dropped, so a put that fails at any point leaves the pool as it was.
//!
//! A published snapshot never changes. A handle reads it in place, without locks or copies; removing a snapshot hides the
//! name, and the memory is freed with the last handle. The proof that the slices are sound is in [`crate::sys::arena`].
//!
//! # Who can read it
//! Only this process. The arena's file is anonymous, close-on-exec and closed before [`Pool::new`] returns, so a VM process
//! can neither inherit it nor be passed it; the mapping is kept out of children made by `fork()` and out of core dumps.

mod arena;
mod check;
mod error;
mod extents;
mod flushed;
pub mod hugepages;
mod index;
mod labels;
mod ledger;
mod provide;
mod remedy;
mod reservation;
mod room;
mod stats;
mod stored;
#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use arena::{PoolBacking, PoolPages, Populate};
pub use check::{CheckReport, Inconsistency};
pub use error::{Error, TooFewHugePages};
pub use extents::GRANULE;
pub use flushed::{FLUSHED_FILE_BYTES, flushed_bytes};
pub use labels::{Labels, Priority};
pub use ledger::{Claim, Ledger, LedgerUsage, Refusal, UnflushedLimit};
pub use provide::{PageChoice, ProvidedPool, WhyOrdinary, provide};
pub use reservation::Reservation;
pub(crate) use room::{available_bytes, private_bytes};
pub use stats::{Listing, PoolStats};
pub use stored::{StoredChunk, StoredSnapshot};

use extents::Extents;
use index::{ClaimedName, NameIndex};

/// Most tags a snapshot can have.
pub const MAX_TAGS: usize = 32;
/// Longest key and longest value of a tag, in bytes.
pub const MAX_TAG_BYTES: usize = 256;

/// How to make a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// Size of the pool in bytes; rounded up to whole 2 MiB pages.
    pub capacity_bytes: usize,
    /// Which pages the pool is made of.
    pub pages: PoolPages,
    /// When the kernel provides these pages.
    pub populate: Populate,
}

/// Options for a put, besides the name.
#[derive(Debug, Default)]
pub struct PutOptions {
    /// Bytes of memory set aside for the snapshot at once; see [`Pool::reserve`].
    pub promise_bytes: usize,
    /// Priority and tags of the snapshot.
    pub labels: Labels,
    /// The right to put bytes that exist in RAM only. Without it, no ledger counts them.
    pub claim: Option<Claim>,
    /// Whether to keep the snapshot only for those that depend on it: it does not take the name and is not found under it.
    pub unlisted: bool,
}

/// Named snapshots in a fixed amount of RAM. Shared by reference; every method may be called from any thread.
///
/// Reservations and handles keep the memory alive by themselves and may outlive the pool.
#[derive(Debug)]
pub struct Pool {
    extents: Arc<Extents>,
    index: Arc<NameIndex>,
    backing: PoolBacking,
}

impl Pool {
    /// Makes an empty pool. From here on, its huge pages are promised to it alone.
    ///
    /// # Errors
    /// [`Error::Capacity`], [`Error::TooFewHugePages`], [`Error::TooLittleMemory`], [`Error::Map`],
    /// [`Error::Populate`], or [`Error::Setting`] when the kernel's numbers cannot be read.
    pub fn new(config: &PoolConfig) -> Result<Self, Error> {
        let (arena, backing) = arena::map(config)?;
        Ok(Self { extents: Extents::new(arena), index: Arc::default(), backing })
    }

    /// Which pages the pool is made of.
    #[must_use]
    pub const fn backing(&self) -> PoolBacking {
        self.backing
    }

    /// Size of the pool in bytes, a multiple of 2 MiB.
    #[must_use]
    pub fn capacity_bytes(&self) -> usize {
        self.extents.capacity_bytes()
    }

    /// Starts a put: claims `name`. What it needs is taken from the memory that is promised to nobody, chunk by chunk.
    ///
    /// Each chunk and blob counts with its length rounded up to [`GRANULE`].
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::NameTaken`].
    pub fn reserve(&self, name: &str) -> Result<Reservation, Error> {
        self.reserve_with(name, PutOptions::default())
    }

    /// Starts a put: claims `name`, and `promise_bytes` of the free memory.
    ///
    /// The promise is a lower bound for when the coded size is not known beforehand: what goes beyond it is taken from
    /// the memory promised to nobody, and what is not used is released by [`Reservation::publish`].
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::NameTaken`]; [`Error::Full`] if so much memory is not free.
    pub fn reserve_promised(&self, name: &str, promise_bytes: usize) -> Result<Reservation, Error> {
        self.reserve_with(name, PutOptions { promise_bytes, ..PutOptions::default() })
    }

    /// As [`Pool::reserve`], with all options.
    ///
    /// # Errors
    /// [`Error::InvalidTag`] or [`Error::TooManyTags`] for labels that break a limit, and those of [`Pool::reserve`]; an
    /// unlisted name is never taken.
    pub fn reserve_with(&self, name: &str, options: PutOptions) -> Result<Reservation, Error> {
        let PutOptions { promise_bytes, labels, claim, unlisted } = options;
        labels.check()?;
        let name = if unlisted { ClaimedName::unlisted(name)? } else { self.index.claim(name)? };
        let promise = self.extents.promise(promise_bytes)?;
        Ok(Reservation::new(name, promise, labels, claim))
    }

    /// A handle to the published snapshot `name`, which stays readable even if the snapshot is removed meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no published snapshot has the name; a reservation that has only claimed it does not count.
    pub fn get(&self, name: &str) -> Result<Arc<StoredSnapshot>, Error> {
        self.index.get(name)
    }

    /// Removes the published snapshot `name`. The name is free at once, the memory when the last handle is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`] if no published snapshot has the name.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.index.remove(name).map(drop)
    }

    /// The published snapshots, sorted by name.
    #[must_use]
    pub fn list(&self) -> Vec<Listing> {
        let all = self.index.all();
        let kept: Vec<Vec<Arc<StoredSnapshot>>> = all.iter().map(|stored| stored.kept()).collect();
        let dependents = |stored: &Arc<StoredSnapshot>| {
            kept.iter().flatten().filter(|kept| Arc::ptr_eq(kept, stored)).count()
        };
        let listing = |(stored, kept): (&Arc<StoredSnapshot>, &Vec<Arc<StoredSnapshot>>)| Listing {
            name: stored.name().to_owned(),
            chunks: stored.chunks().len(),
            len_bytes: stored.len_bytes(),
            occupied_bytes: stored.occupied_bytes(),
            shared_bytes: kept.iter().map(|kept| kept.occupied_bytes()).sum(),
            dependencies: kept.iter().map(|kept| kept.name().to_owned()).collect(),
            dependents: dependents(stored),
            labels: stored.labels().clone(),
            unflushed: stored.is_unflushed(),
        };
        all.iter().zip(&kept).map(listing).collect()
    }

    /// Handles to the published snapshots, sorted by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<StoredSnapshot>> {
        self.index.all()
    }

    /// How much of the pool is used, free and promised.
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let snapshots = self.index.all().len();
        self.extents.stats(snapshots)
    }

    /// Verifies that used and free ranges tile the arena exactly, that all totals are the sums of their parts, and that
    /// every visible snapshot's extents are in use. May be called at any time; other puts and removals wait meanwhile.
    ///
    /// # Errors
    /// The first [`Inconsistency`] found. The pool's books cannot be trusted after that.
    pub fn check(&self) -> Result<CheckReport, Inconsistency> {
        check::check(&self.extents, &self.index.all())
    }
}
