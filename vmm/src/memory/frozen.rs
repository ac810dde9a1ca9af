//! Guest memory as it was at one instant, while the guest runs on.

use std::io;

use super::still::{ReadError, StillMemory};
use super::{AccessError, Backing, GuestMemory, Layout, Lost, PageSize};
use crate::sys::holder::Holder;
use crate::sys::mmap::{OutOfRange, PAGE_SIZE};
use crate::sys::pagemap::Pagemap;
use crate::sys::process::huge_bytes;

/// Why memory cannot be frozen. The VM is unharmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What one process writes to shared memory, all see.
    #[error("memory that is {0} cannot be frozen by fork(): only private memory can")]
    NotPrivate(String),
    /// It is a lazy clone's, and some of it will never arrive.
    #[error("cannot complete the memory before it is frozen")]
    Lost(#[from] Lost),
    /// The kernel made no child.
    #[error("cannot fork() a process that holds the memory")]
    Fork(#[source] io::Error),
    /// The child's page table cannot be read.
    #[error("cannot read the page table of the process that holds the memory")]
    Pagemap(#[source] io::Error),
}

/// Reserved huge pages that the source writes to are copied to others. When there are none, the kernel takes the old ones away from
/// the process that holds them, and by its page table it has never had them.
#[derive(Debug, thiserror::Error)]
#[error(
    "the host has run out of huge pages: the kernel took {taken_bytes} bytes of them from process {pid}, which holds the \
     source's memory"
)]
struct HugePagesTaken {
    taken_bytes: u64,
    pid: u32,
}

/// Fails if some of `pages` are not in `touched`, unless a process still has all the reserved huge pages it had: `before` bytes of
/// them, if it had any. Without that, a page that is not there is one that was never touched.
///
/// To be asked after the page table: a page that is taken from then on cannot be read, which is an error, too.
///
/// # Errors
/// `OutOfMemory` that says how many are gone; the kernel's.
pub fn check_none_taken(pid: u32, before: Option<u64>, pages: usize, touched: &[u64]) -> io::Result<()> {
    let there: usize = touched.iter().map(|word| word.count_ones() as usize).sum();
    let Some(before) = before.filter(|_| there < pages) else { return Ok(()) };
    match before.saturating_sub(huge_bytes(pid)?) {
        0 => Ok(()),
        taken_bytes => Err(io::Error::new(io::ErrorKind::OutOfMemory, HugePagesTaken { taken_bytes, pid })),
    }
}

/// A guest's memory at the instant of a pause, held by a process that runs no code ([`Holder`]).
///
/// Dropping it ends that process.
#[derive(Debug)]
pub struct FrozenMemory {
    layout: Layout,
    regions: Vec<Region>,
    pagemap: Pagemap,
    holder: Holder,
    /// Bytes of reserved huge pages that the holder had when it was made, if the guest's memory is made of them.
    huge_bytes: Option<u64>,
}

/// Where a region lies, in this process as in the holder.
#[derive(Debug)]
struct Region {
    host_address: u64,
    len_bytes: usize,
    /// Private over a template, whose bytes no page table shows until they are touched.
    over_template: bool,
}

impl FrozenMemory {
    /// Freezes the memory of a VM that stands still.
    pub(crate) fn of(memory: &GuestMemory) -> Result<Self, Error> {
        let over_template = match memory.backing() {
            Backing::Private(_) => false,
            Backing::OverTemplate(_) => true,
            Backing::Shared(_) => return Err(Error::NotPrivate(memory.backing().to_string())),
        };
        // What has not arrived when a lazy clone is frozen would never arrive in the holder.
        memory.supply_all()?;
        let region = |region: &super::Region| Region {
            host_address: region.mapping().host_address(),
            len_bytes: region.mapping().len_bytes(),
            over_template,
        };
        let regions = memory.regions().iter().map(region).collect();
        let holder = Holder::fork().map_err(Error::Fork)?;
        let pagemap = holder.pagemap().map_err(Error::Pagemap)?;
        let is_huge = matches!(memory.backing(), Backing::Private(PageSize::Huge));
        let huge_bytes = is_huge.then(|| huge_bytes(holder.pid())).transpose().map_err(Error::Pagemap)?;
        Ok(Self { layout: memory.layout(), regions, pagemap, holder, huge_bytes })
    }

    /// The process that holds it.
    #[must_use]
    pub const fn holder(&self) -> &Holder {
        &self.holder
    }

    /// Pages of `memory` that have been copied since because the guest wrote them, each 4 KiB. Without `CAP_SYS_ADMIN`, pages that
    /// another process shares as well are left out.
    ///
    /// `memory` is the one this was frozen from: its addresses mean nothing else.
    ///
    /// # Errors
    /// The kernel's.
    pub fn copied_pages(&self, memory: &GuestMemory) -> io::Result<usize> {
        let here = Pagemap::open()?;
        let mut copied = 0;
        for (frozen, region) in self.regions.iter().zip(memory.regions()) {
            if frozen.host_address != region.mapping().host_address() {
                return Err(io::ErrorKind::InvalidInput.into());
            }
            let pages = frozen.len_bytes / PAGE_SIZE;
            copied += self.pagemap.parted(&here, frozen.host_address, pages)?;
        }
        Ok(copied)
    }
}

impl StillMemory for FrozenMemory {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn touched(&self, region: usize, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
        let region = &self.regions[region];
        OutOfRange::check(offset, pages * PAGE_SIZE, region.len_bytes).map_err(io::Error::other)?;
        if region.over_template {
            super::region::set_first(pages, bitmap);
            return Ok(());
        }
        self.pagemap.touched(region.host_address + offset as u64, pages, bitmap)?;
        check_none_taken(self.holder.pid(), self.huge_bytes, pages, bitmap)
    }

    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError> {
        let region = &self.regions[region];
        OutOfRange::check(offset, buffer.len(), region.len_bytes).map_err(AccessError::from)?;
        self.holder
            .read(region.host_address + offset as u64, buffer)
            .map_err(|source| ReadError::of_holder(self.holder.pid(), source))
    }
}
