//! The "zero page", in which the boot loader tells a Linux kernel what it has to know (Documentation/arch/x86/boot.rst,
//! zero-page.rst).

use std::io;

use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::ByteValued;

use super::Error;
use super::kernel::{Initramfs, LoadedKernel};
use crate::host::random;
use crate::memory::layout::{self, EBDA_ADDRESS, HIGH_MEMORY_ADDRESS, MMIO_GAP_END};
use crate::memory::{GuestMemory, Layout};

const SETUP_RNG_SEED: u32 = 9;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;
/// Type of a boot loader without a registered number.
const LOADER_UNDEFINED: u8 = 0xff;
const BOOT_FLAG: u16 = 0xaa55;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"HdrS");
/// The alignment given to an ELF kernel, which brings no header of its own.
const KERNEL_ALIGNMENT: u32 = 0x100_0000;

pub(super) fn write(
    memory: &GuestMemory,
    kernel: &LoadedKernel,
    initramfs: Option<Initramfs>,
    cmdline: &str,
) -> Result<(), Error> {
    let mut params = boot_params::default();
    match &kernel.header {
        Some(header) => params.hdr = *header,
        None => {
            params.hdr.boot_flag = BOOT_FLAG;
            params.hdr.header = HEADER_MAGIC;
            params.hdr.kernel_alignment = KERNEL_ALIGNMENT;
        }
    }
    params.hdr.type_of_loader = LOADER_UNDEFINED;
    params.hdr.cmd_line_ptr = u32::try_from(layout::COMMAND_LINE_ADDRESS).expect("below 1 MiB");
    params.hdr.cmdline_size = u32::try_from(cmdline.len()).expect("checked against COMMAND_LINE_MAX_BYTES");
    if let Some(Initramfs { address, len_bytes }) = initramfs {
        params.hdr.ramdisk_image = address;
        params.hdr.ramdisk_size = len_bytes;
    }
    let map = memory_map(memory.layout());
    params.e820_table[..map.len()].copy_from_slice(&map);
    params.e820_entries = u8::try_from(map.len()).expect("at most four entries");

    params.hdr.setup_data = layout::SETUP_DATA_ADDRESS;

    let seed = random_seed().map_err(Error::Random)?;
    memory.write(layout::SETUP_DATA_ADDRESS, &seed)?;
    memory.write(layout::ZERO_PAGE_ADDRESS, params.as_slice())?;
    memory.write(layout::COMMAND_LINE_ADDRESS, cmdline.as_bytes())?;
    memory.write(layout::COMMAND_LINE_ADDRESS + cmdline.len() as u64, &[0])?;
    Ok(())
}

/// A `setup_data` node (next, type, length, data) with random bytes from the host. Without it, a guest that has no hardware random
/// numbers would start with none, and spend seconds guessing at its own jitter.
fn random_seed() -> io::Result<Vec<u8>> {
    let seed: [u8; 32] = random::bytes()?;
    let mut node = vec![0; 8];
    node.extend(SETUP_RNG_SEED.to_le_bytes());
    node.extend(u32::try_from(seed.len()).expect("32 bytes").to_le_bytes());
    node.extend(seed);
    Ok(node)
}

fn memory_map(layout: Layout) -> Vec<boot_e820_entry> {
    let entry = |start, end, kind| boot_e820_entry { addr: start, size: end - start, r#type: kind };
    let mut map =
        vec![entry(0, EBDA_ADDRESS, E820_RAM), entry(EBDA_ADDRESS, layout::EBDA_END, E820_RESERVED)];
    if layout.low_bytes() > HIGH_MEMORY_ADDRESS {
        map.push(entry(HIGH_MEMORY_ADDRESS, layout.low_bytes(), E820_RAM));
    }
    if layout.high_bytes() > 0 {
        map.push(entry(MMIO_GAP_END, MMIO_GAP_END + layout.high_bytes(), E820_RAM));
    }
    map
}
