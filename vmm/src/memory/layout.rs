//! Where everything lives: the machine's addresses, interrupt lines and ports.
//!
//! ```text
//!  guest-physical address
//!  0x0000_0000  ┌──────────────────────────┐
//!  0x0000_0500  │ boot GDT                 │
//!  0x0000_6000  │ setup data (random seed)  │
//!  0x0000_7000  │ zero page (boot_params)  │
//!  0x0000_9000  │ PML4, PDPT, page dirs    │ one page directory per GiB
//!  0x0002_0000  │ kernel command line      │ Linux only, which needs four page directories
//!  0x0008_0000  │ flat images              │
//!  0x0009_fc00  │ MP table (EBDA)          │
//!  0x000a_0000  ├╌╌╌╌╌╌ legacy hole ╌╌╌╌╌╌╌┤ ordinary memory here, but not in the e820 map
//!  0x0010_0000  │ kernel, initramfs, ...   │
//!               │ region 0: up to 3 GiB    │
//!  0xc000_0000  ├──────────────────────────┤
//!               │ MMIO gap: no memory      │ I/O APIC, local APIC, KVM's own pages
//!  0x1_0000_0000├──────────────────────────┤
//!               │ region 1: the rest       │
//!               └──────────────────────────┘
//! ```

use crate::sys::page::{HUGE_PAGE_SIZE, PAGE_SIZE};

/// The global descriptor table that guests are booted with.
pub const GDT_ADDRESS: u64 = 0x500;
/// An empty interrupt descriptor table, in use until the guest loads its own.
pub const IDT_ADDRESS: u64 = 0x600;
/// The setup data that the zero page points to: random bytes for the guest's generator.
pub const SETUP_DATA_ADDRESS: u64 = 0x6000;
/// The "zero page" of the Linux boot protocol.
pub const ZERO_PAGE_ADDRESS: u64 = 0x7000;
/// Top of the stack a Linux kernel starts with (it switches to its own at once).
pub const BOOT_STACK_ADDRESS: u64 = 0x8ff0;
/// Root of the boot page tables; the others follow.
pub const PAGE_TABLE_ADDRESS: u64 = 0x9000;
/// The kernel command line.
pub const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;
/// Longest kernel command line in bytes, terminating zero included (`COMMAND_LINE_SIZE` of Linux on x86).
pub const COMMAND_LINE_MAX_BYTES: usize = 2048;
/// Where flat images are copied to and entered.
pub const FLAT_IMAGE_ADDRESS: u64 = 0x8_0000;
/// Start of the extended BIOS data area, where guests look for the MP table.
pub const EBDA_ADDRESS: u64 = 0x9_fc00;
/// End of conventional memory.
pub const EBDA_END: u64 = 0xa_0000;
/// Lowest address that a kernel may be loaded to.
pub const HIGH_MEMORY_ADDRESS: u64 = 0x10_0000;

/// Start of the hole below 4 GiB that holds devices.
pub const MMIO_GAP_START: u64 = 0xc000_0000;
/// End of that hole.
pub const MMIO_GAP_END: u64 = 0x1_0000_0000;
/// The I/O APIC's registers (fixed by KVM).
pub const IO_APIC_ADDRESS: u32 = 0xfec0_0000;
/// The local APIC's registers (fixed by KVM).
pub const LOCAL_APIC_ADDRESS: u32 = 0xfee0_0000;
/// One page KVM needs on Intel processors without unrestricted guest mode.
pub const IDENTITY_MAP_ADDRESS: u64 = 0xfffb_c000;
/// Three pages KVM needs there for the same reason.
pub const TSS_ADDRESS: usize = 0xfffb_d000;

/// First port of the console's 16550.
pub const SERIAL_PORT: u16 = 0x3f8;
/// Interrupt line of the console.
pub const SERIAL_IRQ: u32 = 4;
/// First port of the keyboard controller, which exists only so that a guest can ask it for a reset.
pub const I8042_PORT: u16 = 0x60;
/// First port of the battery-backed clock.
pub const CMOS_PORT: u16 = 0x70;
/// The port that a guest writes to in order to end itself, as with QEMU's `isa-debug-exit`.
pub const DEBUG_EXIT_PORT: u16 = 0xf4;

