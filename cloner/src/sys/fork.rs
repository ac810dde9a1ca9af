//! System calls of processes that fork and of their children, except `fork()` itself, which is [`vmm::host::fork`].

#![expect(unsafe_code, reason = "_exit and signal have no safe wrapper")]

/// Makes the kernel reap this process's children, so that none has to be waited for.
pub(crate) fn forget_children() {
    // SAFETY: no handler is installed. No code of this process waits for a child that it has made after this.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
}

/// Ends this process without running any destructor or exit handler. The kernel frees what the process held.
pub(crate) fn end_at_once(code: u8) -> ! {
    // SAFETY: ends the process; none of its invariants matters afterwards.
    unsafe { libc::_exit(i32::from(code)) }
}
