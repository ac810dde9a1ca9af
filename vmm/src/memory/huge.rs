//! Transparent huge pages: copy-on-write splits them, and this puts them back together.

use std::io;

use super::{Backing, GuestMemory, PageSize};
use crate::sys::page::{HUGE_PAGE_SIZE, PAGE_SIZE};

const PAGES: usize = HUGE_PAGE_SIZE / PAGE_SIZE;

/// 2 MiB of a guest's memory, which may be one huge page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HugeRange {
    region: usize,
    offset: usize,
}

/// How many 4 KiB pages of a range are present, and how many of those belong to this process alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RangeSharing {
    /// 4 KiB pages that are present in the range, at most 512.
    pub present: usize,
    /// How many of them no other process has.
    pub own: usize,
}

impl GuestMemory {
    /// The ranges that may be huge pages. There are none if the memory is not on transparent huge pages.
    #[must_use]
    pub fn huge_ranges(&self) -> Vec<HugeRange> {
        if !matches!(self.backing, Backing::Private(PageSize::Transparent)) {
            return Vec::new();
        }
        let ranges = |(region, memory): (usize, &super::Region)| {
            let count = memory.mapping().len_bytes() / HUGE_PAGE_SIZE;
            (0..count).map(move |i| HugeRange { region, offset: i * HUGE_PAGE_SIZE })
        };
        self.regions.iter().enumerate().flat_map(ranges).collect()
    }

    /// How many pages of a range are present, and how many this process shares with no other.
    ///
    /// # Errors
    /// `InvalidInput` or `Unsupported` for a range of other memory; otherwise the kernel's error from reading the page table.
    pub fn sharing(&self, HugeRange { region, offset }: HugeRange) -> io::Result<RangeSharing> {
        let region = self.regions.get(region).ok_or(io::ErrorKind::InvalidInput)?;
        let pagemap = region.page_table().ok_or(io::ErrorKind::Unsupported)?;
        let (present, own) = pagemap.own(region.mapping().host_address() + offset as u64, PAGES)?;
        Ok(RangeSharing { present, own })
    }

    /// Makes one huge page of a range by copying it, unless it is one already. Pages that were shared belong to this process alone
    /// afterwards. The guest may run meanwhile.
    ///
    /// # Errors
    /// `EINVAL` if the kernel has no transparent huge pages or the range holds nothing; `ENOMEM` or `EAGAIN` if it found no huge
    /// page or could not move the small ones, in which case the range stays as it is and the caller can try again later.
    pub fn collapse_range(&self, HugeRange { region, offset }: HugeRange) -> io::Result<()> {
        self.regions.get(region).ok_or(io::ErrorKind::InvalidInput)?.mapping().collapse(offset)
    }

    /// Puts all huge pages that copy-on-write has split back together, in all of the memory that was touched. Returns how many
    /// 2 MiB ranges are huge pages now.
    ///
    /// The guest may run meanwhile. Memory on other kinds of pages is left alone, and so are ranges that the kernel cannot
    /// collapse: memory in small pages works, but takes longer to freeze the next time (milliseconds per GiB instead of a tenth of
    /// that).
    ///
    /// # Errors
    /// The kernel's error if the page table cannot be read.
    pub fn collapse(&self) -> io::Result<usize> {
        let mut huge = 0;
        for range in self.huge_ranges() {
            huge += usize::from(self.sharing(range)?.present > 0 && self.collapse_range(range).is_ok());
        }
        Ok(huge)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Layout, PageSize};
    use super::*;
    use crate::sys::holder::{self, Holder};

    #[test]
    fn what_another_process_has_too_is_told_from_what_it_has_not() {
        let _turn = holder::turn();
        let memory = GuestMemory::new(Layout::new(4 << 20).unwrap(), Backing::Private(PageSize::Transparent));
        let memory = memory.unwrap();
        let [first, second] = memory.huge_ranges()[..] else { panic!("4 MiB") };
        assert_eq!(memory.sharing(first).unwrap(), RangeSharing { present: 0, own: 0 });
        for page in 0..PAGES as u64 {
            memory.write(page * 4096, &[1]).unwrap();
        }
        assert_eq!(memory.sharing(first).unwrap(), RangeSharing { present: PAGES, own: PAGES });
        assert_eq!(memory.sharing(second).unwrap().present, 0);
        let holder = Holder::fork().unwrap();
        assert_eq!(memory.sharing(first).unwrap(), RangeSharing { present: PAGES, own: 0 });
        memory.write(5 * 4096, &[2]).unwrap();
        assert_eq!(memory.sharing(first).unwrap(), RangeSharing { present: PAGES, own: 1 });
        drop(holder);
        assert_eq!(memory.sharing(first).unwrap(), RangeSharing { present: PAGES, own: PAGES });
        let mut byte = [0];
        let huge = memory.collapse_range(first).is_ok();
        memory.read(5 * 4096, &mut byte).unwrap();
        assert_eq!((byte, memory.collapse().unwrap()), ([2], usize::from(huge)));

        let memory =
            GuestMemory::new(Layout::new(4 << 20).unwrap(), Backing::Private(PageSize::Base)).unwrap();
        assert!(memory.huge_ranges().is_empty());
        assert_eq!(memory.collapse().unwrap(), 0);
    }
}
