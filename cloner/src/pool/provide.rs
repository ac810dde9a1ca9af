//! Makes a pool on whichever pages this host can give.
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

use super::hugepages::{self, ReservedHugePages};
use super::{Error, Pool, PoolConfig, PoolPages, Populate};

/// Which pages to make a pool of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PageChoice {
    /// Huge pages if this host can give them, otherwise ordinary ones.
    Auto,
    /// Huge pages, or an error.
    Huge,
    /// Ordinary pages.
    Ordinary,
}

/// A pool, and the huge pages that were set aside for it.
#[derive(Debug)]
pub struct ProvidedPool {
    /// The pool, still empty.
    // Declared, and so dropped, before the reserved pages: they are given back after the pool is gone.
    pub pool: Arc<Pool>,
    /// Why the pool is on ordinary pages although [`PageChoice::Auto`] allowed huge ones. `None` otherwise.
    pub why_ordinary: Option<WhyOrdinary>,
    _reserved: Option<ReservedHugePages>,
}

/// Why there were no huge pages for a pool. Displayed in one line, which also says what would change that.
#[derive(Debug)]
pub struct WhyOrdinary {
    /// Number of 2 MiB pages that the pool would have taken.
    pub needed: usize,
    /// The error that asking for them gave.
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

/// Makes an empty pool on the pages that `choice` allows.
///
/// Free huge pages are taken first; missing ones are set aside, and given back when the pool is dropped. If the pool cannot be
/// made, they are given back at once.
///
/// # Errors
/// As for [`Pool::new`]. For [`PageChoice::Huge`] also as for [`hugepages::reserve_missing`]; [`PageChoice::Auto`] then falls
/// back to ordinary pages.
pub fn provide(capacity_bytes: usize, choice: PageChoice, populate: Populate) -> Result<ProvidedPool, Error> {
    let ordinary = |why_ordinary| {
        let pool = Pool::new(&PoolConfig { capacity_bytes, pages: PoolPages::Ordinary, populate })?;
        Ok(ProvidedPool { pool: Arc::new(pool), why_ordinary, _reserved: None })
    };
    match choice {
        PageChoice::Ordinary => ordinary(None),
        PageChoice::Huge => on_huge_pages(capacity_bytes, populate),
        PageChoice::Auto => match on_huge_pages(capacity_bytes, populate) {
            // This did not fail for lack of pages, so ordinary ones would not help.
            Err(error @ Error::Capacity { .. }) => Err(error),
            Err(because) => {
                ordinary(Some(WhyOrdinary { needed: capacity_bytes.div_ceil(HUGE_PAGE_SIZE), because }))
            }
            provided => provided,
        },
    }
}

fn on_huge_pages(capacity_bytes: usize, populate: Populate) -> Result<ProvidedPool, Error> {
    let config = PoolConfig { capacity_bytes, pages: PoolPages::Huge, populate };
    let (pool, reserved) = match Pool::new(&config) {
        Err(Error::TooFewHugePages(shortage)) => {
            let reserved = hugepages::reserve_missing(shortage.wanted)?;
            (Pool::new(&config)?, reserved)
        }
        made => (made?, None),
    };
    Ok(ProvidedPool { pool: Arc::new(pool), why_ordinary: None, _reserved: reserved })
}