/// Memory of the smallest guest, in bytes: room for the boot structures and a flat image.
pub const MIN_MEMORY_BYTES: u64 = 1 << 20;
/// Memory of the largest guest, in bytes: the page directories of the flat protocol must end where the flat image begins.
pub const MAX_MEMORY_BYTES: u64 = 64 << 30;
/// Largest number of vCPUs a guest can have.
pub const MAX_VCPUS: u8 = 16;

// The page directories, one per GiB of memory and gap, fit between their address and the flat image.
const _: () = assert!(
    PAGE_TABLE_ADDRESS + 0x2000 + ((MAX_MEMORY_BYTES + (1 << 30)) >> 30) * 0x1000 <= FLAT_IMAGE_ADDRESS
);

/// Where a guest's memory lies: one range below the MMIO gap, one above it if there is more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    low_bytes: u64,
    high_bytes: u64,
}

/// A contiguous range of guest-physical addresses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Range {
    /// First guest-physical address.
    pub start: u64,
    /// Length in bytes.
    pub len_bytes: u64,
}

/// A memory size that no guest can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than [`MIN_MEMORY_BYTES`].
    #[error("{0} bytes of guest memory are fewer than the minimum of {MIN_MEMORY_BYTES} (1 MiB)")]
    TooSmall(u64),
    /// More bytes than [`MAX_MEMORY_BYTES`].
    #[error("{0} bytes of guest memory are more than the maximum of {MAX_MEMORY_BYTES} (64 GiB)")]
    TooLarge(u64),
    /// Not a multiple of the page size.
    #[error("{size_bytes} bytes of guest memory are not a multiple of the page size {page_bytes}")]
    Odd {
        /// The size asked for.
        size_bytes: u64,
        /// Size of the pages that the memory is to be made of.
        page_bytes: u64,
    },
}

impl Layout {
    /// The layout of a guest with `size_bytes` of memory.
    ///
    /// # Errors
    /// A size outside [`MIN_MEMORY_BYTES`] to [`MAX_MEMORY_BYTES`], or one that is not a multiple of 4 KiB.
    pub const fn new(size_bytes: u64) -> Result<Self, Error> {
        if size_bytes < MIN_MEMORY_BYTES {
            return Err(Error::TooSmall(size_bytes));
        }
        if size_bytes > MAX_MEMORY_BYTES {
            return Err(Error::TooLarge(size_bytes));
        }
        if !size_bytes.is_multiple_of(PAGE_SIZE as u64) {
            return Err(Error::Odd { size_bytes, page_bytes: PAGE_SIZE as u64 });
        }
        let low_bytes = if size_bytes < MMIO_GAP_START { size_bytes } else { MMIO_GAP_START };
        Ok(Self { low_bytes, high_bytes: size_bytes - low_bytes })
    }

    /// Checks that the memory can be made of 2 MiB pages.
    ///
    /// # Errors
    /// [`Error::Odd`] if not.
    pub const fn check_huge_pages(&self) -> Result<(), Error> {
        let size_bytes = self.size_bytes();
        if size_bytes.is_multiple_of(HUGE_PAGE_SIZE as u64) {
            Ok(())
        } else {
            Err(Error::Odd { size_bytes, page_bytes: HUGE_PAGE_SIZE as u64 })
        }
    }

    /// The ranges, in ascending order.
    pub fn ranges(&self) -> impl Iterator<Item = Range> + use<> {
        let low = Range { start: 0, len_bytes: self.low_bytes };
        let high = Range { start: MMIO_GAP_END, len_bytes: self.high_bytes };
        [low, high].into_iter().filter(|range| range.len_bytes > 0)
    }

    /// The index of the region that contains all of `len_bytes` at a guest-physical address, and the offset in it where they start.
    pub(crate) fn locate(&self, address: u64, len_bytes: usize) -> Option<(usize, usize)> {
        self.ranges().enumerate().find_map(|(region, range)| {
            let offset = address.checked_sub(range.start)?;
            let end = offset.checked_add(len_bytes as u64)?;
            (end <= range.len_bytes).then(|| Some((region, usize::try_from(offset).ok()?)))?
        })
    }

