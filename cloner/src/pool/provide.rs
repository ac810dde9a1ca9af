//! A pool on whichever pages this host can give.
//!
//! ```text
//!   huge pages that are free ──► set aside what is missing, if this process may ──► ordinary pages, and why
//! ```
//!
//! The kernel is asked for the pages first: it may have some that its numbers do not show, such as an allowance for surplus pages.

use std::error::Error as _;
use std::fmt;
use std::sync::Arc;

use vmm::memory::HUGE_PAGE_SIZE;

use super::hugepages::{self, Reserved};
use super::{Error, Pages, Pool, PoolConfig, Populate};

/// Which pages a pool is to be made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageChoice {
    /// Huge pages where this host can give them, ordinary ones elsewhere.
    Auto,
    /// Huge pages, or an error.
    Huge,
    /// Ordinary pages.
    Ordinary,
}

/// A pool, and the huge pages that were set aside for it.
#[derive(Debug)]
pub struct Provided {
    /// The pool.
    // Before the pages: they are given back when it is gone.
    pub pool: Arc<Pool>,
    /// Why it is on ordinary pages, although it could have been on huge ones: [`PageChoice::Auto`].
    pub why_ordinary: Option<WhyOrdinary>,
    _reserved: Option<Reserved>,
}

/// Why there were no huge pages for a pool, and what would change that, in one line.
#[derive(Debug)]
pub struct WhyOrdinary {
    /// Pages the pool would have taken.
    pub needed: usize,
    /// What failed when they were asked for.
    pub because: Error,
}

impl fmt::Display for WhyOrdinary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let pages = if self.needed == 1 { "page" } else { "pages" };
        write!(f, "{} huge {pages} needed, ", self.needed)?;
        match &self.because {
            Error::TooFewHugePages(shortage) => write!(
                f,
                "{} free, and only root may set more aside; {} changes that",
                shortage.available,
                shortage.remedy()
            ),
            Error::HugePagesRefused { wanted, got } => write!(
                f,
                "{} free, and of {wanted} more only {got} could be set aside; doing so at boot changes that",
                self.needed.saturating_sub(*wanted)
            ),
            other => {
                write!(f, "but {other}")?;
                other.source().map_or(Ok(()), |source| write!(f, ": {source}"))
            }
        }
    }
}

/// Makes an empty pool on the pages of that choice.
///
/// Huge pages that are free are taken first; those that are missing are set aside, and given back when the pool is dropped. A pool
/// that fails gives them back at once.
///
/// # Errors
/// Those of [`Pool::new`], and for [`PageChoice::Huge`] those of [`hugepages::reserve_missing`].
pub fn provide(capacity_bytes: usize, choice: PageChoice, populate: Populate) -> Result<Provided, Error> {
    let ordinary = |why_ordinary| {
        let pool = Pool::new(&PoolConfig { capacity_bytes, pages: Pages::Ordinary, populate })?;
        Ok(Provided { pool: Arc::new(pool), why_ordinary, _reserved: None })
    };
    match choice {
        PageChoice::Ordinary => ordinary(None),
        PageChoice::Huge => on_huge_pages(capacity_bytes, populate),
        PageChoice::Auto => match on_huge_pages(capacity_bytes, populate) {
            // Not for want of pages.
            Err(error @ Error::Capacity { .. }) => Err(error),
            Err(because) => {
                ordinary(Some(WhyOrdinary { needed: capacity_bytes.div_ceil(HUGE_PAGE_SIZE), because }))
            }
            provided => provided,
        },
    }
}

fn on_huge_pages(capacity_bytes: usize, populate: Populate) -> Result<Provided, Error> {
    let config = PoolConfig { capacity_bytes, pages: Pages::Huge, populate };
    let (pool, reserved) = match Pool::new(&config) {
        Err(Error::TooFewHugePages(shortage)) => {
            let reserved = hugepages::reserve_missing(shortage.wanted)?;
            (Pool::new(&config)?, reserved)
        }
        made => (made?, None),
    };
    Ok(Provided { pool: Arc::new(pool), why_ordinary: None, _reserved: reserved })
}
