//! One contiguous range of guest-physical memory.

use std::io;
use std::sync::Arc;

use vm_memory::{GuestAddress, GuestRegionMmap};

use super::dirty::WrittenPages;
use super::layout::Range;
use super::supplier::{Lost, Supplier};
use crate::sys::mmap::{Mapping, OutOfRange, PAGE_SIZE};
use crate::sys::pagemap::Pagemap;

/// A region: a range of guest-physical addresses and the mapping behind it.
#[derive(Debug)]
pub struct Region {
    range: Range,
    // Before `mapping`, into which it points: fields are dropped in this order.
    view: Arc<GuestRegionMmap>,
    mapping: Arc<Mapping>,
    touched: Touched,
    written: WrittenPages,
    /// Who brings missing pages, and this region's index there.
    supplier: Option<(Arc<dyn Supplier>, usize)>,
}

/// Why memory of a region cannot be copied in or out.
#[derive(Debug, Clone, thiserror::Error)]
pub enum AccessError {
    /// The range is not within the region.
    #[error(transparent)]
    OutOfRange(#[from] OutOfRange),
    /// It has not arrived yet, and never will.
    #[error(transparent)]
    Lost(#[from] Lost),
}

/// How to tell which pages hold anything.
#[derive(Debug)]
pub(super) enum Touched {
    /// The page table of this process knows every page that was ever written or read: private memory, and huge pages,
    /// which stay where they are.
    PageTable(Pagemap),
    /// The file behind the mapping knows; the page table forgets pages of shared memory.
    File,
    /// Everything may hold something: a template's content was there before anybody touched this mapping.
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

    /// See [`GuestMemory::inherited`](super::GuestMemory::inherited).
    pub(super) fn inherited(self) -> io::Result<Self> {
        let Self { range, view, mapping, touched, written: _, supplier: _ } = self;
        let touched = match touched {
            // The one that is open is the parent's.
            Touched::PageTable(_) => Touched::PageTable(Pagemap::open()?),
            Touched::File | Touched::Everything => touched,
        };
        Ok(Self { range, view, mapping, touched, written: WrittenPages::default(), supplier: None })
    }

    /// The page table that says which pages there are, where it knows.
    pub(super) const fn page_table(&self) -> Option<&Pagemap> {
        match &self.touched {
            Touched::PageTable(pagemap) => Some(pagemap),
            Touched::File | Touched::Everything => None,
        }
    }

    /// The guest-physical range.
    #[must_use]
    pub const fn range(&self) -> Range {
        self.range
    }

    /// The mapping; offsets into it are offsets into the range.
    #[must_use]
    pub const fn mapping(&self) -> &Arc<Mapping> {
        &self.mapping
    }

    /// The memory itself, while no VM has it. `None` if somebody else may have it: another process, or who supplies it.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        Arc::get_mut(&mut self.mapping)?.as_mut_slice()
    }

    pub(super) fn set_supplier(&mut self, supplier: Arc<dyn Supplier>, index: usize) {
        self.supplier = Some((supplier, index));
    }

    /// Waits for pages that are still missing.
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

    /// Copies memory out.
    ///
    /// # Errors
    /// A range that is not within the region, or memory that was lost on its way.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), AccessError> {
        self.supply(offset, buffer.len())?;
        Ok(self.mapping.read(offset, buffer)?)
    }

    /// Copies memory in. The pages are [dirty](super::dirty) then.
    ///
    /// # Errors
    /// A range that is not within the region, or memory that was lost on its way.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), AccessError> {
        self.supply(offset, bytes.len())?;
        self.mapping.write(offset, bytes)?;
        self.written.note(offset, bytes.len());
        Ok(())
    }

    /// Sets bit `i` of `bitmap` when the page at `offset + 4096 * i` may hold anything but zeros.
    ///
    /// Memory is not read for this: a clear bit means that nobody, guest or host, ever touched the page. Pages that are
    /// still to arrive do so first.
    ///
    /// # Errors
    /// A range that is not within the region (`InvalidInput`), a page table that cannot be read, or memory that was lost
    /// on its way.
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
/// If there are fewer.
pub(super) fn set_first(pages: usize, bitmap: &mut [u64]) {
    assert!(pages <= bitmap.len() * 64, "{pages} pages in {} words", bitmap.len());
    for (i, word) in bitmap.iter_mut().enumerate() {
        let bits = pages.saturating_sub(i * 64).min(64);
        *word = if bits == 64 { u64::MAX } else { (1 << bits) - 1 };
    }
}
