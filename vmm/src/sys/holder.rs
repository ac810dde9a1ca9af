//! A process that holds memory as it was: a child made by `fork()` that runs no code.
//!
//! The kernel shares every private page between parent and child until one of them writes. The child never does, so its
//! memory is the parent's at the instant of the fork, for as long as the child lives; the parent pays with one copied 4 KiB page
//! for each page that it writes meanwhile. `process_vm_readv` reads the memory from outside.
//!
//! The child makes two system calls, waits in a third for the parent to die, and then ends: no allocator, no lock and no
//! handler of the parent can be in a state that harms it, and no crash of the parent leaves it behind.

#![expect(unsafe_code, reason = "clone, close_range, signal masks and _exit have no safe wrapper")]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{
    PidfdFlags, Signal, WaitId, WaitIdOptions, getpid, pidfd_open, pidfd_send_signal, waitid,
};

use super::pagemap::Pagemap;
use super::process::read_memory;

/// `__WALL`, which rustix has no name for.
const ANY_CHILD: WaitIdOptions = WaitIdOptions::from_bits_retain(libc::__WALL.cast_unsigned());

/// A frozen copy of this process. Dropping this value ends the copy.
#[derive(Debug)]
pub(crate) struct Holder {
    pid: u32,
    pidfd: OwnedFd,
}

impl Holder {
    /// Freezes this process's private memory in a child.
    ///
    /// The child keeps no descriptor but one that refers to its parent, and code that waits for any child does not see it
    /// (`__WCLONE`).
    ///
    /// # Errors
    /// The kernel's reason: `EAGAIN` if a limit on processes is reached, `ENOMEM` if it cannot copy the page tables.
    pub(crate) fn fork() -> io::Result<Self> {
        let parent = pidfd_open(getpid(), PidfdFlags::empty())?;
        let signals = Signals::block_all()?;
        let mut pidfd: RawFd = -1;
        // No exit signal: this code must not raise SIGCHLD in its parent.
        let flags = libc::c_long::from(libc::CLONE_PIDFD);
        // SAFETY: without CLONE_VM and with no stack given this is fork(): the child runs on its own copy of this stack. The
        // third argument is where the kernel stores the descriptor, in the parent's memory only, before it returns there.
        let pid = unsafe { libc::syscall(libc::SYS_clone, flags, 0, &raw mut pidfd, 0, 0) };
        if pid == 0 {
            hold(parent.as_fd());
        }
        // Taken now, because the calls that follow may fail and overwrite it.
        let failure = io::Error::last_os_error();
        drop(signals);
        if pid < 0 {
            return Err(failure);
        }
        let pid = u32::try_from(pid).expect("a process number is a positive int");
        // SAFETY: the descriptor that the kernel has just made for this call, which has no other owner.
        Ok(Self { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
    }

    /// Number of the child. No other process can get it while this value lives, because only this value waits for the child.
    #[must_use]
    pub(crate) const fn pid(&self) -> u32 {
        self.pid
    }

    /// Copies memory out of the child, from an address that means the same in this process.
    ///
    /// # Errors
    /// `ESRCH` if the child has been killed, `EFAULT` if it has no memory there, `UnexpectedEof` if only a part could be read.
    pub(crate) fn read(&self, address: u64, buffer: &mut [u8]) -> io::Result<()> {
        // `pid` is a child that was not waited for yet, so no other process has that number.
        read_memory(self.pid(), address, buffer)
    }

    /// Opens the child's page table.
    ///
    /// # Errors
    /// As for [`Pagemap::of`].
    pub(crate) fn pagemap(&self) -> io::Result<Pagemap> {
        Pagemap::of(self.pid())
    }

    /// Kills the child, as any process with the right to could. Tests use this to see what happens then.
    ///
    /// # Errors
    /// The kernel's reason for not sending the signal, such as `ESRCH`.
    pub(crate) fn kill(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.pidfd, Signal::KILL)?)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        if let Err(error) = self.kill() {
            // ESRCH: it was killed already, but must still be waited for.
            tracing::debug!(pid = self.pid, %error, "the holder had already ended");
        }
        // A child without an exit signal is waited for only on request.
        let options = WaitIdOptions::EXITED | ANY_CHILD;
        while waitid(WaitId::PidFd(self.pidfd.as_fd()), options).err() == Some(Errno::INTR) {}
    }
}

