//! Which pages pools and guests get: options that several commands share.

use std::io::{self, Write};

use vmm::memory::HUGE_PAGE_SIZE;

use crate::Error;
use crate::size::Size;
use cloner::pool::hugepages::{self, Reserved};
use cloner::pool::{PageChoice, Populate, Provided, provide};

/// The pool.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pool")]
pub struct PoolArgs {
    /// Capacity of the pool (default: enough for what the guest can have touched)
    #[arg(long = "pool", value_name = "SIZE")]
    pub capacity: Option<Size>,
    /// Pages the pool is made of
    #[arg(long, value_enum, default_value_t = PagesArg::Auto)]
    pub pages: PagesArg,
}

/// [`PageChoice`] on the command line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PagesArg {
    /// Huge pages where this host can give them, ordinary ones elsewhere.
    Auto,
    /// Huge pages, or an error.
    Huge,
    /// Ordinary pages.
    Ordinary,
}

impl From<PagesArg> for PageChoice {
    fn from(pages: PagesArg) -> Self {
        match pages {
            PagesArg::Auto => Self::Auto,
            PagesArg::Huge => Self::Huge,
            PagesArg::Ordinary => Self::Ordinary,
        }
    }
}

impl PoolArgs {
    /// Makes the pool. If that had to be on ordinary pages, standard error is told why, in one line.
    pub fn open(&self, default_bytes: u64) -> Result<Provided, Error> {
        let provided = self.open_silently(default_bytes)?;
        if let Some(why) = &provided.why_ordinary {
            // Without standard error there is nobody to tell.
            let _ = writeln!(io::stderr(), "cloner: pool on ordinary pages: {why}");
        }
        Ok(provided)
    }

    /// Makes the pool, in a process that is a part of another one, which says it.
    pub fn open_silently(&self, default_bytes: u64) -> Result<Provided, Error> {
        let bytes = self.capacity.map_or(default_bytes, |size| size.0);
        let too_large = || Error::Usage(format!("a pool of {bytes} bytes does not fit the address space"));
        let capacity_bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        Ok(provide(capacity_bytes, self.pages.into(), Populate::AtOnce)?)
    }
}

/// What a pool lives in and why, for JSON.
pub fn backing(provided: &Provided) -> String {
    let backing = provided.pool.backing();
    provided.why_ordinary.as_ref().map_or_else(|| backing.to_string(), |why| format!("{backing}: {why}"))
}

/// Sets aside the huge pages that so many guests of this size lack. To be called when the pool has taken its own.
pub fn for_guests(memory: Size, guests: u64) -> Result<Option<Reserved>, Error> {
    let pages = memory.0.div_ceil(HUGE_PAGE_SIZE as u64).saturating_mul(guests);
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    hugepages::reserve_missing(pages).map_err(Error::GuestPages)
}
