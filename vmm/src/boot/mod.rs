//! Filling guest memory before the first instruction: a Linux kernel, or a flat image.
//!
//! # The flat protocol
//! A flat image is copied to [`FLAT_IMAGE_ADDRESS`](layout::FLAT_IMAGE_ADDRESS) (512 KiB) and entered at its first byte
//! by *every* vCPU, in 64-bit mode, ring 0, interrupts off:
//!
//! | what | value |
//! |---|---|
//! | RDI, RSI | index of this vCPU, number of vCPUs |
//! | RDX, RCX | bytes of memory below the MMIO gap, bytes above 4 GiB |
//! | other general registers | 0; RSP too: the image brings its own stack |
//! | paging | all memory and the first 4 GiB map to themselves, writable, open to ring 3 |
//! | CR4 | PAE, OSFXSR, OSXMMEXCPT; FSGSBASE and OSXSAVE where the vCPU has them |
//! | XCR0 | x87, SSE, AVX, as far as the vCPU has them |
//! | segments | flat; 0x10 and 0x18 ring-0 code and data, 0x33 and 0x2b ring-3 |
//!
//! Memory below the image belongs to the VMM until the image has tables of its own.

mod kernel;
mod mptable;
mod params;

pub use kernel::is_compressed;

use std::io;
use std::path::PathBuf;

use crate::config::Kernel;
use crate::memory::{self, GuestMemory, layout};
use crate::vcpu::setup::Entry;
use crate::vcpu::tables;

