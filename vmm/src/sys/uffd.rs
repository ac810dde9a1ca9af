//! Serving a mapping's missing pages: `userfaultfd`.
//!
//! Source: `Documentation/admin-guide/mm/userfaultfd.rst` and `ioctl_userfaultfd(2)`. A thread that touches a missing page of
//! a registered range, in user mode or inside `KVM_RUN`, sleeps until the page is installed; the kernel never replaces a
//! page that is there.
//!
//! Written by hand because the crate of that name needs libclang to build, for only seven structures of integers.

#![expect(unsafe_code, reason = "userfaultfd and its ioctls have no safe wrapper")]

use std::ffi::c_ulong;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::mm::{UserfaultfdFlags, userfaultfd};
use vmm_sys_util::eventfd::EventFd;
use vmm_sys_util::ioctl::{_IOC_NONE, _IOC_READ, _IOC_WRITE, ioctl_expr, ioctl_with_mut_ref, ioctl_with_val};

use super::mmap::{Mapping, OutOfRange};

/// Path of the device (since Linux 6.1). A process that may open it may serve faults inside the kernel.
pub const DEVICE: &str = "/dev/userfaultfd";

const UFFD_API: u64 = 0xaa;
const UFFD_EVENT_PAGEFAULT: u8 = 0x12;
const FEATURE_MISSING_HUGETLBFS: u64 = 1 << 4;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const REGISTER_MODE_MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_range`.
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
}

/// `struct uffdio_register`.
#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

/// `struct uffdio_copy`.
#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

/// `struct uffdio_zeropage`.
#[repr(C)]
struct ZeroPage {
    range: Range,
    mode: u64,
    zeroed: i64,
}

const MESSAGE_BYTES: usize = 32;
/// Offset of `address` in the page fault variant of `struct uffd_msg`. The first byte of the message is the event.
const MESSAGE_ADDRESS: usize = 16;

const NEW: c_ulong = ioctl(_IOC_NONE, 0x00, 0);
const API: c_ulong = ioctl(_IOC_READ | _IOC_WRITE, 0x3f, size_of::<Api>());
const REGISTER: c_ulong = ioctl(_IOC_READ | _IOC_WRITE, 0x00, size_of::<Register>());
const UNREGISTER: c_ulong = ioctl(_IOC_READ, 0x01, size_of::<Range>());
const WAKE: c_ulong = ioctl(_IOC_READ, 0x02, size_of::<Range>());
const COPY: c_ulong = ioctl(_IOC_READ | _IOC_WRITE, 0x03, size_of::<Copy>());
const ZEROPAGE: c_ulong = ioctl(_IOC_READ | _IOC_WRITE, 0x04, size_of::<ZeroPage>());

// The numbers that the macros of the kernel's headers expand to.
const _: () = {
    assert!(NEW == 0xaa00 && API == 0xc018_aa3f && REGISTER == 0xc020_aa00 && UNREGISTER == 0x8010_aa01);
    assert!(WAKE == 0x8010_aa02 && COPY == 0xc028_aa03 && ZEROPAGE == 0xc020_aa04);
};

/// Why this process cannot serve missing pages.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// Only processes with one of three permissions may serve faults inside the kernel, such as KVM's. This one has none of them.
    #[error(
        "this process may not use userfaultfd. One of these changes that: access to {DEVICE} \
         (`chgrp kvm {DEVICE}; chmod 660 {DEVICE}`), `sysctl vm.unprivileged_userfaultfd=1`, or the capability \
         CAP_SYS_PTRACE"
    )]
    NotAllowed {
        /// Why the device cannot be used instead.
        #[source]
        device: io::Error,
    },
    /// The kernel is built without userfaultfd, or does not support missing pages of shared or huge memory.
    #[error("this kernel's userfaultfd cannot be used")]
    Kernel(#[source] io::Error),
}

/// The result of an attempt to install pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstallOutcome {
    /// This many bytes from the start are installed, which may be fewer than wanted. Threads that waited for them are awake.
    Bytes(usize),
    /// The first page was there already.
    Present,
    /// The range is no longer registered.
    Unregistered,
}

/// A descriptor through which missing pages of this process are reported and installed.
#[derive(Debug)]
pub struct Userfault(File);

impl Userfault {
    /// Opens a descriptor that also serves faults inside the kernel, such as KVM's: by the system call, which takes
    /// `CAP_SYS_PTRACE` or `vm.unprivileged_userfaultfd`, and otherwise by the device.
    ///
    /// # Errors
    /// [`OpenError::NotAllowed`] if this process lacks the permission, with the ways to get it; [`OpenError::Kernel`] if the kernel
    /// does not support what is needed.
    pub fn open() -> Result<Self, OpenError> {
        let this = match by_call() {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                Self(by_device().map_err(|device| OpenError::NotAllowed { device })?)
            }
            made => Self(made.map_err(OpenError::Kernel)?),
        };
        let features = FEATURE_MISSING_HUGETLBFS | FEATURE_MISSING_SHMEM;
        this.ioctl(API, &mut Api { api: UFFD_API, features, ioctls: 0 }).map_err(OpenError::Kernel)?;
        Ok(this)
    }

    /// Has missing pages of a range of `mapping` reported here from now on.
    ///
    /// # Errors
    /// `InvalidInput` for a range outside the mapping; otherwise the kernel's reason for refusing `UFFDIO_REGISTER`.
    pub fn register(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        let range = range(mapping, offset, len_bytes)?;
        self.ioctl(REGISTER, &mut Register { range, mode: REGISTER_MODE_MISSING, ioctls: 0 })
    }

    /// Leaves missing pages of a range to the kernel again, and wakes all threads that wait for one.
    ///
    /// # Errors
    /// `InvalidInput` for a range outside the mapping; otherwise the kernel's reason for refusing `UFFDIO_UNREGISTER`.
    pub fn unregister(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        self.ioctl(UNREGISTER, &mut range(mapping, offset, len_bytes)?)
    }

    /// Installs missing pages at `offset` with these bytes, in the order of their addresses, up to the first page that is there
    /// already.
    ///
    /// # Errors
    /// `InvalidInput` for a range outside the mapping; otherwise the kernel's reason, unless it is one of those that
    /// [`InstallOutcome`] stands for.
    pub fn copy(&self, mapping: &Mapping, offset: usize, bytes: &[u8]) -> io::Result<InstallOutcome> {
        let Range { start: dst, len } = range(mapping, offset, bytes.len())?;
        // The kernel reads `bytes` during the call only.
        let mut copy = Copy { dst, src: bytes.as_ptr() as u64, len, mode: 0, copied: 0 };
        let result = self.ioctl(COPY, &mut copy);
        installed(result, copy.copied, bytes.len())
    }

    /// Does the same with zeros, for which no memory is used until they are written to. Not for huge pages.
    ///
    /// # Errors
    /// As for [`Userfault::copy`].
    pub fn zero(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<InstallOutcome> {
        let mut zero = ZeroPage { range: range(mapping, offset, len_bytes)?, mode: 0, zeroed: 0 };
        let result = self.ioctl(ZEROPAGE, &mut zero);
        installed(result, zero.zeroed, len_bytes)
    }

    /// Wakes all threads that wait for a page of the range, so that they try again.
    ///
    /// # Errors
    /// `InvalidInput` for a range outside the mapping; otherwise the kernel's reason for refusing `UFFDIO_WAKE`.
    pub fn wake(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        self.ioctl(WAKE, &mut range(mapping, offset, len_bytes)?)
    }

    /// Waits for a fault or for `waker` to become readable, but no longer than `limit`. A signal ends the wait as well.
    ///
    /// # Errors
    /// The kernel's reason for refusing `poll`.
    pub fn wait(&self, waker: &EventFd, limit: Duration) -> io::Result<()> {
        // SAFETY: the descriptor is open for as long as `waker` is borrowed, which is longer than this call.
        let waker = unsafe { BorrowedFd::borrow_raw(waker.as_raw_fd()) };
        let mut events =
            [PollFd::new(&self.0, PollFlags::IN), PollFd::from_borrowed_fd(waker, PollFlags::IN)];
        // A limit that does not fit is longer than any wait.
        let limit = Timespec::try_from(limit).ok();
        match poll(&mut events, limit.as_ref()) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The host address of the next fault that was not reported yet; `None` if there is none at the moment.
    ///
    /// # Errors
    /// `InvalidData` for a message that is not a page fault; otherwise the kernel's error from reading the descriptor.
    pub fn next_fault(&self) -> io::Result<Option<u64>> {
        next_fault(&self.0)
    }

    fn ioctl<T>(&self, request: c_ulong, argument: &mut T) -> io::Result<()> {
        // SAFETY: every caller pairs a request with the structure whose size is part of its number, asserted above. The
        // kernel writes to that structure and, for COPY and ZEROPAGE, to *missing* pages of ranges that `register` named:
        // memory of a `Mapping`, which is only ever copied in and out, and where no page that is there is replaced.
        let result = unsafe { ioctl_with_mut_ref(&self.0, request, argument) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }
}

const FLAGS: UserfaultfdFlags = UserfaultfdFlags::CLOEXEC.union(UserfaultfdFlags::NONBLOCK);

fn by_call() -> io::Result<File> {
    // SAFETY: the descriptor can do nothing to this process's memory until a range is registered, and `ioctl` says why that is
    // sound; nothing but a `Userfault` gets the descriptor.
    Ok(unsafe { userfaultfd(FLAGS) }?.into())
}

fn by_device() -> io::Result<File> {
    let device = File::open(DEVICE)?;
    // SAFETY: the request takes flags by value, and the kernel reads and writes no memory of this process.
    let fd = unsafe { ioctl_with_val(&device, NEW, c_ulong::from(FLAGS.bits())) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made for this process, which has no other owner.
    Ok(unsafe { File::from_raw_fd(fd) })
}

const fn ioctl(direction: u32, number: u32, size_bytes: usize) -> c_ulong {
    #[expect(clippy::cast_possible_truncation, reason = "at most 40")]
    ioctl_expr(direction, 0xaa, number, size_bytes as u32)
}

fn range(mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<Range> {
    let wrong = |error: OutOfRange| io::Error::new(io::ErrorKind::InvalidInput, error);
    mapping.check(offset, len_bytes).map_err(wrong)?;
    Ok(Range { start: mapping.host_address() + offset as u64, len: len_bytes as u64 })
}

fn next_fault(mut messages: impl Read) -> io::Result<Option<u64>> {
    let mut message = [0; MESSAGE_BYTES];
    match messages.read(&mut message) {
        Ok(MESSAGE_BYTES) if message[0] == UFFD_EVENT_PAGEFAULT => {
            let address = message[MESSAGE_ADDRESS..].first_chunk().expect("a message has 32 bytes");
            Ok(Some(u64::from_ne_bytes(*address)))
        }
        // No other event was asked for.
        Ok(_) => Err(io::ErrorKind::InvalidData.into()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(None),
        Err(error) => Err(error),
    }
}

fn installed(result: io::Result<()>, bytes: i64, wanted: usize) -> io::Result<InstallOutcome> {
    let Err(error) = result else { return Ok(InstallOutcome::Bytes(wanted)) };
    match Errno::from_io_error(&error) {
        // EAGAIN means that only a part was done.
        Some(Errno::AGAIN) => Ok(InstallOutcome::Bytes(usize::try_from(bytes).unwrap_or(0))),
        Some(Errno::EXIST) => Ok(InstallOutcome::Present),
        Some(Errno::NOENT) => Ok(InstallOutcome::Unregistered),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::super::mmap::MappingSource;
    use super::super::page::PAGE_SIZE;
    use super::*;

    #[test]
    fn a_thread_waits_for_its_page() {
        let userfault = match Userfault::open() {
            Ok(userfault) => userfault,
            Err(error @ OpenError::NotAllowed { .. }) => return println!("SKIPPED: {error}"),
            Err(error) => panic!("{error:?}"),
        };
        let waker = EventFd::new(0).unwrap();
        let mapping = Mapping::new(MappingSource::Anonymous, 8 * PAGE_SIZE, 0).unwrap();
        userfault.register(&mapping, 2 * PAGE_SIZE, 4 * PAGE_SIZE).unwrap();
        assert_eq!(userfault.next_fault().unwrap(), None);
        let mut byte = [9];
        mapping.read(PAGE_SIZE, &mut byte).unwrap();
        assert_eq!(byte, [0], "not registered");
        thread::scope(|scope| {
            let reader = scope.spawn(|| {
                let mut byte = [0];
                mapping.read(3 * PAGE_SIZE + 17, &mut byte).unwrap();
                byte
            });
            userfault.wait(&waker, Duration::from_secs(60)).unwrap();
            let address = userfault.next_fault().unwrap().unwrap();
            assert_eq!(address & !(PAGE_SIZE as u64 - 1), mapping.host_address() + 3 * PAGE_SIZE as u64);
            let pages = [7; 2 * PAGE_SIZE];
            let result = userfault.copy(&mapping, 3 * PAGE_SIZE, &pages).unwrap();
            assert_eq!(result, InstallOutcome::Bytes(pages.len()));
            assert_eq!(reader.join().unwrap(), [7]);
            assert_eq!(userfault.copy(&mapping, 4 * PAGE_SIZE, &pages).unwrap(), InstallOutcome::Present);
            let result = userfault.copy(&mapping, 2 * PAGE_SIZE, &pages).unwrap();
            assert_eq!(result, InstallOutcome::Bytes(PAGE_SIZE), "up to the page that is there");
            assert_eq!(
                userfault.zero(&mapping, 6 * PAGE_SIZE, PAGE_SIZE).unwrap(),
                InstallOutcome::Unregistered
            );
        });
        userfault.unregister(&mapping, 2 * PAGE_SIZE, 4 * PAGE_SIZE).unwrap();
        mapping.read(5 * PAGE_SIZE, &mut byte).unwrap();
        assert_eq!(byte, [0]);
        assert!(userfault.register(&mapping, 0, 9 * PAGE_SIZE).is_err());
    }

    #[test]
    fn what_the_kernel_did_in_part_counts_as_that_part() {
        let failed = |error: Errno, bytes| installed(Err(error.into()), bytes, 5 * PAGE_SIZE);
        let page = i64::try_from(PAGE_SIZE).unwrap();
        for (bytes, counts) in [(0, 0), (page, PAGE_SIZE), (4 * page, 4 * PAGE_SIZE), (-11, 0), (i64::MIN, 0)]
        {
            assert_eq!(failed(Errno::AGAIN, bytes).unwrap(), InstallOutcome::Bytes(counts), "{bytes}");
            assert_eq!(failed(Errno::EXIST, bytes).unwrap(), InstallOutcome::Present);
            assert_eq!(failed(Errno::NOENT, bytes).unwrap(), InstallOutcome::Unregistered);
            for error in [Errno::NOMEM, Errno::INVAL, Errno::SRCH, Errno::NOSPC, Errno::INTR] {
                assert_eq!(Errno::from_io_error(&failed(error, bytes).unwrap_err()), Some(error));
            }
        }
        // Only EAGAIN comes with a count.
        assert_eq!(installed(Ok(()), 0, 5 * PAGE_SIZE).unwrap(), InstallOutcome::Bytes(5 * PAGE_SIZE));
    }

    /// Gives one message, or an error.
    struct Messages(io::Result<Vec<u8>>);

    impl Read for Messages {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            let message = self.0.as_ref().map_err(io::Error::kind)?;
            buffer[..message.len()].copy_from_slice(message);
            Ok(message.len())
        }
    }

    #[test]
    fn only_a_whole_message_about_a_fault_is_a_fault() {
        let message = |event: u8, len: usize| {
            let mut bytes = [0; MESSAGE_BYTES];
            bytes[0] = event;
            bytes[MESSAGE_ADDRESS..MESSAGE_ADDRESS + 8]
                .copy_from_slice(&0x1234_5678_9abc_d123_u64.to_ne_bytes());
            next_fault(Messages(Ok(bytes[..len].to_vec())))
        };
        assert_eq!(message(UFFD_EVENT_PAGEFAULT, MESSAGE_BYTES).unwrap(), Some(0x1234_5678_9abc_d123));
        for (event, len) in [(UFFD_EVENT_PAGEFAULT, 31), (UFFD_EVENT_PAGEFAULT, 0), (0x13, 32), (0, 32)] {
            assert_eq!(
                message(event, len).unwrap_err().kind(),
                io::ErrorKind::InvalidData,
                "{event:#x}, {len}"
            );
        }
        for kind in [io::ErrorKind::WouldBlock, io::ErrorKind::Interrupted] {
            assert_eq!(next_fault(Messages(Err(kind.into()))).unwrap(), None);
        }
        let gone = next_fault(Messages(Err(io::ErrorKind::BrokenPipe.into())));
        assert_eq!(gone.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
