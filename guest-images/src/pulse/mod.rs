//! `pulse`: a bare-metal guest that does recognisable work, so that a copy of it can be told from the original, from
//! an older or newer copy, and from a broken one.
//!
//! It needs no firmware, no kernel and no disk: [`image`] assembles it for a set of [`Params`], and a VMM loads it at
//! [`layout::LOAD_ADDRESS`], by its protocol for flat images. Every vCPU fills its part of the memory with content that
//! follows from the parameters ([`page`]); the first announces the checksum; then all sleep, dirty memory or hold
//! values in their registers, as [`Work`] says. The payload runs in ring 3, which is native on every host; ring 0
//! only sets up, sleeps and takes interrupts and faults.
//!
//! # What it expects
//! Every vCPU starts at the load address in 64-bit mode, ring 0, interrupts off, with RDI = its number, RSI = the number
//! of vCPUs, RDX = bytes of memory below the MMIO gap, RCX = bytes from 4 GiB on; memory and the first 4 GiB mapped one
//! to one and open to ring 3; the code and data selectors of `tables`; page tables and the VMM's GDT below the load
//! address. LAPIC, IOAPIC and a 16550 at port 0x3f8 on IRQ 4 are where a PC has them; a byte written to port 0xf4 ends
//! the VM with that exit code. With CR4.OSXSAVE the self-test uses AVX, with CR4.FSGSBASE it sets segment bases in ring 3.
//!
//! # On the console
//! ```text
//! pulse: ready nonce=<16 hex> cpus=<n> touched=<bytes> sum=<16 hex>
//! pulse: beat <n> nonce=<16 hex>                      every beat interval, n counts up by one
//! pulse: clone generation=<n> id=<32 hex>             once it finds that the host has written an identity
//! pulse: self-test cpu=<i> ok rounds=<n>              with every beat, from every vCPU
//! pulse: self-test cpu=<i> FAILED <register> expected=<16 hex> found=<16 hex>
//! pulse: sequence cpu=<i> FAILED address=<16 hex> expected=<16 hex> found=<16 hex>
//! pulse: fault vector=<hex> rip=<16 hex> error=<16 hex> address=<16 hex> cpu=<i>
//! ```
//! Commands are single letters, which the first vCPU obeys at any time:
//!
//! | letter | answer |
//! |---|---|
//! | `n` | `pulse: nonce=<16 hex> counter=<n> cpu=0` |
//! | `s` | sums up the filled memory: `pulse: sum=<16 hex>` |
//! | `r` | a self-test line from every vCPU, at once |
//! | `q` | ends the VM with [`EXIT_QUIT`] |
//! | `t` | ends in a triple fault |
//! | `e` | ends in an instruction that KVM cannot emulate |
//! | other | `pulse: ? <hex>` |
//!
//! # From outside
//! The host reads counters from the [`Status`] block and judges the memory with [`check`]. To a clone it writes a
//! [`Status::identity`].

mod asm;
pub mod check;
pub mod layout;
mod params;
mod pattern;
mod status;
mod tables;

pub use layout::PAGE_WORDS;
pub use params::{DirtyRate, DirtyWork, Mix, Params, Work, WriteOrder};
pub use pattern::{PageKind, page};
pub use status::{CpuStatus, Status};

use layout::{BLOCKS, CODE, GDT, IDT, LOAD_ADDRESS, TSS, offset};

/// Exit code after the `q` command.
pub const EXIT_QUIT: u8 = 0;
/// Exit code after an unexpected exception, which is reported on the console.
pub const EXIT_FAULT: u8 = 0x21;
/// Exit code when the parameters do not fit the guest's memory, reported on the console.
pub const EXIT_BAD_PARAMS: u8 = 0x22;
/// Exit code when a page to be dirtied did not hold what its last write left, reported on the console.
pub const EXIT_SEQUENCE: u8 = 0x23;

/// Why no image can be made from the parameters, or no status read from the memory.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The guest fills whole pages only.
    #[error("{0} bytes to touch are not a multiple of the page size")]
    TouchedBytes(u64),
    /// Each page has exactly one kind, so the thousandths must add up to 1000.
    #[error("the thousandths of the page kinds add up to {0}, not to 1000")]
    Mix(u32),
    /// The guest's timer cannot count that far.
    #[error("a beat every {0} ms is more than the guest's timer can count")]
    Beat(u32),
    /// The working set is part of the filled memory, so it cannot be more than 1000 thousandths.
    #[error("a working set of {0} thousandths is more than the filled memory")]
    WorkingSet(u16),
    /// The written words are spread over a page at equal distances.
    #[error("{0} words per page are not a power of two from 1 to 512")]
    WordsPerPage(u16),
    /// The memory does not hold a status block.
    #[error(
        "not a status block: where the magic number belongs is {magic:#x}, and the number of vCPUs is {cpus}"
    )]
    NoStatus {
        /// The word found where the magic number belongs.
        magic: u64,
        /// The word found where the number of vCPUs belongs.
        cpus: u64,
    },
}

/// The image to load at [`layout::LOAD_ADDRESS`].
///
/// # Errors
/// [`Error`] names the parameter that is out of its range.
pub fn image(params: &Params) -> Result<Vec<u8>, Error> {
    let block = params.to_bytes()?;
    let code = asm::assemble().expect("the program does not depend on the parameters, and the tests run it");
    let parts = [
        (LOAD_ADDRESS, code.jump_from_start().to_vec()),
        (layout::params::START, block.to_vec()),
        (GDT, tables::gdt()),
        (IDT, tables::idt(&code.handlers)),
        (TSS, tables::tss()),
        (CODE, code.bytes),
    ];
    let mut image = Vec::new();
    for (address, bytes) in parts {
        image.resize(offset(address, LOAD_ADDRESS), 0);
        image.extend(bytes);
    }
    assert!(image.len() <= offset(BLOCKS, LOAD_ADDRESS), "the code ends before the vCPUs' blocks");
    Ok(image)
}