/// Why a guest cannot be booted from what was given.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be opened or read.
    #[error("cannot read the {what} {}", path.display())]
    Read {
        /// `kernel` or `initramfs`.
        what: &'static str,
        /// Path of the file.
        path: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The file has neither of the two formats of kernels.
    #[error("{} is not a kernel: neither an ELF vmlinux nor a bzImage (it has {len_bytes} bytes)", path.display())]
    UnknownFormat {
        /// Path of the file.
        path: PathBuf,
        /// Length of the file, in bytes.
        len_bytes: u64,
    },
    /// The file is a kernel, but it is broken or does not fit into memory.
    #[error(
        "cannot load the kernel {} ({len_bytes} bytes) into {memory_bytes} bytes of memory: it is truncated, \
         damaged or too large",
        path.display()
    )]
    Load {
        /// Path of the kernel.
        path: PathBuf,
        /// Length of the file, in bytes.
        len_bytes: u64,
        /// Bytes of memory below the MMIO gap.
        memory_bytes: u64,
        /// The loader's reason.
        source: linux_loader::loader::Error,
    },
    /// The file is a bzImage that is shorter than its own header says.
    #[error("the kernel {} is truncated: it has {len_bytes} bytes, its header promises {promised_bytes}", path.display())]
    Truncated {
        /// Path of the kernel.
        path: PathBuf,
        /// Length of the file, in bytes.
        len_bytes: u64,
        /// Length according to its header, in bytes.
        promised_bytes: u64,
    },
    /// The kernel fits into memory, but leaves no room for its own data.
    #[error("the kernel {} needs memory up to {end:#x}, the guest has {memory_bytes:#x} bytes below 4 GiB", path.display())]
    KernelTooLarge {
        /// Path of the kernel.
        path: PathBuf,
        /// First guest-physical address after everything it needs.
        end: u64,
        /// Bytes of memory below the MMIO gap.
        memory_bytes: u64,
    },
    /// The kernel would overwrite the boot structures.
    #[error("the kernel {} wants to be loaded at or entered below {:#x}, where the boot structures are", path.display(), layout::HIGH_MEMORY_ADDRESS)]
    KernelTooLow {
        /// Path of the kernel.
        path: PathBuf,
    },
    /// The kernel is a bzImage from before 64-bit boot.
    #[error("the kernel {} has no 64-bit entry point", path.display())]
    No64BitEntry {
        /// Path of the kernel.
        path: PathBuf,
    },
    /// The initramfs does not fit into memory next to the kernel.
    #[error("the initramfs {} has {len_bytes} bytes; between the kernel and the end of memory there are {room_bytes}", path.display())]
    InitramfsTooLarge {
        /// Path of the initramfs.
        path: PathBuf,
        /// Length of the file, in bytes.
        len_bytes: u64,
        /// Bytes between the end of the kernel and the end of memory below the MMIO gap.
        room_bytes: u64,
    },
    /// The command line does not fit.
    #[error("the kernel command line has {len_bytes} bytes, the limit is {} (this host adds {added_bytes} of them)", layout::COMMAND_LINE_MAX_BYTES - 1)]
    CommandLineTooLong {
        /// Length of the whole command line, in bytes.
        len_bytes: usize,
        /// How many of these bytes were added for this host.
        added_bytes: usize,
    },
    /// The command line contains a zero byte or another character that no kernel reads.
    #[error("the kernel command line contains characters other than printable ASCII")]
    CommandLineCharacters,
    /// The flat image does not fit into memory.
    #[error(
        "the flat image has {len_bytes} bytes; from {:#x} on the guest has {room_bytes} bytes of memory",
        layout::FLAT_IMAGE_ADDRESS
    )]
    FlatTooLarge {
        /// Length of the image, in bytes.
        len_bytes: u64,
        /// Bytes of memory from the image's address to the MMIO gap or the end of memory.
        room_bytes: u64,
    },
    /// The flat image has no content.
    #[error("the flat image is empty")]
    FlatEmpty,
    /// The kernel gave no random numbers to seed the guest with.
    #[error("cannot get random numbers from the kernel")]
    Random(#[source] io::Error),
    /// The boot structures cannot be written.
    #[error("cannot write the boot structures")]
    Memory(#[from] memory::Error),
}

/// Fills `memory` with everything that booting `kernel` takes, and returns how the guest is entered. A Linux kernel finds
/// `additions`, which this host needs, at the end of its command line.
pub(crate) fn load(
    additions: &'static str,
    kernel: &Kernel,
    memory: &GuestMemory,
    vcpus: u8,
) -> Result<Entry, Error> {
    match kernel {
        Kernel::Flat { image } => {
            let layout = memory.layout();
            let len_bytes = image.len() as u64;
            let room_bytes = layout.low_bytes() - layout::FLAT_IMAGE_ADDRESS;
            if image.is_empty() {
                return Err(Error::FlatEmpty);
            }
            if len_bytes > room_bytes {
                return Err(Error::FlatTooLarge { len_bytes, room_bytes });
            }
            tables::write(memory, layout::MMIO_GAP_END + layout.high_bytes())?;
            memory.write(layout::FLAT_IMAGE_ADDRESS, image)?;
            Ok(Entry::Flat)
        }
        Kernel::Linux { path, initramfs, cmdline } => {
            let cmdline = command_line(cmdline, additions)?;
            let loaded = kernel::load(path, memory)?;
            let initramfs = match initramfs {
                Some(path) => Some(kernel::load_initramfs(path, memory, &loaded)?),
                None => None,
            };
            // Everything that the Linux entry point needs mapped lies below the end of the gap.
            tables::write(memory, layout::MMIO_GAP_END)?;
            mptable::write(memory, vcpus)?;
            params::write(memory, &loaded, initramfs, &cmdline)?;
            Ok(Entry::Linux { address: loaded.entry })
        }
    }
}

/// The way in for fuzzing: as the guest is booted, without a host that can run it. Returns the address at which it would be entered.
///
/// # Errors
/// Those of booting: see [`Error`].
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub fn load_without_kvm(kernel: &Kernel, memory: &GuestMemory, vcpus: u8) -> Result<u64, Error> {
    Ok(match load("", kernel, memory, vcpus)? {
        Entry::Flat => layout::FLAT_IMAGE_ADDRESS,
        Entry::Linux { address } => address,
    })
}

fn command_line(given: &str, additions: &'static str) -> Result<String, Error> {
    let given = given.trim();
    if !given.bytes().all(|byte| (b' '..=b'~').contains(&byte)) {
        return Err(Error::CommandLineCharacters);
    }
    let whole = if additions.is_empty() { given.to_owned() } else { format!("{given} {additions}") };
    if whole.len() >= layout::COMMAND_LINE_MAX_BYTES {
        return Err(Error::CommandLineTooLong {
            len_bytes: whole.len(),
            added_bytes: whole.len() - given.len(),
        });
    }
    tracing::debug!(command_line = whole, "kernel command line");
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn command_lines_are_checked() {
        assert_eq!(command_line(" quiet ", "").unwrap(), "quiet");
        assert_eq!(command_line("quiet", "noxsave").unwrap(), "quiet noxsave");
        assert!(matches!(command_line("a\0b", ""), Err(Error::CommandLineCharacters)));
        assert!(matches!(command_line("a\nb", ""), Err(Error::CommandLineCharacters)));
        let longest = "x".repeat(layout::COMMAND_LINE_MAX_BYTES - 1);
        assert!(command_line(&longest, "").is_ok());
        let error = command_line(&longest, "y").unwrap_err();
        assert!(matches!(error, Error::CommandLineTooLong { len_bytes: 2049, added_bytes: 2 }), "{error}");
    }
}
