//! `fork()` of a process that has one thread, and may therefore do anything afterwards.

#![expect(unsafe_code, reason = "fork and signal have no wrapper in the standard library")]

use std::fs;
use std::io;

use rustix::process::Pid;

/// Where `fork()` returned.
pub(crate) enum Side {
    Parent { child: Pid },
    Child,
}

/// Forks this process.
///
/// # Errors
/// The kernel's. `Unsupported` if this process has more than one thread: a lock that another one holds would stay locked in the
/// child for ever.
pub(crate) fn fork() -> io::Result<Side> {
    let threads = fs::read_dir("/proc/self/task")?.count();
    if threads != 1 {
        let why = format!("a process with {threads} threads cannot be forked safely");
        return Err(io::Error::new(io::ErrorKind::Unsupported, why));
    }
    // SAFETY: this thread is the only one, and here: nobody else holds a lock or is half-way through anything, and no other can
    // have been started since, for only this thread could have done it.
    let pid = unsafe { libc::fork() };
    match Pid::from_raw(pid) {
        _ if pid < 0 => Err(io::Error::last_os_error()),
        Some(child) => Ok(Side::Parent { child }),
        None => Ok(Side::Child),
    }
}

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