/// The code of the child: waits until it is killed or its parent has died, and then ends.
///
/// It makes raw system calls only. rustix's `poll` is one: it takes no lock, allocates nothing and touches nothing of the thread's.
fn hold(parent: BorrowedFd<'_>) -> ! {
    let parent_number = parent.as_raw_fd().cast_unsigned();
    // Descriptors left open would keep sockets and machines of the parent alive.
    let (below, above) = (parent_number.checked_sub(1), parent_number + 1);
    if let Some(last) = below {
        // SAFETY: integers only. The descriptors are the child's own copies; it uses none of them.
        unsafe { libc::syscall(libc::SYS_close_range, 0, last, 0) };
    }
    // SAFETY: as above.
    unsafe { libc::syscall(libc::SYS_close_range, above, libc::c_uint::MAX, 0) };
    // All signals but SIGKILL and SIGSTOP are blocked, so this returns when the parent is dead (pidfd_open(2)) or if there is no
    // memory to wait with; in both cases this process may end.
    let _ = poll(&mut [PollFd::from_borrowed_fd(parent, PollFlags::IN)], None);
    // SAFETY: ends this process without running any code of the parent's: no exit handler, no destructor.
    unsafe { libc::_exit(0) }
}

/// Keeps all signals blocked on this thread until it is dropped: a handler of the parent must never run in the child.
struct Signals(libc::sigset_t);

impl Signals {
    fn block_all() -> io::Result<Self> {
        let mut all = MaybeUninit::uninit();
        let mut before = MaybeUninit::uninit();
        // SAFETY: initialises the set it is given.
        unsafe { libc::sigfillset(all.as_mut_ptr()) };
        // SAFETY: both sets have room, and the first was initialised above.
        let error = unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, all.as_ptr(), before.as_mut_ptr()) };
        if error != 0 {
            return Err(io::Error::from_raw_os_error(error));
        }
        // SAFETY: written by the call, which succeeded.
        Ok(Self(unsafe { before.assume_init() }))
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: a set that the kernel has filled in; the current one is not asked for.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.0, ptr::null_mut()) };
    }
}

/// Lets tests with a holder, and tests that look at what is shared with one, take turns: a holder has all memory of their process.
#[cfg(test)]
pub(crate) fn turn() -> std::sync::MutexGuard<'static, ()> {
    static TURN: std::sync::Mutex<()> = std::sync::Mutex::new(());
    TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::super::mmap::{Mapping, MappingSource};
    use super::super::page::PAGE_SIZE;
    use super::*;

    #[test]
    fn it_holds_what_was_there_and_no_more() {
        let _turn = turn();
        let mapping = Mapping::new(MappingSource::Anonymous, 8 * PAGE_SIZE, 0).unwrap();
        mapping.write(0, b"before").unwrap();
        let holder = Holder::fork().unwrap();
        mapping.write(0, b"after!").unwrap();
        mapping.write(5 * PAGE_SIZE, b"after!").unwrap();
        let mut bytes = [0; 6];
        holder.read(mapping.host_address(), &mut bytes).unwrap();
        assert_eq!(&bytes, b"before");

        let mut touched = [0];
        holder.pagemap().unwrap().touched(mapping.host_address(), 8, &mut touched).unwrap();
        assert_eq!(touched, [1]);
        // The holder closes its descriptors, and dies, once it gets a processor.
        let descriptors = || std::fs::read_dir(format!("/proc/{}/fd", holder.pid())).unwrap().count();
        assert_eq!(soon(|| (descriptors() == 1).then_some(())), Some(()));

        holder.kill().unwrap();
        let gone = soon(|| holder.read(mapping.host_address(), &mut bytes).err());
        assert_eq!(Errno::from_io_error(&gone.unwrap()), Some(Errno::SRCH));
        let pid = holder.pid();
        drop(holder);
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn it_outlives_the_thread_that_made_it() {
        let _turn = turn();
        let holder = std::thread::spawn(|| Holder::fork().unwrap()).join().unwrap();
        let mut byte = [0];
        let here = byte.as_ptr().addr() as u64;
        std::thread::sleep(std::time::Duration::from_millis(50));
        holder.read(here, &mut byte).unwrap();
    }

    /// Repeats `attempt` until it gives a value, for some ten seconds at most.
    fn soon<T>(mut attempt: impl FnMut() -> Option<T>) -> Option<T> {
        (0..10_000).find_map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            attempt()
        })
    }
}
