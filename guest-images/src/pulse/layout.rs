//! Where the parts of `pulse` lie in guest-physical memory.
//!
//! ```text
//! 0x8_0000  entry: a jump to the code, then the parameter block at +0x40
//! 0x8_0200  GDT   0x8_0400  IDT   0x8_1000  one TSS per vCPU
//! 0x8_2000  code and constants
//! 0x8_8000  one private block of 4 KiB per vCPU: variables, line buffer, self-test values, three stacks
//! 0x9_8000  status block (read by the host), then the variables all vCPUs share
//! 0x9_9000  end
//! 0x10_0000 filled memory, up to the MMIO gap and on from 4 GiB
//! ```
//!
//! The image ends with the code; the blocks after it are memory that starts out as zeros. An idle guest that
//! answers a command dirties two pages: the block of vCPU 0 and the status page.

/// Where the VMM loads the image and where every vCPU starts.
pub const LOAD_ADDRESS: u64 = 0x8_0000;
/// The first address that is not used by the image or by its static data.
pub const END: u64 = STATUS + PAGE_SIZE;
/// Where the host finds the [status block](super::Status) of a running guest.
pub const STATUS: u64 = 0x9_8000;
/// The first byte of filled memory.
pub const FILL_START: u64 = 0x10_0000;
/// Where memory goes on above the MMIO gap.
pub const HIGH_START: u64 = 1 << 32;
/// The most vCPUs `pulse` has room for.
pub const MAX_CPUS: u64 = 16;
/// Bytes in a page.
pub const PAGE_SIZE: u64 = 4096;
/// Words of eight bytes in a page.
pub const PAGE_WORDS: usize = 512;

pub(super) const GDT: u64 = LOAD_ADDRESS + 0x200;
pub(super) const TSS: u64 = LOAD_ADDRESS + 0x1000;
pub(super) const IDT: u64 = LOAD_ADDRESS + 0x400;
pub(super) const CODE: u64 = LOAD_ADDRESS + 0x2000;
pub(super) const BLOCKS: u64 = 0x8_8000;

/// Offset of `address` in an area that starts at `start` and has a few pages at most.
pub(super) fn offset(address: u64, start: u64) -> usize {
    usize::try_from(address - start).expect("the area has a few pages at most")
}

/// The fields of the parameter block, each a little-endian `u64`.
pub(super) mod params {
    pub(crate) const START: u64 = super::LOAD_ADDRESS + 0x40;
    pub(crate) const FIELDS: usize = 16;

    pub(crate) const NONCE: u64 = START;
    pub(crate) const SEED: u64 = START + 0x08;
    pub(crate) const TOUCHED_PAGES: u64 = START + 0x10;
    // Upper ends of the page kinds, in thousandths: a page whose number is below the first is zero, and so on.
    pub(crate) const ZERO_END: u64 = START + 0x18;
    pub(crate) const FILL_END: u64 = START + 0x20;
    pub(crate) const DUPLICATE_END: u64 = START + 0x28;
    pub(crate) const STRUCTURED_END: u64 = START + 0x30;
    /// Initial count of the LAPIC timer, 0 for no timer.
    pub(crate) const TICK_COUNT: u64 = START + 0x38;
    pub(crate) const TICKS_PER_BEAT: u64 = START + 0x40;
    /// How much a tick adds to a vCPU's credit, and how much a page costs, for each vCPU that the guest has.
    pub(crate) const CREDIT_PER_TICK: u64 = START + 0x48;
    pub(crate) const COST_PER_CPU: u64 = START + 0x50;
    pub(crate) const WORKING_SET_PAGES: u64 = START + 0x58;
    pub(crate) const RANDOM_ORDER: u64 = START + 0x60;
    /// Bytes from one written word of a dirtied page to the next.
    pub(crate) const STRIDE: u64 = START + 0x68;
    pub(crate) const SELF_TEST: u64 = START + 0x70;
}

/// The status block. All fields are little-endian `u64`.
pub(super) mod status {
    use super::STATUS;

    pub(crate) const MAGIC: u64 = STATUS;
    pub(crate) const GENERATION: u64 = STATUS + 0x08;
    pub(crate) const UNIQUE_ID: u64 = STATUS + 0x10;
    pub(crate) const NONCE: u64 = STATUS + 0x20;
    pub(crate) const CPUS: u64 = STATUS + 0x28;
    pub(crate) const TOUCHED_PAGES: u64 = STATUS + 0x30;
    pub(crate) const SUM: u64 = STATUS + 0x38;
    pub(crate) const BEATS: u64 = STATUS + 0x40;

    /// One cache line per vCPU, so that counting vCPUs do not slow each other down.
    pub(crate) const CPU: u64 = STATUS + 0x100;
    pub(crate) const CPU_LEN: u64 = 64;
    pub(crate) const CPU_COUNTER: u64 = 0;
    pub(crate) const CPU_SEQUENCE: u64 = 8;
    pub(crate) const CPU_ROUNDS: u64 = 16;
    pub(crate) const CPU_FAILURES: u64 = 24;

    pub(crate) const LEN: usize = 0x100 + 16 * 64;
}

