//! Guest memory: made first, then handed to the VM that runs in it.
//!
//! Eager, lazy and forked clones differ in nothing but how they make the [`GuestMemory`] that
//! [`Vm::restore`](crate::Vm::restore) is given.

pub mod backing;
pub mod dirty;
pub mod frozen;
mod huge;
pub mod layout;
mod region;
mod remote;
mod still;
mod supplier;
mod sys;

use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use rustix::io::Errno;
use vm_memory::{GuestMemoryMmap, GuestRegionMmap};

pub use backing::{Backing, PageSize};
use dirty::Tracking;
pub use dirty::{DirtySet, Epoch};
pub use frozen::FrozenMemory;
pub use huge::{HugeRange, RangeSharing};
pub use layout::Layout;
use region::Touched;
use region::set_first;
pub use region::{AccessError, Region};
pub use remote::{RemoteMemory, RemotePages};
pub use still::{ReadError, StillMemory};
pub use supplier::{MemoryLost, Supplier};
pub use sys::Machine;

pub use crate::sys::mmap::{Mapping, MappingSource, OutOfRange};
pub use crate::sys::page::{HUGE_PAGE_SIZE, PAGE_SIZE};
pub use crate::sys::{memfd, uffd as userfault};

use crate::host::memory::host_total_bytes;
use crate::host::pages::HugePagePool;
use crate::sys::pagemap::Pagemap;

