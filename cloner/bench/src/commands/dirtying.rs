//! The guest of those benches whose source never stops writing.

use std::borrow::Cow;

use guest_images::pulse::{self, DirtyRate, DirtyWork, Params, Work, WriteOrder};
use vmm::config::{Config, Kernel};
use vmm::memory::{Backing, PageSize};

use cloner::pool::hugepages::ReservedHugePages;
use cloner_cli::Error;
use cloner_cli::guest::{default_touched, random_nonce};
use cloner_cli::pages;
use cloner_cli::size::Size;

/// The options of the guest.
#[derive(Debug, clap::Args)]
pub(super) struct GuestArgs {
    /// Memory of the guest, 1M to 64G
    #[arg(long, value_name = "SIZE", default_value = "1G")]
    memory: Size,
    /// Virtual processors of the guest, 1 to 16
    #[arg(long, value_name = "N", default_value_t = 1)]
    cpus: u8,
    /// Memory that the guest fills and then keeps writing to (default: a quarter of its memory)
    #[arg(long, value_name = "SIZE")]
    touched: Option<Size>,
    /// Bytes per second that the guest writes to, in pages of 4 KiB (default: as many as it can)
    #[arg(long, value_name = "SIZE")]
    dirty_rate: Option<Size>,
    /// Put guest memory on reserved 2 MiB pages (default: transparent huge pages)
    #[arg(long, conflicts_with = "base_pages")]
    hugepages: bool,
    /// Put guest memory on 4 KiB pages
    #[arg(long)]
    base_pages: bool,
}

impl GuestArgs {
    pub(super) fn touched_bytes(&self) -> u64 {
        self.touched.map_or_else(|| default_touched(self.memory.0), |size| size.0) & !0xfff
    }

    /// What the guest is told.
    pub(super) fn params(&self) -> Result<Params, Error> {
        let pages_per_second = |size: Size| u32::try_from(size.0.div_ceil(4096)).unwrap_or(u32::MAX);
        let rate = self
            .dirty_rate
            .map_or(DirtyRate::FullSpeed, |rate| DirtyRate::PagesPerSecond(pages_per_second(rate)));
        let work =
            Work::Dirty(DirtyWork { rate, working_set: 1000, order: WriteOrder::Random, words_per_page: 8 });
        Ok(Params { beat_ms: 0, work, ..Params::new(random_nonce()?, self.touched_bytes()) })
    }

    pub(super) fn pages(&self) -> PageSize {
        match (self.hugepages, self.base_pages) {
            (true, _) => PageSize::Huge,
            (_, true) => PageSize::Base,
            _ => PageSize::Transparent,
        }
    }

    pub(super) fn config(&self, params: &Params) -> Result<Config, Error> {
        let kernel = Kernel::Flat { image: Cow::Owned(pulse::image(params)?) };
        let backing = Backing::Private(self.pages());
        Ok(Config { memory_bytes: self.memory.0, backing, vcpus: self.cpus, nested: false, kernel })
    }

    /// Sets aside the huge pages for the memory of this many machines, if it is to be on reserved pages. Call it after the pool
    /// has taken its own.
    pub(super) fn reserve(&self, machines: u64) -> Result<Option<ReservedHugePages>, Error> {
        if self.hugepages { pages::for_guests(self.memory, machines) } else { Ok(None) }
    }
}
