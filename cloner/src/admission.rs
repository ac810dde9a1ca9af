//! Whether there is memory for what a source and its copy may come to hold twice. Asked before anything begins, because running out
//! later would cost one of the two its life.

use vmm::memory::{Backing, HUGE_PAGE_SIZE, PageSize};

use crate::pool::{self, hugepages};

/// Why a copy of a running guest is not begun.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// If source and copy came to differ in every page that they share, they would need more memory than there is.
    #[error(
        "up to {needed_bytes} bytes may have to be kept twice, but only {available_bytes} bytes are available"
    )]
    TooLittleMemory {
        /// Bytes of pages that source and copy share at first.
        needed_bytes: u64,
        /// Bytes that the caller allows, or otherwise that the host has available.
        available_bytes: u64,
    },
    /// The host does not say how much memory is used, or how much is left.
    #[error("cannot tell how much memory is used and available")]
    Unknown(#[from] pool::Error),
}

/// How much memory the caller allows for copies.
#[derive(Debug, Clone, Copy, Default)]
pub struct CopyLimits {
    /// Most bytes to spend on pages that are kept twice. `None` allows everything that the host has available.
    pub copy_bytes: Option<u64>,
}

impl CopyLimits {
    /// Admits a copy that may need `needed_bytes` for pages of this backing.
    pub(crate) fn admit(self, needed_bytes: u64, backing: &Backing) -> Result<(), Error> {
        let available_bytes = self.available_bytes(backing)?;
        if needed_bytes > available_bytes {
            return Err(Error::TooLittleMemory { needed_bytes, available_bytes });
        }
        Ok(())
    }

    fn available_bytes(self, backing: &Backing) -> Result<u64, pool::Error> {
        match self.copy_bytes {
            Some(bytes) => Ok(bytes),
            // Copies of reserved huge pages are huge pages.
            None if matches!(backing, Backing::Private(PageSize::Huge)) => {
                let free = hugepages::HugePages::read()?.available();
                Ok((free * HUGE_PAGE_SIZE) as u64)
            }
            None => Ok(pool::available_bytes()? as u64),
        }
    }
}
