//! Anonymous files: memory that has a descriptor, so that another process can map it.

#![expect(
    unsafe_code,
    reason = "memfd_create, fcntl and lseek for data have no wrapper in the standard library"
)]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};

use super::page::PAGE_SIZE;

/// Creates an anonymous file of `len_bytes` zero bytes.
///
/// With `huge_pages`, its pages are reserved 2 MiB pages; they are taken when the file is mapped, not here.
///
/// # Errors
/// The kernel's reason for refusing `memfd_create` or the length.
pub fn create(name: &CStr, len_bytes: u64, huge_pages: bool) -> io::Result<File> {
    let flags = libc::MFD_CLOEXEC | if huge_pages { libc::MFD_HUGETLB | libc::MFD_HUGE_2MB } else { 0 };
    // Older kernels do not offer sealing for hugetlb files. Ordinary files are sealed once a template is complete.
    let flags = if huge_pages { flags } else { flags | libc::MFD_ALLOW_SEALING };
    // SAFETY: `name` is a C string; the call takes no other pointer.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: a descriptor that the kernel has just made for this call, which has no other owner.
    let file = unsafe { File::from_raw_fd(fd) };
    file.set_len(len_bytes)?;
    Ok(file)
}

/// Sets bit `i` of `bitmap` when the file holds anything at `offset + 4096 * i`, in memory or in swap.
///
/// This asks the file, not a page table: the kernel takes pages of a shared mapping out of page tables as it likes (to
/// swap them, to merge them into huge pages) and puts them back on the next access.
///
/// Only the first `pages` bits are looked at; all others of `bitmap` are cleared.
///
/// # Errors
/// The kernel's reason for refusing `lseek`.
///
/// # Panics
/// If `bitmap` has fewer than `pages` bits.
pub fn touched(file: &File, offset: u64, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
    assert!(pages <= bitmap.len() * 64, "{pages} pages in {} words", bitmap.len());
    bitmap.fill(0);
    let page = |address: u64| usize::try_from((address - offset) / PAGE_SIZE as u64).unwrap_or(usize::MAX);
    let mut next = offset;
    while let Some(data) = seek(file, next, libc::SEEK_DATA)?
        && page(data) < pages
    {
        // There is always a hole after data: the end of the file, if nothing else.
        let hole = seek(file, data, libc::SEEK_HOLE)?.unwrap_or(u64::MAX);
        for page in page(data)..page(hole).min(pages) {
            bitmap[page / 64] |= 1 << (page % 64);
        }
        next = hole;
    }
    Ok(())
}

/// The next offset, from `offset` on, of what `whence` looks for: data or a hole. `None` if there is no more of it.
fn seek(file: &File, offset: u64, whence: libc::c_int) -> io::Result<Option<u64>> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: no pointers; the descriptor is open for the life of `file`. The change of its position does no harm:
    // a memfd is mapped, never read or written through its position.
    let found = unsafe { libc::lseek(file.as_raw_fd(), offset, whence) };
    if let Ok(found) = u64::try_from(found) {
        return Ok(Some(found));
    }
    match io::Error::last_os_error() {
        error if error.raw_os_error() == Some(libc::ENXIO) => Ok(None),
        error => Err(error),
    }
}

/// Freezes content and size forever: existing private mappings stay, and no shared writable one can be made afterwards.
///
/// # Errors
/// The kernel's reason for not sealing the file: `EBUSY` while a shared writable mapping exists.
pub fn seal(file: &File) -> io::Result<()> {
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;
    // SAFETY: F_ADD_SEALS takes an integer; the descriptor is open for the life of `file`.
    let result = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn the_file_knows_what_no_page_table_does() {
        let file = create(c"test", 600 * PAGE_SIZE as u64, false).unwrap();
        for page in [100, 101, 599] {
            file.write_all_at(&[1], page * PAGE_SIZE as u64).unwrap();
        }
        let mut bitmap = [u64::MAX; 8];
        touched(&file, 64 * PAGE_SIZE as u64, 512, &mut bitmap).unwrap();
        assert_eq!(bitmap, [0b11 << (100 - 64), 0, 0, 0, 0, 0, 0, 0]);
        touched(&file, 88 * PAGE_SIZE as u64, 512, &mut bitmap).unwrap();
        assert_eq!(bitmap, [0b11 << (100 - 88), 0, 0, 0, 0, 0, 0, 1 << 63]);
    }
}
