//! `fork()` of a process all of whose other threads are known to stand still.
//!
//! The child has one thread, the one that called. What another one was doing at that moment is never finished: a lock it held
//! stays locked, what it was changing stays half changed. So nobody else may be doing anything. Threads that are not known to be
//! parked are a named error, found before the process is forked.
//!
//! KVM may have workers of its own among the threads of a process (`kvm-nx-lpage-recovery`, Linux 6.14). They never run code of
//! the process and are not counted.

#![expect(
    unsafe_code,
    reason = "fork, pidfd_open, gettid, sigaction and waitid have no wrapper in the standard library"
)]

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

/// Flag of a thread that runs in the kernel only (`PF_USER_WORKER` of Linux 6.4 and later).
const KERNEL_WORKER: u64 = 0x4000;

/// Why this process was not forked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its threads cannot be listed.
    #[error("cannot tell which threads this process has")]
    Threads(#[source] io::Error),
    /// Other threads might hold locks.
    #[error(
        "a process can be forked only while all its other threads are parked: it also has {names} \
         (locks that they hold would stay locked in the child)"
    )]
    UnknownThreads {
        /// What they are called.
        names: String,
    },
    /// The kernel made no child.
    #[error("cannot fork()")]
    Fork(#[source] io::Error),
    /// The child is there, but not to be had.
    #[error("cannot open the child's pidfd")]
    Pidfd(#[source] io::Error),
}

/// A child of this process.
#[derive(Debug)]
pub struct Child {
    /// Its process number.
    pub pid: u32,
    /// The process itself: readable once it has ended.
    pub pidfd: OwnedFd,
}

/// Where `fork()` returned.
#[derive(Debug)]
pub enum Side {
    /// In the process that called.
    Parent(Child),
    /// In its child.
    Child,
}

/// Forks a process that has no other thread.
///
/// # Errors
/// See [`Error`].
pub fn fork() -> Result<Side, Error> {
    // SAFETY: no other thread is allowed.
    unsafe { fork_unless_others(&[]) }
}

/// The calling thread's number.
pub(crate) fn thread_number() -> u32 {
    // SAFETY: no arguments, and it always succeeds.
    unsafe { libc::gettid() }.cast_unsigned()
}

/// Forks a process whose other threads are those in `still`.
///
/// # Errors
/// See [`Error`].
///
/// # Safety
/// The threads in `still` hold no lock and change nothing that the child will use, until this returns.
pub(crate) unsafe fn fork_unless_others(still: &[u32]) -> Result<Side, Error> {
    let others = others(still).map_err(Error::Threads)?;
    if !others.is_empty() {
        return Err(Error::UnknownThreads { names: others.join(", ") });
    }
    let children = KeptChildren::keep();
    // SAFETY: no other thread has been started since they were listed, for those in `still` start none (they do nothing, by the
    // contract) and this one was here. So all of them are still: what the child has of this process's memory is whole, and it
    // may call anything. The C library itself sees to its allocator, its streams and its loader (`fork(3)`).
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(Side::Child),
        pid if pid < 0 => Err(Error::Fork(io::Error::last_os_error())),
        pid => {
            // The number is the child's, alive or not, while children are kept.
            let pidfd = open(pid).map_err(Error::Pidfd)?;
            children.release(&pidfd);
            Ok(Side::Parent(Child { pid: pid.cast_unsigned(), pidfd }))
        }
    }
}

/// Children of this process that have ended are kept by the kernel until somebody waits for them, also if this process ignores
/// `SIGCHLD` so that they are not: or a child that ends at once would be gone before its pidfd is open. As before when dropped,
/// in the child too.
struct KeptChildren {
    before: libc::sigaction,
}

impl KeptChildren {
    fn keep() -> Self {
        // SAFETY: all zeros is an action: the default one, with no flags and an empty mask.
        let default: libc::sigaction = unsafe { mem::zeroed() };
        let mut before = default;
        // SAFETY: both are valid, and no handler is installed.
        let result = unsafe { libc::sigaction(libc::SIGCHLD, &raw const default, &raw mut before) };
        debug_assert_eq!(result, 0, "SIGCHLD can be handled");
        Self { before }
    }

    /// Lets go of a child, which whoever ignores `SIGCHLD` will not wait for.
    fn release(self, pidfd: &OwnedFd) {
        let ignored = self.before.sa_sigaction == libc::SIG_IGN;
        drop(self);
        if ignored {
            let id = pidfd.as_raw_fd().cast_unsigned();
            // Here only if it has ended while it was kept. Later it goes by itself, which is an error that says so.
            // SAFETY: no information is asked for, so nothing is written.
            unsafe { libc::waitid(libc::P_PIDFD, id, ptr::null_mut(), libc::WEXITED | libc::WNOHANG) };
        }
    }
}

impl Drop for KeptChildren {
    fn drop(&mut self) {
        // SAFETY: an action that was in place before; the other is not asked for.
        unsafe { libc::sigaction(libc::SIGCHLD, &raw const self.before, ptr::null_mut()) };
    }
}

fn open(pid: libc::pid_t) -> io::Result<OwnedFd> {
    // SAFETY: integers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = RawFd::try_from(fd).expect("a descriptor is an int");
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor the kernel has just made for this call, owned by nobody else.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// The names of all threads of this process but this one, those in `still`, and the kernel's own.
fn others(still: &[u32]) -> io::Result<Vec<String>> {
    let this = thread_number();
    let mut names = Vec::new();
    for task in fs::read_dir("/proc/self/task")? {
        let task = task?;
        let number = task.file_name().to_str().and_then(|name| name.parse().ok());
        if number.is_some_and(|number: u32| number == this || still.contains(&number)) {
            continue;
        }
        match fs::read_to_string(task.path().join("stat")) {
            Ok(stat) => names.extend(name_unless_kernel_worker(&stat)),
            // It has ended since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// From a line of `/proc/…/stat`: `number (name) state ppid pgrp session tty tpgid flags …` (`proc(5)`).
fn name_unless_kernel_worker(stat: &str) -> Option<String> {
    // A name may have parentheses of its own.
    let (name, rest) = stat.split_once('(').and_then(|(_, rest)| rest.rsplit_once(')')).unwrap_or((stat, ""));
    let flags: Option<u64> = rest.split_whitespace().nth(6).and_then(|flags| flags.parse().ok());
    (flags.unwrap_or(0) & KERNEL_WORKER == 0).then(|| name.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_threads_are_refused_by_name() {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (started, has_started) = std::sync::mpsc::channel();
        let other = std::thread::Builder::new().name(String::from("a (strange) one"));
        let other = other.spawn(move || (started.send(()).is_ok(), stopped.recv().is_err())).unwrap();
        // It has its name by then.
        has_started.recv().unwrap();
        let error = fork().unwrap_err();
        assert!(
            matches!(&error, Error::UnknownThreads { names } if names.contains("a (strange) one")),
            "{error}"
        );
        drop(stop);
        other.join().unwrap();
    }

    #[test]
    fn workers_of_the_kernel_do_not_count() {
        let stat = |flags: u64| format!("7 (kvm-nx-lpage-re) S 1 7 7 0 -1 {flags} 0 0");
        assert_eq!(name_unless_kernel_worker(&stat(0x40_4040)), None);
        assert_eq!(name_unless_kernel_worker(&stat(0x40_0040)).as_deref(), Some("kvm-nx-lpage-re"));
        assert_eq!(name_unless_kernel_worker("what is this").as_deref(), Some("what is this"));
    }
}
