//! Options for the pages that pools and guests get, which several commands share.

use std::io::{self, Write};

use vmm::memory::HUGE_PAGE_SIZE;

use crate::Error;
use crate::size::Size;
use cloner::pool::hugepages::{self, ReservedHugePages};
use cloner::pool::{PageChoice, Populate, ProvidedPool, provide};

/// The options of the pool.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pool")]
pub struct PoolArgs {
    /// Capacity of the pool (default: enough for all that the guest can have touched)
    #[arg(long = "pool", value_name = "SIZE")]
    pub capacity: Option<Size>,
    /// Pages the pool is made of
    #[arg(long, value_enum, default_value_t = PagesArg::Auto)]
    pub pages: PagesArg,
}

/// [`PageChoice`] as an option.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum PagesArg {
    /// Huge pages where this host can provide them, otherwise ordinary ones.
    Auto,
    /// Huge pages; fail if there are not enough.
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
    /// Makes the pool. If it has to be on ordinary pages, one line on standard error says why.
    pub fn open(&self, default_bytes: u64) -> Result<ProvidedPool, Error> {
        let provided = self.open_silently(default_bytes)?;
        if let Some(why) = &provided.why_ordinary {
            // If standard error is closed, there is no way to say it.
            let _ = writeln!(io::stderr(), "cloner: pool on ordinary pages: {why}");
        }
        Ok(provided)
    }

    /// Makes the pool in a process that is a part of another one, which prints the reason instead.
    pub fn open_silently(&self, default_bytes: u64) -> Result<ProvidedPool, Error> {
        let bytes = self.capacity.map_or(default_bytes, |size| size.0);
        let too_large = || Error::Usage(format!("a pool of {bytes} bytes does not fit the address space"));
        let capacity_bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        Ok(provide(capacity_bytes, self.pages.into(), Populate::AtOnce)?)
    }
}

/// Describes the pages that a pool lives in, and why, for JSON.
pub fn backing(provided: &ProvidedPool) -> String {
    let backing = provided.pool.backing();
    provided.why_ordinary.as_ref().map_or_else(|| backing.to_string(), |why| format!("{backing}: {why}"))
}

/// Sets aside the huge pages that are still missing for this many guests. Call it after the pool has taken its own.
pub fn for_guests(memory: Size, guests: u64) -> Result<Option<ReservedHugePages>, Error> {
    let pages = memory.0.div_ceil(HUGE_PAGE_SIZE as u64).saturating_mul(guests);
    let pages = usize::try_from(pages).unwrap_or(usize::MAX);
    hugepages::reserve_missing(pages).map_err(Error::GuestPages)
}
