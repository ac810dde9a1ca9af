//! Guest memory that does not change while it is read, whoever keeps it still.

use std::io;

use super::{AccessError, GuestMemory, Layout};

/// Why memory that stands still could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// Not a range of the region, or memory that never arrived.
    #[error(transparent)]
    Access(#[from] AccessError),
    /// The process that holds the memory was killed, or the kernel took memory from it.
    #[error(
        "process {pid}, which holds the source's memory, cannot be read: was it killed, or has the host run out of huge pages?"
    )]
    Holder {
        /// The process.
        pid: u32,
        /// The kernel's reason.
        source: io::Error,
    },
    /// This process may not look into others, not even into those that it is an ancestor of.
    #[error(
        "the kernel does not let this process read process {pid}, which holds the source's memory: is \
         kernel.yama.ptrace_scope above 1, or does a security module forbid it? Saved in stop mode, nothing else is read"
    )]
    NotAllowed {
        /// The process.
        pid: u32,
    },
}

impl ReadError {
    /// What it means that a process which holds memory could not be read.
    #[must_use]
    pub fn of_holder(pid: u32, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::PermissionDenied => Self::NotAllowed { pid },
            _ => Self::Holder { pid, source },
        }
    }
}

/// Memory of a guest at one instant: of a VM that is paused, or of a process that holds it ([`RemoteMemory`](super::RemoteMemory)).
pub trait StillMemory: Sync {
    /// Where the memory lies.
    fn layout(&self) -> Layout;

    /// Sets bit `i` of `bitmap` when the page at `offset + 4096 * i` of a region may hold anything but zeros.
    ///
    /// # Errors
    /// As [`Region::touched`](super::Region::touched).
    ///
    /// # Panics
    /// If there is no such region, or `bitmap` has fewer than `pages` bits.
    fn touched(&self, region: usize, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()>;

    /// Copies memory of a region out.
    ///
    /// # Errors
    /// See [`ReadError`].
    ///
    /// # Panics
    /// If there is no such region.
    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError>;
}

/// Of a VM that is paused; nothing but its [`Paused`](crate::Paused) guard keeps it still.
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
