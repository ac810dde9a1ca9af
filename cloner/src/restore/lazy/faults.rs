//! What lazy memory asks of the kernel, as a trait: a test answers in the kernel's place, also with what the kernel seldom does.

use std::fmt;
use std::io;
use std::time::Duration;

use vmm::memory::Mapping;
use vmm::memory::userfault::{InstallOutcome, Userfault};
use vmm_sys_util::eventfd::EventFd;

/// Reports missing pages and installs them. Each operation is described at the function of [`Userfault`] with the same name.
pub(super) trait PageFaults: fmt::Debug + Send + Sync {
    fn register(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()>;
    fn unregister(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()>;
    fn copy(&self, mapping: &Mapping, offset: usize, bytes: &[u8]) -> io::Result<InstallOutcome>;
    fn zero(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<InstallOutcome>;
    fn wake(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()>;
    fn wait(&self, waker: &EventFd, limit: Duration) -> io::Result<()>;
    fn next_fault(&self) -> io::Result<Option<u64>>;
}

impl PageFaults for Userfault {
    fn register(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        self.register(mapping, offset, len_bytes)
    }

    fn unregister(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        self.unregister(mapping, offset, len_bytes)
    }

    fn copy(&self, mapping: &Mapping, offset: usize, bytes: &[u8]) -> io::Result<InstallOutcome> {
        self.copy(mapping, offset, bytes)
    }

    fn zero(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<InstallOutcome> {
        self.zero(mapping, offset, len_bytes)
    }

    fn wake(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        self.wake(mapping, offset, len_bytes)
    }

    fn wait(&self, waker: &EventFd, limit: Duration) -> io::Result<()> {
        self.wait(waker, limit)
    }

    fn next_fault(&self) -> io::Result<Option<u64>> {
        self.next_fault()
    }
}