    /// Bytes below the MMIO gap.
    #[must_use]
    pub const fn low_bytes(&self) -> u64 {
        self.low_bytes
    }

    /// Bytes above 4 GiB.
    #[must_use]
    pub const fn high_bytes(&self) -> u64 {
        self.high_bytes
    }

    /// Bytes of memory in all.
    #[must_use]
    pub const fn size_bytes(&self) -> u64 {
        self.low_bytes + self.high_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gap_holds_no_memory() {
        let sizes = [1 << 20, (1 << 20) + 4096, MMIO_GAP_START, MMIO_GAP_START + 4096, 8 << 30, 64 << 30];
        for size in sizes {
            let layout = Layout::new(size).unwrap();
            let ranges: Vec<Range> = layout.ranges().collect();
            assert_eq!(ranges.iter().map(|r| r.len_bytes).sum::<u64>(), size);
            for range in ranges {
                let end = range.start + range.len_bytes;
                assert!(end <= MMIO_GAP_START || range.start >= MMIO_GAP_END, "{range:x?}");
            }
        }
    }

    #[test]
    fn impossible_sizes_are_named() {
        assert_eq!(Layout::new(0), Err(Error::TooSmall(0)));
        assert_eq!(Layout::new(MIN_MEMORY_BYTES - 1), Err(Error::TooSmall(MIN_MEMORY_BYTES - 1)));
        assert_eq!(Layout::new(u64::MAX), Err(Error::TooLarge(u64::MAX)));
        let odd = MIN_MEMORY_BYTES + 1;
        assert_eq!(Layout::new(odd), Err(Error::Odd { size_bytes: odd, page_bytes: 4096 }));
        assert!(Layout::new(MIN_MEMORY_BYTES).unwrap().check_huge_pages().is_err());
    }

    #[test]
    fn a_range_is_located_if_all_of_it_lies_in_one_region() {
        let page = PAGE_SIZE as u64;
        for size in
            [MIN_MEMORY_BYTES, (2 << 20) + page, MMIO_GAP_START - page, MMIO_GAP_START + page, 4 << 30]
        {
            let layout = Layout::new(size).unwrap();
            assert_eq!(layout.size_bytes(), size);
            for (region, range) in layout.ranges().enumerate() {
                let end = range.start + range.len_bytes;
                let len = usize::try_from(range.len_bytes).unwrap();
                let cases = [
                    (range.start, 0, Some(0)),
                    (range.start, len, Some(0)),
                    (range.start + 5, len - 5, Some(5)),
                    (end - 1, 1, Some(len - 1)),
                    (end, 0, Some(len)),
                    (range.start, len + 1, None),
                    (range.start + 5, len - 4, None),
                    (end - 1, 2, None),
                    (end - 1, usize::MAX, None),
                ];
                for (address, len_bytes, offset) in cases {
                    let found = layout.locate(address, len_bytes);
                    assert_eq!(
                        found,
                        offset.map(|offset| (region, offset)),
                        "{len_bytes} at {address:#x} of {size}"
                    );
                }
            }
            for outside in [MMIO_GAP_START + 1, MMIO_GAP_END - 1, u64::MAX] {
                assert_eq!(layout.locate(outside, 1), None, "{outside:#x} of {size}");
            }
        }
    }

    #[test]
    fn only_whole_huge_pages_make_memory_of_huge_pages() {
        for (size, fits) in
            [(1, false), (2, true), (3, false), (4, true), (3072, true), (3073, false), (3074, true)]
        {
            let layout = Layout::new(size << 20).unwrap();
            assert_eq!(layout.check_huge_pages().is_ok(), fits, "{size} MiB");
        }
        let odd = (2 << 20) + PAGE_SIZE as u64;
        let error = Layout::new(odd).unwrap().check_huge_pages();
        assert_eq!(error, Err(Error::Odd { size_bytes: odd, page_bytes: HUGE_PAGE_SIZE as u64 }));
    }
}
