//! Guest memory that another process holds, read from outside while that process does nothing.

use std::io;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use serde::{Deserialize, Serialize};

use super::{AccessError, Backing, Error, GuestMemory, Layout, PageSize, ReadError, StillMemory, set_first};
use crate::sys::mmap::{OutOfRange, PAGE_SIZE};
use crate::sys::pagemap::Pagemap;
use crate::sys::process::{huge_bytes, read_memory};

/// Reserved huge pages that the source writes to are copied to others. When none are left, the kernel takes the old ones away from
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

/// How a process holds the memory of a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Held {
    /// In private pages, which its page table shows.
    Private,
    /// In reserved huge pages, of which it had this many bytes at the instant that counts.
    Huge {
        /// Bytes of them.
        bytes: u64,
    },
    /// In private pages over a template, whose bytes no page table shows until they are touched.
    OverTemplate,
}

impl Held {
    /// How process `pid` holds `memory`, which it inherits or is about to hand down.
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
/// The kernel lets root read it, ancestors of the process, and, where Yama does not forbid it, any process of the same user.
#[derive(Debug)]
pub struct RemoteMemory {
    pid: u32,
    /// `None` if nobody else can have its number.
    pidfd: Option<OwnedFd>,
    pagemap: Pagemap,
    layout: Layout,
    /// Where each region of the layout starts in that process.
    host_addresses: Vec<u64>,
    held: Held,
}

impl RemoteMemory {
    /// The memory that process `pid` has at `host_addresses`, one for each region of `layout`.
    ///
    /// `pidfd` is that process's, by which each read finds out whether it still has its number. A child that this process has not
    /// waited for keeps its number and needs none.
    ///
    /// # Errors
    /// The kernel's if the page table cannot be read, `ESRCH` if the process has ended.
    ///
    /// # Panics
    /// Unless there is one address for each region.
    pub fn new(
        pid: u32,
        pidfd: Option<OwnedFd>,
        layout: Layout,
        host_addresses: Vec<u64>,
        held: Held,
    ) -> io::Result<Self> {
        assert_eq!(host_addresses.len(), layout.ranges().count(), "one address for each region");
        let pagemap = Pagemap::of(pid)?;
        let memory = Self { pid, pidfd, pagemap, layout, host_addresses, held };
        // Otherwise the number, and so the page table, may be another process's by now.
        memory.check_alive()?;
        Ok(memory)
    }

    /// Its process number.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Copies guest-physical memory out.
    ///
    /// # Errors
    /// [`Error::NoMemory`] unless all of it lies within one region; [`Error::Remote`] if the process cannot be read.
    pub fn read_guest(&self, address: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let len_bytes = buffer.len();
        let place = self.layout.locate(address, len_bytes);
        let (region, offset) = place.ok_or(Error::NoMemory { address, len_bytes })?;
        Ok(self.read(region, offset, buffer)?)
    }

    /// Pages that this process and that one no longer share because one of them wrote to them, each 4 KiB; this process has the
    /// memory at the same addresses. Without `CAP_SYS_ADMIN`, pages that a third process shares as well are left out.
    pub(super) fn parted_pages(&self) -> io::Result<usize> {
        let here = Pagemap::open()?;
        let regions = self.host_addresses.iter().enumerate();
        regions
            .map(|(region, &at)| self.pagemap.parted(&here, at, self.region_bytes(region) / PAGE_SIZE))
            .sum()
    }

    /// Where each region starts in that process.
    pub(super) fn host_addresses(&self) -> &[u64] {
        &self.host_addresses
    }

    /// `ESRCH` if the process has ended and its number may be another's.
    fn check_alive(&self) -> io::Result<()> {
        let Some(pidfd) = &self.pidfd else { return Ok(()) };
        let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
        match poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })) {
            Ok(0) => Ok(()),
            Ok(_) => Err(rustix::io::Errno::SRCH.into()),
            Err(error) => Err(error.into()),
        }
    }

    /// Fails if some of `pages` are not in `touched`, unless the process still has all the reserved huge pages it had. Otherwise a
    /// page that is not there is one that was never touched.
    ///
    /// To be asked after the page table: a page that is taken from then on cannot be read, which is an error as well.
    fn check_none_taken(&self, pages: usize, touched: &[u64]) -> io::Result<()> {
        let Held::Huge { bytes } = self.held else { return Ok(()) };
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
        if self.held == Held::OverTemplate {
            set_first(pages, bitmap);
            return Ok(());
        }
        self.pagemap.touched(self.host_addresses[region] + offset as u64, pages, bitmap)?;
        self.check_none_taken(pages, bitmap)
    }

    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError> {
        OutOfRange::check(offset, buffer.len(), self.region_bytes(region)).map_err(AccessError::from)?;
        read_memory(self.pid, self.host_addresses[region] + offset as u64, buffer)
            // The number may have been another process's when it was read.
            .and_then(|()| self.check_alive())
            .map_err(|source| ReadError::of_holder(self.pid, source))
    }
}
