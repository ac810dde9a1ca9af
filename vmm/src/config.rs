//! What a VM is to be: its memory, its processors, and what it boots.

use std::borrow::Cow;
use std::path::PathBuf;

use crate::memory::{Backing, Layout, PageSize, layout};

/// A description of a VM that is to be booted.
#[derive(Debug, Clone)]
pub struct Config {
    /// Memory in bytes: 1 MiB to 64 GiB, a multiple of 4 KiB (of 2 MiB on huge pages), at most what the host has.
    pub memory_bytes: u64,
    /// What the memory is made of.
    pub backing: Backing,
    /// Number of vCPUs: 1 to 16.
    pub vcpus: u8,
    /// Whether the guest is shown VT-x or SVM, to run guests of its own. Booting fails on hosts whose KVM does not offer that.
    pub nested: bool,
    /// The kernel or image to boot.
    pub kernel: Kernel,
}

/// What a VM boots.
#[derive(Debug, Clone)]
pub enum Kernel {
    /// A Linux kernel: ELF `vmlinux` or bzImage.
    Linux {
        /// Path of the kernel.
        path: PathBuf,
        /// Path of the initial RAM file system.
        initramfs: Option<PathBuf>,
        /// Command line; on some hosts more is appended
        /// (see [`Host::cmdline_additions`](crate::host::Host::cmdline_additions)).
        cmdline: String,
    },
    /// A bare-metal image for the flat protocol of [`crate::boot`].
    Flat {
        /// The bytes of the image.
        image: Cow<'static, [u8]>,
    },
}

/// A configuration that no VM can have.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No guest can have memory of this size, or not on pages of this kind.
    #[error("impossible memory size")]
    Memory(#[from] layout::Error),
    /// No guest can have this number of vCPUs.
    #[error("{0} vCPUs: a guest has 1 to {max}", max = layout::MAX_VCPUS)]
    Vcpus(u8),
}

impl Config {
    /// A VM with one vCPU and private memory on transparent huge pages, which runs no guests of its own.
    #[must_use]
    pub const fn new(memory_bytes: u64, kernel: Kernel) -> Self {
        Self {
            memory_bytes,
            backing: Backing::Private(PageSize::Transparent),
            vcpus: 1,
            nested: false,
            kernel,
        }
    }

    /// Checks everything that can be checked without a host, and returns the layout of the memory.
    ///
    /// # Errors
    /// [`Error::Vcpus`] or [`Error::Memory`], each with the range that is allowed.
    pub fn layout(&self) -> Result<Layout, Error> {
        if self.vcpus == 0 || self.vcpus > layout::MAX_VCPUS {
            return Err(Error::Vcpus(self.vcpus));
        }
        let layout = Layout::new(self.memory_bytes)?;
        if matches!(&self.backing, Backing::Private(PageSize::Huge) | Backing::Shared(PageSize::Huge)) {
            layout.check_huge_pages()?;
        }
        Ok(layout)
    }
}
