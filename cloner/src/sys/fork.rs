//! What processes that are forked, and their children, ask of the kernel besides `fork()` itself, which is [`vmm::host::fork`].

#![expect(unsafe_code, reason = "_exit and signal have no wrapper in the standard library")]

/// Has the kernel reap this process's children by itself.
pub(crate) fn forget_children() {
    // SAFETY: no handler is installed. Nothing in this process waits for a child it has made after this.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Ends this process without running anything: no destructor, no exit handler. The kernel frees what it held.
pub(crate) fn end_at_once(code: u8) -> ! {
    // SAFETY: ends the process; no invariant of it matters afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}
