//! The system interface of the baselines, and the only place with `unsafe` in this crate.

#![expect(unsafe_code, reason = "_exit has no safe wrapper")]

pub(crate) mod lz4;

/// Ends this process at once: no destructor and no exit handler runs. The kernel frees what the process held.
pub(crate) fn end_at_once(code: u8) -> ! {
    // SAFETY: the call ends the process, after which none of its invariants matters.
    unsafe { libc::_exit(i32::from(code)) }
}
