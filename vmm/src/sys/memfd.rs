//! Anonymous files: memory that has a descriptor, so that another process can map it.

#![expect(unsafe_code, reason = "memfd_create and fcntl have no wrapper in the standard library")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

/// Creates an anonymous file of `len_bytes` zero bytes.
///
/// With `huge_pages`, its pages are reserved 2 MiB ones; they are taken when the file is mapped, not here.
///
/// # Errors
/// The kernel's.
pub fn create(name: &CStr, len_bytes: u64, huge_pages: bool) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | if huge_pages { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
    // Sealing is not offered for hugetlb files by older kernels; ordinary ones are frozen once a template is complete.
    let flags = if huge_pages { flags } else { flags | libc::MFD_ALLOW_SEALING };
    // SAFETY: `name` is a C string; the call takes no other pointer.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor the kernel has just made for this call, owned by nobody else.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len_bytes)?;
    Ok(file)
}

/// Freezes content and size for ever: existing private mappings stay, no shared writable one can exist afterwards.
///
/// # Errors
/// The kernel's; `EBUSY` while a shared writable mapping exists.
pub fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer; the descriptor is open for the life of `file`.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
