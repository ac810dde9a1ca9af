//! `fork()` of a process whose other threads are all known to be parked.
//!
//! The child has one thread, the one that called. Whatever another thread was doing at that moment is never finished: a lock it
//! held stays locked, data it was changing stays half changed. So no other thread may be doing anything. Threads that are not known
//! to be parked are a named error, found before the process is forked.
//!
//! KVM may have workers of its own among the threads of a process (`kvm-nx-lpage-recovery`, Linux 6.14). They never run code of
//! the process and are not counted.

#![expect(unsafe_code, reason = "fork and sigaction have no safe wrapper")]

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr;

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, WaitId, WaitIdOptions, pidfd_open, waitid};

/// Flag of a thread that runs in the kernel only (`PF_USER_WORKER` of Linux 6.4 and later).
const KERNEL_WORKER: u64 = 0x4000;

/// Why this process was not forked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The threads of this process cannot be listed.
    #[error("cannot list the threads of this process")]
    Threads(#[source] io::Error),
    /// The process has other threads, which might hold locks.
    #[error(
        "a process can be forked only while all its other threads are parked: it also has {names} \
         (locks that they hold would stay locked in the child)"
    )]
    UnknownThreads {
        /// Names of these threads, separated by commas.
        names: String,
    },
    /// The kernel refused to fork this process.
    #[error("cannot fork()")]
    Fork(#[source] io::Error),
    /// The child was started, but no descriptor for it could be opened.
    #[error("cannot open the child's pidfd")]
    Pidfd(#[source] io::Error),
}

/// A child of this process.
#[derive(Debug)]
pub struct ForkedChild {
    /// Process number of the child.
    pub pid: u32,
    /// A descriptor of the child, which becomes readable once the child has ended.
    pub pidfd: OwnedFd,
}

/// In which of the two processes `fork()` returned.
#[derive(Debug)]
pub enum ForkSide {
    /// In the process that called it.
    Parent(ForkedChild),
    /// In the child of that process.
    Child,
}

/// Forks this process, which must have no other thread.
///
/// # Errors
/// [`Error::UnknownThreads`] names the threads that must be ended or parked first. After [`Error::Threads`] or [`Error::Fork`]
/// there is no child; after [`Error::Pidfd`] there is one that this process has no descriptor for.
pub fn fork() -> Result<ForkSide, Error> {
    // SAFETY: no other thread is allowed.
    unsafe { fork_unless_others(&[]) }
}

/// The kernel's number (TID) of the calling thread.
pub(crate) fn thread_number() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().cast_unsigned()
}

/// Forks this process, whose other threads must all be in `still`, by number.
///
/// # Errors
/// As for [`fork()`].
///
/// # Safety
/// The threads in `still` hold no lock and change nothing that the child will use, until this returns.
pub(crate) unsafe fn fork_unless_others(still: &[u32]) -> Result<ForkSide, Error> {
    let others = others(still).map_err(Error::Threads)?;
    if !others.is_empty() {
        return Err(Error::UnknownThreads { names: others.join(", ") });
    }
    let children = KeptChildren::keep();
    // SAFETY: no other thread has been started since they were listed: those in `still` start none (they do nothing, by the
    // contract), and this thread was busy here. So all of them stand still: the child's copy of this process's memory is
    // consistent, and it may call anything. The C library itself sees to its allocator, its streams and its loader (`fork(3)`).
    let pid = unsafe { libc::fork() };
    match pid {
        0 => Ok(ForkSide::Child),
        pid if pid < 0 => Err(Error::Fork(io::Error::last_os_error())),
        pid => {
            // The number is the child's, alive or not, while children are kept.
            let child = Pid::from_raw(pid).expect("zero is the child's case");
            let pidfd = pidfd_open(child, PidfdFlags::empty()).map_err(|error| Error::Pidfd(error.into()))?;
            children.release(&pidfd);
            Ok(ForkSide::Parent(ForkedChild { pid: pid.cast_unsigned(), pidfd }))
        }
    }
}

/// Makes the kernel keep children of this process that have ended until they are waited for, even if this process ignores
/// `SIGCHLD`, which would let them vanish. Without this, a child that ends at once could be gone before its pidfd is open. Dropping
/// it restores the former setting, in the child too.
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

    /// Stops keeping a child: a process that ignores `SIGCHLD` will not wait for it.
    fn release(self, pidfd: &OwnedFd) {
        let ignored = self.before.sa_sigaction == libc::SIG_IGN;
        drop(self);
        if ignored {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
            // This reaps the child only if it ended while it was kept. If it ends later it vanishes by itself, and the call fails.
            let _ = waitid(WaitId::PidFd(pidfd.as_fd()), options);
        }
    }
}

impl Drop for KeptChildren {
    fn drop(&mut self) {
        // SAFETY: an action that was in place before; the current one is not asked for.
        unsafe { libc::sigaction(libc::SIGCHLD, &raw const self.before, ptr::null_mut()) };
    }
}

/// The names of all threads of this process except the calling one, those in `still`, and the kernel's own.
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
            // The thread has ended since the folder was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) if Errno::from_io_error(&error) == Some(Errno::SRCH) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(names)
}

/// The thread's name, unless it is a worker of the kernel. `stat` is a line of `/proc/…/stat`, of the form
/// `number (name) state ppid pgrp session tty tpgid flags …` (`proc(5)`).
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
        // Once it has answered, it has its name.
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
