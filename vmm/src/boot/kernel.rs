//! Copying a Linux kernel and its initramfs into guest memory.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::Path;

use linux_loader::loader::bootparam::setup_header;
use linux_loader::loader::{BzImage, Elf, KernelLoader, KernelLoaderResult};
use vm_memory::GuestAddress;

use super::Error;
use crate::memory::{GuestMemory, layout};

const ELF_MAGIC: [u8; 4] = *b"\x7fELF";
/// `HdrS`, and where a bzImage has it (Documentation/arch/x86/boot.rst).
const BZIMAGE_MAGIC: [u8; 4] = *b"HdrS";
const BZIMAGE_MAGIC_OFFSET: u64 = 0x202;
/// Distance in bytes from the start of the protected-mode kernel to its 64-bit entry point.
const BZIMAGE_ENTRY_OFFSET: u64 = 0x200;
/// `XLF_KERNEL_64`: there is a 64-bit entry point.
const XLF_KERNEL_64: u16 = 1;

const PAGE: u64 = 4096;

/// A kernel in guest memory.
#[derive(Debug)]
pub(super) struct LoadedKernel {
    /// Guest-physical address to enter it at.
    pub(super) entry: u64,
    /// First guest-physical address after everything it needs before it knows its memory map.
    pub(super) end: u64,
    /// The header of a bzImage. An ELF kernel has none.
    pub(super) header: Option<setup_header>,
}

/// An initramfs in guest memory.
#[derive(Debug, Clone, Copy)]
pub(super) struct Initramfs {
    pub(super) address: u32,
    pub(super) len_bytes: u32,
}

/// Loads the kernel at `path`, which may be an ELF `vmlinux` or a bzImage.
pub(super) fn load(path: &Path, memory: &GuestMemory) -> Result<LoadedKernel, Error> {
    let (mut file, len_bytes) = open("kernel", path)?;
    let memory_bytes = memory.layout().low_bytes();
    let result = match format(&file) {
        Some(KernelFormat::Elf) => {
            Elf::load(memory.view(), None, &mut file, Some(GuestAddress(layout::HIGH_MEMORY_ADDRESS)))
        }
        Some(KernelFormat::BzImage) => {
            BzImage::load(memory.view(), None, &mut file, Some(GuestAddress(layout::HIGH_MEMORY_ADDRESS)))
        }
        None => return Err(Error::UnknownFormat { path: path.to_owned(), len_bytes }),
    };
    let KernelLoaderResult { kernel_load, kernel_end, setup_header: header, .. } =
        result.map_err(|source| Error::Load { path: path.to_owned(), len_bytes, memory_bytes, source })?;
    let (entry, end) = match header {
        None => (kernel_load.0, kernel_end),
        Some(header) => {
            if header.xloadflags & XLF_KERNEL_64 == 0 {
                return Err(Error::No64BitEntry { path: path.to_owned() });
            }
            // The loader takes everything that follows the setup code for the whole kernel, however short that is.
            let promised_bytes = bzimage_bytes(&header);
            if len_bytes < promised_bytes {
                return Err(Error::Truncated { path: path.to_owned(), len_bytes, promised_bytes });
            }
            // The kernel unpacks itself to its preferred address, and needs room there for both forms.
            let unpacked = header.pref_address.saturating_add(u64::from(header.init_size));
            (kernel_load.0 + BZIMAGE_ENTRY_OFFSET, kernel_end.max(unpacked))
        }
    };
    if end > memory_bytes {
        return Err(Error::KernelTooLarge { path: path.to_owned(), end, memory_bytes });
    }
    if entry < layout::HIGH_MEMORY_ADDRESS || entry >= end {
        return Err(Error::KernelTooLow { path: path.to_owned() });
    }
    Ok(LoadedKernel { entry, end, header })
}

/// Copies the initramfs to the end of memory below the gap, as far from the kernel as possible.
pub(super) fn load_initramfs(
    path: &Path,
    memory: &GuestMemory,
    kernel: &LoadedKernel,
) -> Result<Initramfs, Error> {
    let (mut file, len_bytes) = open("initramfs", path)?;
    let room_bytes = memory.layout().low_bytes().saturating_sub(kernel.end.next_multiple_of(PAGE));
    if len_bytes.next_multiple_of(PAGE) > room_bytes {
        return Err(Error::InitramfsTooLarge { path: path.to_owned(), len_bytes, room_bytes });
    }
    let address = (memory.layout().low_bytes() - len_bytes) & !(PAGE - 1);
    let unreadable = |source| Error::Read { what: "initramfs", path: path.to_owned(), source };
    let mut buffer = vec![0; 1 << 20];
    let mut written = 0;
    while written < len_bytes {
        let part = buffer.len().min(usize::try_from(len_bytes - written).unwrap_or(usize::MAX));
        file.read_exact(&mut buffer[..part]).map_err(unreadable)?;
        memory.write(address + written, &buffer[..part])?;
        written += part as u64;
    }
    let fits = "memory below the gap has 32-bit addresses";
    Ok(Initramfs {
        address: u32::try_from(address).expect(fits),
        len_bytes: u32::try_from(len_bytes).expect(fits),
    })
}

/// Length of a bzImage according to its header, in bytes. More may follow, such as a signature.
fn bzimage_bytes(header: &setup_header) -> u64 {
    const SECTOR: u64 = 512;
    const PARAGRAPH: u64 = 16;
    // The boot sector comes first. Ancient kernels say zero and mean four.
    let setup_sectors = if header.setup_sects == 0 { 4 } else { u64::from(header.setup_sects) };
    (1 + setup_sectors) * SECTOR + u64::from(header.syssize) * PARAGRAPH
}

/// Whether a file is a bzImage, which is a kernel that unpacks itself when it is booted. `false` if the file cannot be read or is
/// not a kernel.
#[must_use]
pub fn is_compressed(path: &Path) -> bool {
    open("kernel", path).is_ok_and(|(file, _)| matches!(format(&file), Some(KernelFormat::BzImage)))
}

enum KernelFormat {
    Elf,
    BzImage,
}

fn format(file: &File) -> Option<KernelFormat> {
    let magic_at = |offset| {
        let mut magic = [0; 4];
        file.read_exact_at(&mut magic, offset).ok().map(|()| magic)
    };
    match magic_at(0)? {
        ELF_MAGIC => Some(KernelFormat::Elf),
        _ if magic_at(BZIMAGE_MAGIC_OFFSET)? == BZIMAGE_MAGIC => Some(KernelFormat::BzImage),
        _ => None,
    }
}

/// Opens an ordinary file and returns its length in bytes. Anything else (a folder, a pipe) has no length to check against memory.
fn open(what: &'static str, path: &Path) -> Result<(File, u64), Error> {
    let unreadable = |source| Error::Read { what, path: path.to_owned(), source };
    let mut file = File::open(path).map_err(unreadable)?;
    if !file.metadata().map_err(unreadable)?.is_file() {
        return Err(unreadable(io::Error::new(io::ErrorKind::InvalidInput, "not an ordinary file")));
    }
    let len_bytes = file.seek(SeekFrom::End(0)).map_err(unreadable)?;
    file.rewind().map_err(unreadable)?;
    Ok((file, len_bytes))
}
