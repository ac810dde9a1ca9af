//! Guest memory that does not change while it is read, no matter what keeps it still.

use std::io;

use super::{AccessError, GuestMemory, Layout};

/// Why memory that stands still could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The range is not within the region, or part of it will never arrive.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The process that holds the memory was killed, or the kernel took memory from it.
    #[error(
        "process {pid}, which holds the source's memory, cannot be read: was it killed, or has the host run out of huge pages?"
    )]
    Holder {
        /// Number of the process that holds the memory.
        pid: u32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// This process may not read the memory of others, not even of its own descendants.
    #[error(
        "the kernel does not let this process read process {pid}, which holds the source's memory: is \
         kernel.yama.ptrace_scope above 1, or does a security module forbid it? A save in stop mode reads no other process"
    )]
    NotAllowed {
        /// Number of the process that holds the memory.
        pid: u32,
    },
}

impl ReadError {
    /// The error for `source`, with which reading memory held by process `pid` failed.
    #[must_use]
    pub fn of_holder(pid: u32, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotAllowed { pid },
            _ => Self::Holder { pid, source },
        }
    }
}

/// A guest's memory at one instant: that of a paused VM, or that held by another process ([`RemoteMemory`](super::RemoteMemory)).
pub trait StillMemory: Sync {
    /// Where the memory lies in guest-physical address space.
    fn layout(&self) -> Layout;

    /// Sets bit `i` of `bitmap` when the page at `offset + 4096 * i` of a region may hold anything but zeros.
    ///
    /// # Errors
    /// As [`Region::touched`](super::Region::touched); for a process that holds the memory, also `OutOfMemory` if the kernel has
    /// taken huge pages from it.
    ///
    /// # Panics
    /// If there is no such region, or `bitmap` has fewer than `pages` bits.
    fn touched(&self, region: usize, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()>;

    /// Copies `buffer.len()` bytes of a region out, starting at `offset` bytes from its start.
    ///
    /// # Errors
    /// [`ReadError::Access`] if the range is not within the region or part of it will never arrive; [`ReadError::Holder`] or
    /// [`ReadError::NotAllowed`] if the process that holds the memory cannot be read.
    ///
    /// # Panics
    /// If there is no such region.
    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError>;
}

/// The memory of a paused VM; nothing but its [`Paused`](crate::Paused) guard keeps it still.
impl StillMemory for GuestMemory {
    fn layout(&self) -> Layout {
        self.layout()
    }

    fn touched(&self, region: usize, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
        self.regions()[region].touched(offset, pages, bitmap)
    }

    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError> {
        Ok(self.regions()[region].read(offset, buffer)?)
    }
}
