//! Reading the memory of another process.

#![expect(unsafe_code, reason = "process_vm_readv has no safe wrapper")]

use std::fs;
use std::io;
use std::ptr;

/// Copies memory out of process `pid`, from an address in that process.
///
/// # Errors
/// `ESRCH` if there is no such process, `EPERM` if this one may not look into it, `EFAULT` if it has no memory there,
/// `UnexpectedEof` if only a part could be read.
pub(crate) fn read_memory(pid: u32, address: u64, buffer: &mut [u8]) -> io::Result<()> {
    let wanted = buffer.len();
    let ours = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: wanted };
    let address = usize::try_from(address).map_err(|_| io::ErrorKind::InvalidInput)?;
    let theirs = libc::iovec { iov_base: ptr::without_provenance_mut(address), iov_len: wanted };
    // SAFETY: `ours` is one exclusively borrowed buffer, which the kernel writes; the kernel looks up what `theirs` names in the
    // other process, and reports an error if it is not there.
    let read =
        unsafe { libc::process_vm_readv(pid.cast_signed(), &raw const ours, 1, &raw const theirs, 1, 0) };
    match usize::try_from(read) {
        Ok(read) if read == wanted => Ok(()),
        Ok(_) => Err(io::ErrorKind::UnexpectedEof.into()),
        Err(_) => Err(io::Error::last_os_error()),
    }
}

/// Bytes of reserved huge pages that a process has mapped.
///
/// # Errors
/// `InvalidData` if the process has been killed; otherwise the kernel's error from reading its status.
pub(crate) fn huge_bytes(pid: u32) -> io::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = status.lines().find_map(|line| line.strip_prefix("HugetlbPages:")?.strip_suffix("kB"));
    let kib = kib.and_then(|kib| kib.trim().parse::<u64>().ok()).ok_or(io::ErrorKind::InvalidData)?;
    Ok(kib << 10)
}
