//! RAM that holds encoded snapshots.
//!
//! A pool is one arena of shared memory, in huge pages unless told otherwise. Its bytes are handed out as extents, one
//! per chunk; a set of extents sealed under a name is a snapshot. The pool knows neither what a chunk means nor what
//! a machine is.
//!
//! ```text
//!            reserve(name, bytes)          seal()                  get(name)
//!   Pool ───────────────────────► Reservation ─────► Arc<Stored> ◄─────────── Pool
//!                                 put_chunk(key, …)   chunk(key) -> &[u8]      remove(name)
//!                                 put_blob(label, …)  blob(label) -> &[u8]
//! ```
//!
//! A put has two phases. Reserving claims a name and an amount of memory, filling copies chunks in, from many threads;
//! only sealing, which cannot fail, makes the whole visible at once. Every claim is a value that gives back what it
//! holds when dropped, so a put that fails at any point leaves the pool as it was.
//!
//! What is sealed never changes. A handle reads it in place, without locks or copies; removing a snapshot hides the
//! name, and the memory is freed with the last handle. The proof that the slices are sound is in [`crate::sys::arena`].
//!
//! # Who can read it
//! This process. The arena's file is anonymous, close-on-exec and closed before [`Pool::new`] returns, so a VM process
//! can neither inherit nor be passed it; the mapping is kept out of children made by `fork()` and out of core dumps.

mod arena;
mod check;
mod error;
mod extents;
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

pub use arena::{Backing, Pages, Populate};
pub use check::{CheckReport, Inconsistency};
pub use error::{Error, TooFewHugePages};
pub use extents::GRANULE;
pub use labels::{Labels, Priority};
pub use ledger::{Claim, Ledger, Limit, Refused, Usage};
pub use provide::{PageChoice, Provided, WhyOrdinary, provide};
pub use reservation::{Reservation, flushed_bytes};
pub(crate) use room::{available_bytes, private_bytes};
pub use stats::{Listing, Stats};
pub use stored::{Chunk, Stored};

use extents::Extents;
use index::{Index, Name};

/// Most tags a snapshot can have.
pub const MAX_TAGS: usize = 32;
/// Longest key and longest value of a tag, in bytes.
pub const MAX_TAG_BYTES: usize = 256;

/// How to make a pool.
#[derive(Debug, Clone, Copy)]
pub struct PoolConfig {
    /// Size of the pool in bytes; rounded up to whole 2 MiB pages.
    pub capacity_bytes: usize,
    /// Which pages it is made of.
    pub pages: Pages,
    /// When they are provided.
    pub populate: Populate,
}

/// What else there is to say about a put, besides its name.
#[derive(Debug, Default)]
pub struct PutOptions {
    /// Memory set aside for it at once; see [`Pool::reserve`].
    pub promise_bytes: usize,
    /// Priority and tags.
    pub labels: Labels,
    /// The right to put bytes that exist in RAM only; without, nobody counts them.
    pub claim: Option<Claim>,
    /// Kept only for those that depend on it: the name is neither taken nor found.
    pub unlisted: bool,
}

/// Named snapshots in a fixed amount of RAM. Shared by reference; every method may be called from any thread.
///
/// Reservations and handles keep the memory alive by themselves and may outlive the pool.
#[derive(Debug)]
pub struct Pool {
    extents: Arc<Extents>,
    index: Arc<Index>,
    backing: Backing,
}

impl Pool {
    /// Makes an empty pool. Its huge pages are promised to it alone from here on.
    ///
    /// # Errors
    /// [`Error::Capacity`], [`Error::TooFewHugePages`], [`Error::TooLittleMemory`], [`Error::Map`],
    /// [`Error::Populate`], or [`Error::Setting`] when the kernel's numbers cannot be read.
    pub fn new(config: &PoolConfig) -> Result<Self, Error> {
        let (arena, backing) = arena::map(config)?;
        Ok(Self { extents: Extents::new(arena), index: Arc::default(), backing })
    }

    /// What the pool lives in.
    #[must_use]
    pub const fn backing(&self) -> Backing {
        self.backing
    }

    /// Size of the pool.
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
    /// the memory promised to nobody, and what is not used is released by [`Reservation::seal`].
    ///
    /// # Errors
    /// [`Error::InvalidName`], [`Error::NameTaken`]; [`Error::Full`] if so much memory is not free.
    pub fn reserve_promised(&self, name: &str, promise_bytes: usize) -> Result<Reservation, Error> {
        self.reserve_with(name, PutOptions { promise_bytes, ..PutOptions::default() })
    }

    /// As [`Pool::reserve`], with all there is to say about a put.
    ///
    /// # Errors
    /// As there; [`Error::InvalidTag`], [`Error::TooManyTags`].
    pub fn reserve_with(&self, name: &str, options: PutOptions) -> Result<Reservation, Error> {
        let PutOptions { promise_bytes, labels, claim, unlisted } = options;
        labels.check()?;
        let name = if unlisted { Name::unlisted(name)? } else { self.index.claim(name)? };
        let promise = self.extents.promise(promise_bytes)?;
        Ok(Reservation::new(name, promise, labels, claim))
    }

    /// A handle to the sealed snapshot `name`, which stays readable even when it is removed meanwhile.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn get(&self, name: &str) -> Result<Arc<Stored>, Error> {
        self.index.get(name)
    }

    /// Removes the sealed snapshot `name`. The name is free at once, the memory when the last handle is dropped.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        self.index.remove(name).map(drop)
    }

    /// The sealed snapshots, by name.
    #[must_use]
    pub fn list(&self) -> Vec<Listing> {
        let all = self.index.all();
        let kept: Vec<Vec<Arc<Stored>>> = all.iter().map(|stored| stored.kept()).collect();
        let dependents =
            |stored: &Arc<Stored>| kept.iter().flatten().filter(|kept| Arc::ptr_eq(kept, stored)).count();
        let listing = |(stored, kept): (&Arc<Stored>, &Vec<Arc<Stored>>)| Listing {
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

    /// Handles to the sealed snapshots, by name.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Stored>> {
        self.index.all()
    }

    /// The pool's sizes.
    #[must_use]
    pub fn stats(&self) -> Stats {
        let snapshots = self.index.all().len();
        self.extents.stats(snapshots)
    }

    /// Verifies that used and free ranges tile the arena exactly, that all totals are the sums of their parts, and that
    /// every visible snapshot's extents are in use. May be called at any time; other puts and removals wait meanwhile.
    ///
    /// # Errors
    /// The first [`Inconsistency`].
    pub fn check(&self) -> Result<CheckReport, Inconsistency> {
        check::check(&self.extents, &self.index.all())
    }
}
