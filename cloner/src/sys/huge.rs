//! Huge pages for ordinary heap memory, if the host has some to spare.

#![expect(unsafe_code, reason = "madvise has no safe wrapper")]

use std::mem::MaybeUninit;

use rustix::mm::{Advice, madvise};
use vmm::memory::PAGE_SIZE;

/// Asks for transparent huge pages for the whole pages of `memory`. This is only advice: nothing fails if the host has none.
pub(crate) fn advise(memory: &mut [MaybeUninit<u8>]) {
    let start = memory.as_mut_ptr();
    let skipped = start.align_offset(PAGE_SIZE);
    let len_bytes = memory.len().saturating_sub(skipped) / PAGE_SIZE * PAGE_SIZE;
    if len_bytes > 0 {
        let aligned = start.wrapping_add(skipped);
        // SAFETY: the range lies within `memory`, by the subtraction above; MADV_HUGEPAGE changes how the kernel backs it,
        // never what it holds.
        let _ = unsafe { madvise(aligned.cast(), len_bytes, Advice::LinuxHugepage) };
    }
}
