//! The page tables and the descriptor table that a guest starts with.

use crate::memory::layout;
use crate::memory::{Error, GuestMemory};

/// Selector of the ring-0 64-bit code segment.
pub const CODE_SELECTOR: u16 = 0x10;
/// Selector of the ring-0 data segment.
pub const DATA_SELECTOR: u16 = 0x18;

/// Null, unused, ring-0 code and data, unused, ring-3 data (0x2b) and 64-bit code (0x33), in the order SYSRET wants.
const GDT: [u64; 7] =
    [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff, 0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff];

/// Offset of the descriptor table's last byte, as the GDTR's limit wants it.
#[expect(clippy::cast_possible_truncation, reason = "56 bytes")]
pub const GDT_LIMIT: u16 = (size_of_val(&GDT) - 1) as u16;

const PRESENT_WRITABLE_USER: u64 = 0b111;
const LARGE_PAGE: u64 = 1 << 7;
const ENTRIES: usize = 512;
const GIB: u64 = 1 << 30;

/// Writes the descriptor table, and page tables that map guest-physical addresses to themselves in 2 MiB pages.
///
/// They map everything below `end`. Every level allows ring 3.
///
/// # Errors
/// [`Error::NoMemory`] if the memory is too small for the tables, which [`layout::MIN_MEMORY_BYTES`] excludes.
pub(crate) fn write(memory: &GuestMemory, end: u64) -> Result<(), Error> {
    memory.write(layout::GDT_ADDRESS, &bytes(&GDT))?;
    let directories = end.div_ceil(GIB);
    let pointer_table = layout::PAGE_TABLE_ADDRESS + 0x1000;
    let first_directory = pointer_table + 0x1000;
    memory.write(layout::PAGE_TABLE_ADDRESS, &bytes(&[pointer_table | PRESENT_WRITABLE_USER]))?;
    for gib in 0..directories {
        let directory = first_directory + gib * 0x1000;
        memory.write(pointer_table + gib * 8, &bytes(&[directory | PRESENT_WRITABLE_USER]))?;
        let entries: [u64; ENTRIES] =
            std::array::from_fn(|i| (gib * GIB + ((i as u64) << 21)) | PRESENT_WRITABLE_USER | LARGE_PAGE);
        memory.write(directory, &bytes(&entries))?;
    }
    Ok(())
}

fn bytes(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}
