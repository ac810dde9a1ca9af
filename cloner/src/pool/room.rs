//! How much memory there is, as an error where the kernel does not say.

use std::io;

use vmm::host::memory;

use super::Error;

/// Bytes that this process can still be given: see [`memory::available_bytes`].
pub(crate) fn available_bytes() -> Result<usize, Error> {
    known(memory::available_bytes(), "/proc/meminfo")
}

/// Bytes that the host can still hand out: see [`memory::host_available_bytes`].
pub(super) fn host_available_bytes() -> Result<usize, Error> {
    known(memory::host_available_bytes(), "/proc/meminfo")
}

/// Bytes that this process has to itself: see [`memory::private_bytes`].
pub(crate) fn private_bytes() -> Result<usize, Error> {
    known(memory::private_bytes(), "/proc/self/status")
}

fn known(bytes: Option<u64>, file: &str) -> Result<usize, Error> {
    bytes
        .and_then(|bytes| usize::try_from(bytes).ok())
        .ok_or_else(|| Error::setting(file, io::ErrorKind::InvalidData.into()))
}