/// Variables that all vCPUs share and that the host does not read.
pub(super) mod shared {
    use super::STATUS;

    pub(crate) const CONSOLE_LOCK: u64 = STATUS + 0x800;
    /// Number of vCPUs that have filled their part.
    pub(crate) const FILLED: u64 = STATUS + 0x840;
    /// Set once the ready line is out: the others may start to work.
    pub(crate) const GO: u64 = STATUS + 0x848;
    /// Counts the self-test reports asked for on the console.
    pub(crate) const REPORTS: u64 = STATUS + 0x850;
}

/// Offsets in the private block of a vCPU. It is aligned to its size, so that ring 0 finds it by masking the stack
/// pointer.
pub(super) mod block {
    pub(crate) const SELF: u64 = 0x00;
    pub(crate) const INDEX: u64 = 0x08;
    pub(crate) const CPUS: u64 = 0x10;
    /// End of memory below the gap, and the number to add to an address beyond it.
    pub(crate) const LOW_END: u64 = 0x18;
    pub(crate) const GAP: u64 = 0x20;
    pub(crate) const CR4: u64 = 0x28;
    /// This vCPU's line of the status block.
    pub(crate) const STATUS: u64 = 0x30;
    pub(crate) const GENERATION: u64 = 0x38;

    // Written by the interrupt handlers: the numbers of events so far, and whether something has happened since ring 3 last looked.
    pub(crate) const TICKS: u64 = 0x40;
    pub(crate) const INPUTS: u64 = 0x48;
    pub(crate) const PENDING: u64 = 0x50;
    pub(crate) const TICKS_SEEN: u64 = 0x58;
    pub(crate) const INPUTS_SEEN: u64 = 0x60;
    pub(crate) const REPORTS_SEEN: u64 = 0x68;
    pub(crate) const TICKS_TO_BEAT: u64 = 0x70;

    // Dirtying: the slice of the working set, the permutation over it, and where this vCPU is in its sequence.
    pub(crate) const CREDIT: u64 = 0x78;
    pub(crate) const COST: u64 = 0x80;
    pub(crate) const SLICE_FIRST: u64 = 0x88;
    pub(crate) const SLICE_PAGES: u64 = 0x90;
    pub(crate) const MASK: u64 = 0x98;
    pub(crate) const SHIFT: u64 = 0xa0;
    pub(crate) const POSITION: u64 = 0xa8;
    pub(crate) const NEIGHBOUR: u64 = 0xb0;

    // The last fault, as ring 0 saw it.
    pub(crate) const FAULT_VECTOR: u64 = 0xb8;
    pub(crate) const FAULT_ERROR: u64 = 0xc0;
    pub(crate) const FAULT_RIP: u64 = 0xc8;
    pub(crate) const FAULT_ADDRESS: u64 = 0xd0;

    // Self-test: the first failure, and the values as ring 0 read them.
    pub(crate) const FAILED: u64 = 0xd8;
    pub(crate) const EXPECTED: u64 = 0xe0;
    pub(crate) const FOUND: u64 = 0xe8;
    pub(crate) const FS_BASE: u64 = 0xf0;
    pub(crate) const GS_BASE: u64 = 0xf8;
    pub(crate) const ROUNDS_TO_FULL: u64 = 0x100;
    pub(crate) const SAVED_RAX: u64 = 0x108;
    pub(crate) const SAVED_RCX: u64 = 0x110;
    pub(crate) const AVX: u64 = 0x118;
    pub(crate) const DEBUG_FOUND: u64 = 0x120;

    pub(crate) const LINE_LEN: u64 = 0x140;
    pub(crate) const LINE: u64 = 0x148;

    // Self-test: the values held in the registers, the vectors also inverted, and room for the values found.
    pub(crate) const GENERAL: u64 = 0x200;
    pub(crate) const DEBUG: u64 = 0x280;
    pub(crate) const VECTORS: u64 = 0x400;
    pub(crate) const INVERTED: u64 = 0x600;
    pub(crate) const FX: u64 = 0x800;
    pub(crate) const FX_FOUND: u64 = 0xa00;

    // Tops of the stacks; they grow down.
    pub(crate) const RING3_STACK: u64 = 0xe00;
    pub(crate) const RING0_STACK: u64 = 0xf00;
    pub(crate) const INTERRUPT_STACK: u64 = 0x1000;
    pub(crate) const SIZE: u64 = 0x1000;
}

const _: () = {
    assert!(END <= 0x9_f000, "the smallest guest ends its conventional memory there");
    assert!(BLOCKS + MAX_CPUS * block::SIZE <= STATUS);
    assert!(params::SELF_TEST < params::START + 8 * params::FIELDS as u64);
    assert!(params::START + 8 * params::FIELDS as u64 <= GDT);
    assert!(status::CPU + MAX_CPUS * status::CPU_LEN == STATUS + status::LEN as u64);
    assert!(STATUS + status::LEN as u64 <= shared::CONSOLE_LOCK);
    assert!(block::FX_FOUND + 512 <= block::RING3_STACK - 256);
};
