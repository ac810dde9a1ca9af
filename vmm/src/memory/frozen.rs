//! Guest memory as it was at one instant, while the guest runs on.

use std::io;

use super::remote::{RemoteMemory, RemotePages};
use super::{Backing, GuestMemory, MemoryLost};
use crate::sys::holder::Holder;

/// Why memory cannot be frozen. The VM is unharmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memory is shared: what one process writes to it, all see.
    #[error("memory that is {0} cannot be frozen by fork(): only private memory can")]
    NotPrivate(String),
    /// The memory belongs to a lazy clone, and some of it will never arrive.
    #[error("cannot complete the memory before it is frozen")]
    Lost(#[from] MemoryLost),
    /// The kernel refused to fork this process.
    #[error("cannot fork() a process that holds the memory")]
    Fork(#[source] io::Error),
    /// The page table of the process that holds the memory cannot be read.
    #[error("cannot read the page table of the process that holds the memory")]
    Pagemap(#[source] io::Error),
}

/// A guest's memory at the instant of a pause, held by a process that runs no code ([`Holder`]).
///
/// Dropping it ends that process.
#[derive(Debug)]
pub struct FrozenMemory {
    memory: RemoteMemory,
    /// Kept because dropping it ends the process.
    _holder: Holder,
}

impl FrozenMemory {
    /// Freezes the memory of a VM that is paused.
    pub(crate) fn of(memory: &GuestMemory) -> Result<Self, Error> {
        if let Backing::Shared(_) = memory.backing() {
            return Err(Error::NotPrivate(memory.backing().to_string()));
        }
        // What is still missing when a lazy clone is frozen would never arrive in the holder.
        memory.supply_all()?;
        let holder = Holder::fork().map_err(Error::Fork)?;
        Self::held_by(holder, memory).map_err(Error::Pagemap)
    }

    fn held_by(holder: Holder, memory: &GuestMemory) -> io::Result<Self> {
        let (pid, layout) = (holder.pid(), memory.layout());
        let addresses = memory.host_addresses().collect();
        let held = RemotePages::of(memory, pid)?;
        let memory = RemoteMemory::new(pid, None, layout, addresses, held)?;
        Ok(Self { memory, _holder: holder })
    }

    /// The memory, to be read like that of a paused VM.
    #[must_use]
    pub const fn memory(&self) -> &RemoteMemory {
        &self.memory
    }

    /// Counts the 4 KiB pages of `memory` that have been copied since the freeze because the guest wrote them. Without
    /// `CAP_SYS_ADMIN`, pages that another process shares as well are left out.
    ///
    /// `memory` must be the memory that was frozen: otherwise its addresses mean nothing.
    ///
    /// # Errors
    /// `InvalidInput` for any other memory; the kernel's error if one of the two page tables cannot be read.
    pub fn copied_pages(&self, memory: &GuestMemory) -> io::Result<usize> {
        if !memory.host_addresses().eq(self.memory.host_addresses().iter().copied()) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.memory.parted_pages()
    }
}