/// Why guest memory could not be made, or an access to it failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No guest can have memory of this size.
    #[error("impossible size of guest memory")]
    Layout(#[from] layout::Error),
    /// The guest would have more memory than this host.
    #[error("{wanted_bytes} bytes of guest memory are more than the {host_bytes} bytes this host has")]
    LargerThanHost {
        /// The size asked for.
        wanted_bytes: u64,
        /// All memory of the host, free or not.
        host_bytes: u64,
    },
    /// Too few 2 MiB pages are free.
    #[error(
        "{wanted} free 2 MiB pages are needed for guest memory, {free} are free: \
         write a larger number to /proc/sys/vm/nr_hugepages"
    )]
    TooFewHugePages {
        /// Pages the guest needs.
        wanted: u64,
        /// Pages that were free and not promised to another mapping.
        free: u64,
    },
    /// The kernel refused to map a region.
    #[error("cannot map {len_bytes} bytes of guest memory ({backing})")]
    Map {
        /// Bytes of the region.
        len_bytes: u64,
        /// What it was to be made of, as [`Backing`] displays it.
        backing: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The page table of this process cannot be read.
    #[error("cannot open /proc/self/pagemap")]
    Pagemap(#[source] io::Error),
    /// An access to guest-physical memory that does not exist.
    #[error(
        "the {len_bytes} bytes at guest-physical address {address:#x} do not all lie in one region of memory"
    )]
    NoMemory {
        /// First guest-physical address.
        address: u64,
        /// Length of the access, in bytes.
        len_bytes: usize,
    },
    /// The memory had not arrived yet, and never will.
    #[error(transparent)]
    Lost(#[from] MemoryLost),
    /// Another process holds the memory, and it could not be read.
    #[error(transparent)]
    Remote(#[from] ReadError),
}

/// The memory of one guest, as one or two [`Region`]s.
#[derive(Debug)]
pub struct GuestMemory {
    layout: Layout,
    backing: Backing,
    // Before `regions`, into whose mappings it points.
    view: GuestMemoryMmap,
    // Before `regions`, so that it is gone when they are unmapped, wherever its last reference is dropped.
    supplier: Option<Arc<dyn Supplier>>,
    regions: Vec<Region>,
    tracking: Tracking,
}

impl GuestMemory {
    /// Makes memory of `layout` out of `backing`. It reads as zeros, or as the template.
    ///
    /// # Errors
    /// Nothing is left behind by any of these:
    /// * [`Error::LargerThanHost`] if the host has less memory than the guest is to have.
    /// * [`Error::Layout`] if the size is not a multiple of 2 MiB and the memory is to be on reserved huge pages.
    /// * [`Error::TooFewHugePages`] if too few of them are free; the caller can reserve more or choose another backing.
    /// * [`Error::Map`] if the kernel refuses a mapping for another reason.
    pub fn new(layout: Layout, backing: Backing) -> Result<Self, Error> {
        let wanted_bytes = layout.size_bytes();
        let host_bytes = host_total_bytes();
        if wanted_bytes > host_bytes {
            return Err(Error::LargerThanHost { wanted_bytes, host_bytes });
        }
        if matches!(&backing, Backing::Private(PageSize::Huge) | Backing::Shared(PageSize::Huge)) {
            layout.check_huge_pages()?;
        }
        let mut regions = Vec::with_capacity(2);
        let mut file_offset = 0;
        for range in layout.ranges() {
            match make_region(range, &backing, file_offset) {
                Ok(region) => regions.push(region),
                Err(source) => {
                    // What the regions before it were promised is free again, and counts as such in the error.
                    drop(regions);
                    return Err(map_error(&layout, range, &backing, source));
                }
            }
            file_offset += range.len_bytes;
        }
        let views: Vec<Arc<GuestRegionMmap>> =
            regions.iter().map(|region| Arc::clone(region.view())).collect();
        let view =
            GuestMemoryMmap::from_arc_regions(views).expect("regions of a layout ascend and do not overlap");
        Ok(Self { layout, backing, view, supplier: None, regions, tracking: Tracking::default() })
    }

    /// Where the memory lies in guest-physical address space.
    #[must_use]
    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// What the memory is made of.
    #[must_use]
    pub const fn backing(&self) -> &Backing {
        &self.backing
    }

    /// The regions, by ascending address.
    #[must_use]
    pub fn regions(&self) -> &[Region] {
        &self.regions
    }

    /// The same regions, to be filled before a VM gets them.
    pub fn regions_mut(&mut self) -> &mut [Region] {
        &mut self.regions
    }

    /// Whether a [`Supplier`] brings, or has brought, what was missing.
    pub(crate) const fn is_supplied(&self) -> bool {
        self.supplier.is_some()
    }

    /// The same memory for this process, which inherited it from its parent by `fork()`: what the parent had open is opened anew,
    /// and what it had noted is forgotten.
    pub(crate) fn inherited(self) -> io::Result<Self> {
        let Self { layout, backing, view, supplier: _, regions, tracking: _ } = self;
        let regions = regions.into_iter().map(Region::inherited).collect::<io::Result<_>>()?;
        Ok(Self { layout, backing, view, supplier: None, regions, tracking: Tracking::default() })
    }

    const fn tracking(&self) -> &Tracking {
        &self.tracking
    }

    /// Has `supplier` bring what is still missing from this memory, for as long as the memory lives.
    #[must_use]
    pub fn supplied_by(mut self, supplier: &Arc<dyn Supplier>) -> Self {
        for (index, region) in self.regions.iter_mut().enumerate() {
            region.set_supplier(Arc::clone(supplier), index);
        }
        self.supplier = Some(Arc::clone(supplier));
        self
    }

    /// Where each region starts in this process's address space, in the order of the layout.
    pub fn host_addresses(&self) -> impl Iterator<Item = u64> + '_ {
        self.regions.iter().map(|region| region.mapping().host_address())
    }

    /// Returns when all of the memory is there: immediately, unless it belongs to a lazy clone.
    ///
    /// # Errors
    /// [`MemoryLost`] if some of it will never arrive.
    pub fn supply_all(&self) -> Result<(), MemoryLost> {
        self.supplier.as_ref().map_or(Ok(()), |supplier| supplier.supply_all())
    }

    /// Calls `stop` once if memory turns out to be lost; see [`Supplier::on_loss`]. Has no effect on memory without a supplier.
    pub(crate) fn on_loss(&self, stop: impl FnOnce(&MemoryLost) + Send + 'static) {
        if let Some(supplier) = &self.supplier {
            supplier.on_loss(Box::new(stop));
        }
    }

    /// Lets all threads go that wait for memory which is missing; see [`Supplier::give_up`].
    pub(crate) fn give_up_missing(&self) {
        if let Some(supplier) = &self.supplier {
            supplier.give_up();
        }
    }

    /// The memory in the terms of `vm-memory`, for loaders.
    pub(crate) const fn view(&self) -> &GuestMemoryMmap {
        &self.view
    }

    /// Copies `buffer.len()` bytes out, starting at guest-physical `address`.
    ///
    /// # Errors
    /// [`Error::NoMemory`] unless all of them lie within one region; [`Error::Lost`] if some will never arrive.
    pub fn read(&self, address: u64, buffer: &mut [u8]) -> Result<(), Error> {
        self.at(address, buffer.len(), |region, offset| region.read(offset, buffer))
    }

    /// Copies `bytes` into memory, starting at guest-physical `address`.
    ///
    /// # Errors
    /// [`Error::NoMemory`] unless the whole range lies within one region; [`Error::Lost`] if part of it will never arrive. Nothing
    /// is written in either case.
    pub fn write(&self, address: u64, bytes: &[u8]) -> Result<(), Error> {
        self.at(address, bytes.len(), |region, offset| region.write(offset, bytes))
    }

    fn at(
        &self,
        address: u64,
        len_bytes: usize,
        access: impl FnOnce(&Region, usize) -> Result<(), AccessError>,
    ) -> Result<(), Error> {
        let no_memory = Error::NoMemory { address, len_bytes };
        let Some((region, offset)) = self.layout().locate(address, len_bytes) else { return Err(no_memory) };
        access(&self.regions[region], offset).map_err(|error| match error {
            AccessError::OutOfRange(_) => no_memory,
            AccessError::Lost(lost) => lost.into(),
        })
    }
}

