//! Guest memory that another process holds, read from outside while that process does nothing.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use serde::{Deserialize, Serialize};

use super::{
    AccessError, Backing, Error, GuestMemory, Layout, PageSize, ReadError, StillMemory, layout, set_first,
};
use crate::sys::mmap::OutOfRange;
use crate::sys::page::PAGE_SIZE;
use crate::sys::pagemap::Pagemap;
use crate::sys::process::{huge_bytes, read_memory};

/// When the source writes to a reserved huge page, the kernel copies it to another one. When none are left, it takes the old page
/// away from the process that holds it, whose page table then looks as if the page had never been there.
#[derive(Debug, thiserror::Error)]
#[error(
    "the host has run out of huge pages: the kernel took {taken_bytes} bytes of them from process {pid}, which holds the \
     source's memory"
)]
struct HugePagesTaken {
    taken_bytes: u64,
    pid: u32,
}

/// How a process holds the memory of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum RemotePages {
    /// In private pages that its page table shows.
    Private,
    /// In reserved huge pages. If it has fewer of them later, the kernel has taken some away.
    Huge {
        /// Bytes of huge pages it had at the instant that is to be read.
        bytes: u64,
    },
    /// In private pages over a template, whose bytes no page table shows until they are touched.
    OverTemplate,
}

impl RemotePages {
    /// How process `pid` holds `memory`, which it has inherited or is about to hand down.
    pub(crate) fn of(memory: &GuestMemory, pid: u32) -> io::Result<Self> {
        match memory.backing() {
            Backing::OverTemplate(_) => Ok(Self::OverTemplate),
            Backing::Private(PageSize::Huge) => Ok(Self::Huge { bytes: huge_bytes(pid)? }),
            Backing::Private(_) | Backing::Shared(_) => Ok(Self::Private),
        }
    }
}

/// The memory of a guest in another process, which must not change it.
///
/// The kernel lets root and ancestors of that process read it and, where Yama does not forbid it, any process of the same user.
#[derive(Debug)]
pub struct RemoteMemory {
    pid: u32,
    /// `None` if no other process can have been given its number.
    pidfd: Option<OwnedFd>,
    pagemap: Pagemap,
    layout: Layout,
    /// Where each region of the layout starts in that process's address space.
    host_addresses: Vec<u64>,
    held: RemotePages,
}

impl RemoteMemory {
    /// The memory that process `pid` has at `host_addresses`, one for each region of `layout`.
    ///
    /// Each read uses `pidfd`, a descriptor of that process, to check that it has not ended and left its number to another. A child
    /// that this process has not waited for keeps its number, and `pidfd` may be `None`.
    ///
    /// # Errors
    /// `InvalidInput` if a region would not end inside an address space. `ENOENT` or `ESRCH` if the process has ended; otherwise the
    /// kernel's reason for not opening its page table, such as `EACCES` if this process may not read it.
    ///
    /// # Panics
    /// If the number of addresses differs from the number of regions.
    pub fn new(
        pid: u32,
        pidfd: Option<OwnedFd>,
        layout: Layout,
        host_addresses: Vec<u64>,
        held: RemotePages,
    ) -> io::Result<Self> {
        assert_eq!(host_addresses.len(), layout.ranges().count(), "one address for each region");
        // The addresses may be what that process says, and are added to below.
        let has_end = |(range, start): (layout::Range, &u64)| start.checked_add(range.len_bytes).is_some();
        if !layout.ranges().zip(&host_addresses).all(has_end) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a region has no end"));
        }
        let pagemap = Pagemap::of(pid)?;
        let memory = Self { pid, pidfd, pagemap, layout, host_addresses, held };
        // If it has ended, the number, and so the page table, may belong to another process by now.
        memory.check_alive()?;
        Ok(memory)
    }

    /// Number of the process that holds the memory.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Copies `buffer.len()` bytes out, starting at guest-physical `address`.
    ///
    /// # Errors
    /// [`Error::NoMemory`] unless all of them lie within one region; [`Error::Remote`] if the process cannot be read.
    pub fn read_guest(&self, address: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let len_bytes = buffer.len();
        let place = self.layout.locate(address, len_bytes);
        let (region, offset) = place.ok_or(Error::NoMemory { address, len_bytes })?;
        Ok(self.read(region, offset, buffer)?)
    }

    /// Counts the 4 KiB pages that this process and that one no longer share because one of them wrote to them. This process must
    /// have the memory at the same addresses. Without `CAP_SYS_ADMIN`, pages that a third process shares as well are left out.
    pub(super) fn parted_pages(&self) -> io::Result<usize> {
        let here = Pagemap::open()?;
        let regions = self.host_addresses.iter().enumerate();
        regions
            .map(|(region, &at)| self.pagemap.parted(&here, at, self.region_bytes(region) / PAGE_SIZE))
            .sum()
    }

    /// Where each region starts in that process's address space.
    pub(super) fn host_addresses(&self) -> &[u64] {
        &self.host_addresses
    }

    /// Fails with `ESRCH` if the process has ended, so that its number may belong to another.
    fn check_alive(&self) -> io::Result<()> {
        let Some(pidfd) = &self.pidfd else { return Ok(()) };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Ok(()),
            Ok(_) => Err(rustix::io::Errno::SRCH.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails if the kernel may have taken huge pages from the process: if `touched` has fewer than `pages` bits set and the process
    /// has fewer reserved huge pages than it had. If it still has all of them, a page that is missing was never touched.
    ///
    /// Call this after the page table was read: a page that is taken later cannot be read, which is an error as well.
    fn check_none_taken(&self, pages: usize, touched: &[u64]) -> io::Result<()> {
        let RemotePages::Huge { bytes } = self.held else { return Ok(()) };
        let there: usize = touched.iter().map(|word| word.count_ones() as usize).sum();
        if there >= pages {
            return Ok(());
        }
        match bytes.saturating_sub(huge_bytes(self.pid)?) {
            0 => Ok(()),
            taken_bytes => {
                let taken = HugePagesTaken { taken_bytes, pid: self.pid };
                Err(io::Error::new(io::ErrorKind::OutOfMemory, taken))
            }
        }
    }

    fn region_bytes(&self, region: usize) -> usize {
        let range = self.layout.ranges().nth(region).expect("the caller knows the layout");
        usize::try_from(range.len_bytes).expect("it is mapped in a process like this one")
    }
}

impl StillMemory for RemoteMemory {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn touched(&self, region: usize, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
        OutOfRange::check(offset, pages * PAGE_SIZE, self.region_bytes(region)).map_err(io::Error::other)?;
        if self.held == RemotePages::OverTemplate {
            set_first(pages, bitmap);
            return Ok(());
        }
        self.pagemap.touched(self.host_addresses[region] + offset as u64, pages, bitmap)?;
        self.check_none_taken(pages, bitmap)
    }

    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError> {
        OutOfRange::check(offset, buffer.len(), self.region_bytes(region)).map_err(AccessError::from)?;
        read_memory(self.pid, self.host_addresses[region] + offset as u64, buffer)
            // The number may have belonged to another process when it was read.
            .and_then(|()| self.check_alive())
            .map_err(|source| ReadError::of_holder(self.pid, source))
    }
}
