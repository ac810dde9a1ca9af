//! Anonymous files: memory that has a descriptor, so that another process can map it.

use std::ffi::CStr;
use std::fs::File;
use std::io;

use rustix::fs::{MemfdFlags, SealFlags, SeekFrom, fcntl_add_seals, memfd_create, seek};
use rustix::io::Errno;

use super::page::PAGE_SIZE;

/// Creates an anonymous file of `len_bytes` zero bytes.
///
/// With `huge_pages`, its pages are reserved 2 MiB pages; they are taken when the file is mapped, not here.
///
/// # Errors
/// The kernel's reason for refusing `memfd_create` or the length.
pub fn create(name: &CStr, len_bytes: u64, huge_pages: bool) -> io::Result<File> {
    // Older kernels do not offer sealing for hugetlb files. Ordinary files are sealed once a template is complete.
    let kind =
        if huge_pages { MemfdFlags::HUGETLB | MemfdFlags::HUGE_2MB } else { MemfdFlags::ALLOW_SEALING };
    let file = File::from(memfd_create(name, MemfdFlags::CLOEXEC | kind)?);
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
    while let Some(data) = find(file, SeekFrom::Data(next))?
        && page(data) < pages
    {
        // There is always a hole after data: the end of the file, if nothing else.
        let hole = find(file, SeekFrom::Hole(data))?.unwrap_or(u64::MAX);
        for page in page(data)..page(hole).min(pages) {
            bitmap[page / 64] |= 1 << (page % 64);
        }
        next = hole;
    }
    Ok(())
}

/// The next offset of what `target` looks for: data or a hole. `None` if there is no more of it.
///
/// This changes the file's position, which does no harm: a memfd is mapped, never read or written through its position.
fn find(file: &File, target: SeekFrom) -> io::Result<Option<u64>> {
    match seek(file, target) {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NXIO) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Freezes content and size forever: existing private mappings stay, and no shared writable one can be made afterwards.
///
/// # Errors
/// The kernel's reason for not sealing the file: `EBUSY` while a shared writable mapping exists.
pub fn seal(file: &File) -> io::Result<()> {
    Ok(fcntl_add_seals(file, SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE | SealFlags::SEAL)?)
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

    #[test]
    fn data_counts_for_the_pages_asked_about_wherever_it_begins_and_ends() {
        // Runs of pages that hold something, in a file that ends with the last of them.
        let runs = [0..1, 3..5, 62..66, 127..128, 190..257];
        let file = create(c"test", 257 * PAGE_SIZE as u64, false).unwrap();
        let holds = |page: u64| runs.iter().any(|run| run.contains(&page));
        (0..257).filter(|page| holds(*page)).for_each(|page| {
            file.write_all_at(&[1], page * PAGE_SIZE as u64 + 17).unwrap();
        });
        for first in [0, 1, 3, 4, 61, 62, 64, 66, 127, 128, 189, 190, 256, 257] {
            for pages in [0, 1, 2, 63, 64, 65, 128, 257 - first] {
                let mut bitmap = [u64::MAX; 6];
                touched(&file, first * PAGE_SIZE as u64, usize::try_from(pages).unwrap(), &mut bitmap)
                    .unwrap();
                let bits = (0..384_u64)
                    .filter(|page| bitmap[usize::try_from(page / 64).unwrap()] >> (page % 64) & 1 == 1);
                let expected = (0..pages).filter(|page| holds(first + page));
                assert!(bits.eq(expected), "{pages} pages from {first} on");
            }
        }
        assert!(
            std::panic::catch_unwind(|| touched(&file, 0, 65, &mut [0])).is_err(),
            "65 pages in one word"
        );
    }

    #[test]
    fn a_sealed_file_keeps_its_content_and_its_length() {
        let file = create(c"test", 2 * PAGE_SIZE as u64, false).unwrap();
        seal(&file).unwrap();
        let len = 2 * PAGE_SIZE as u64;
        let refused = [file.write_all_at(&[1], 0), file.set_len(0), file.set_len(2 * len), seal(&file)];
        assert!(refused.iter().all(Result::is_err), "{refused:?}");
        assert_eq!(file.metadata().unwrap().len(), len);
    }
}