fn make_region(range: layout::Range, backing: &Backing, file_offset: u64) -> io::Result<Region> {
    let len_bytes = usize::try_from(range.len_bytes).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let map = |source, offset| Mapping::new(source, len_bytes, offset);
    let by_page_table = || Pagemap::open().map(Touched::PageTable);
    match backing {
        Backing::Private(pages) => {
            let huge = *pages == PageSize::Huge;
            let mapping = map(if huge { MappingSource::AnonymousHuge } else { MappingSource::Anonymous }, 0)?;
            if !huge {
                advise(&mapping, *pages)?;
            }
            Region::new(range, mapping, by_page_table()?)
        }
        Backing::Shared(pages) => {
            let huge = *pages == PageSize::Huge;
            let mapping = Mapping::new_memfd(c"guest-memory", len_bytes, huge)?;
            if huge {
                return Region::new(range, mapping, by_page_table()?);
            }
            advise(&mapping, *pages)?;
            Region::new(range, mapping, Touched::File)
        }
        Backing::OverTemplate(template) => {
            let mapping = map(MappingSource::CopyOnWrite(template.as_fd()), file_offset)?;
            Region::new(range, mapping, Touched::Everything)
        }
    }
}

fn advise(mapping: &Mapping, pages: PageSize) -> io::Result<()> {
    match mapping.advise_huge_pages(pages == PageSize::Transparent) {
        // A kernel without transparent huge pages has 4 KiB pages only, and either choice allows those.
        Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => Ok(()),
        result => result,
    }
}

fn map_error(layout: &Layout, range: layout::Range, backing: &Backing, source: io::Error) -> Error {
    let huge = matches!(backing, Backing::Private(PageSize::Huge) | Backing::Shared(PageSize::Huge));
    if huge && Errno::from_io_error(&source) == Some(Errno::NOMEM) {
        let wanted = layout.size_bytes() / HUGE_PAGE_SIZE as u64;
        return Error::TooFewHugePages { wanted, free: free_huge_pages() };
    }
    Error::Map { len_bytes: range.len_bytes, backing: backing.to_string(), source }
}

/// Number of 2 MiB pages that a mapping could get now, for an error message: those that are promised to another one do not count.
/// Zero if the kernel has no hugetlb: to the reader that means the same.
fn free_huge_pages() -> u64 {
    let pools = HugePagePool::all();
    let pool = pools.iter().find(|pool| pool.page_bytes == HUGE_PAGE_SIZE as u64);
    pool.map_or(0, HugePagePool::available)
}

#[cfg(test)]
mod tests;
