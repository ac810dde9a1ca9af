//! One contiguous range of guest-physical memory.

use std::io;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestRegionMmap};

use super::dirty::WrittenPages;
use super::layout::Range;
use super::supplier::{MemoryLost, Supplier};
use crate::sys::mmap::{Mapping, OutOfRange};
use crate::sys::page::PAGE_SIZE;
use crate::sys::pagemap::Pagemap;

/// A region: a range of guest-physical addresses and the mapping that backs it.
#[derive(Debug)]
pub struct Region {
    range: Range,
    // Before `mapping`, into which it points: fields are dropped in this order.
    view: Arc<GuestRegionMmap>,
    mapping: Arc<Mapping>,
    touched: Touched,
    written: WrittenPages,
    /// What brings the pages that are still missing, and this region's index in its calls.
    supplier: Option<(Arc<dyn Supplier>, usize)>,
}

/// Why memory of a region cannot be copied in or out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccessError {
    /// The requested range does not lie within the region.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// The memory had not arrived yet, and never will.
    #[error(transparent)]
    Lost(#[from] MemoryLost),
}

/// How to find out which pages hold anything.
#[derive(Debug)]
pub(super) enum Touched {
    /// The page table of this process knows every page that was ever written or read: private memory, and huge pages,
    /// which stay where they are.
    PageTable(Pagemap),
    /// The file that backs the mapping knows; the page table forgets pages of shared memory.
    File,
    /// Any page may hold something: a template's content was there before this mapping was touched.
    Everything,
}

impl Region {
    pub(super) fn new(range: Range, mapping: Mapping, touched: Touched) -> io::Result<Self> {
        let view = mapping.volatile_region().map_err(io::Error::other)?;
        let view = GuestRegionMmap::new(view, GuestAddress(range.start))
            .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let (view, mapping, written) = (Arc::new(view), Arc::new(mapping), WrittenPages::default());
        Ok(Self { range, view, mapping, touched, written, supplier: None })
    }

    /// This region for a child process; see [`GuestMemory::inherited`](super::GuestMemory::inherited).
    pub(super) fn inherited(self) -> io::Result<Self> {
        let Self { range, view, mapping, touched, written: _, supplier: _ } = self;
        let touched = match touched {
            // The descriptor that is open shows the parent's page table.
            Touched::PageTable(_) => Touched::PageTable(Pagemap::open()?),
            Touched::File | Touched::Everything => touched,
        };
        Ok(Self { range, view, mapping, touched, written: WrittenPages::default(), supplier: None })
    }

    /// The page table that shows which pages are present, if this kind of memory has one that does.
    pub(super) const fn page_table(&self) -> Option<&Pagemap> {
        match &self.touched {
            Touched::PageTable(pagemap) => Some(pagemap),
            Touched::File | Touched::Everything => None,
        }
    }

    /// The range of guest-physical addresses.
    #[must_use]
    pub const fn range(&self) -> Range {
        self.range
    }

    /// The mapping; offsets into it are offsets into the range.
    #[must_use]
    pub const fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// The memory itself, while no VM has it. `None` if another process or a supplier may have access to it.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.mapping)?.as_mut_slice()
    }

    pub(super) fn set_supplier(&mut self, supplier: Arc<dyn Supplier>, index: usize) {
        self.supplier = Some((supplier, index));
    }

    /// Waits until the range is complete: until any pages that were still missing have arrived.
    fn supply(&self, offset: usize, len_bytes: usize) -> Result<(), AccessError> {
        self.mapping.check(offset, len_bytes)?;
        match &self.supplier {
            Some((supplier, index)) => Ok(supplier.supply(*index, offset, len_bytes)?),
            None => Ok(()),
        }
    }

    pub(super) const fn view(&self) -> &Arc<GuestRegionMmap> {
        &self.view
    }

    pub(super) const fn written(&self) -> &WrittenPages {
        &self.written
    }

    /// Copies `buffer.len()` bytes out of the region, starting at `offset` bytes from its start.
    ///
    /// # Errors
    /// [`AccessError::OutOfRange`] if the range is not within the region, [`AccessError::Lost`] if part of it will never arrive.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), AccessError> {
        self.supply(offset, buffer.len())?;
        Ok(self.mapping.read(offset, buffer)?)
    }

    /// Copies `bytes` into the region, starting at `offset` bytes from its start, and marks the pages [dirty](super::dirty).
    ///
    /// # Errors
    /// [`AccessError::OutOfRange`] if the range is not within the region, [`AccessError::Lost`] if part of it will never arrive.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        self.supply(offset, bytes.len())?;
        self.mapping.write(offset, bytes)?;
        self.written.note(offset, bytes.len());
        Ok(())
    }

    /// Sets bit `i` of `bitmap` when the page at `offset + 4096 * i` may hold anything but zeros.
    ///
    /// Memory is not read for this: a clear bit means that neither guest nor host ever touched the page. The call waits for
    /// pages that are still to arrive.
    ///
    /// # Errors
    /// `InvalidInput` if the range is not within the region; [`MemoryLost`] as the source of the error if part of it will never
    /// arrive; otherwise the kernel's error from reading the page table or searching the file.
    ///
    /// # Panics
    /// If `bitmap` has fewer than `pages` bits.
    pub fn touched(&self, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
        self.supply(offset, pages * PAGE_SIZE).map_err(|error| match error {
            AccessError::OutOfRange(error) => io::Error::new(io::ErrorKind::InvalidInput, error),
            AccessError::Lost(error) => io::Error::other(error),
        })?;
        match &self.touched {
            Touched::PageTable(pagemap) => {
                pagemap.touched(self.mapping.host_address() + offset as u64, pages, bitmap)
            }
            Touched::File => self
                .mapping
                .touched_in_file(offset, pages, bitmap)
                .unwrap_or_else(|| Err(io::Error::from(io::ErrorKind::Unsupported))),
            Touched::Everything => {
                set_first(pages, bitmap);
                Ok(())
            }
        }
    }
}

/// Sets the first `pages` bits and clears all others.
///
/// # Panics
/// If `bitmap` has fewer than `pages` bits.
pub(super) fn set_first(pages: usize, bitmap: &mut [u64]) {
    assert!(pages <= bitmap.len() * 64, "{pages} pages in {} words", bitmap.len());
    for (i, word) in bitmap.iter_mut().enumerate() {
        let bits = pages.saturating_sub(i * 64).min(64);
        *word = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    }
}
