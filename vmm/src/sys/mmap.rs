//! Memory mappings that own their address range and are reached by copying only.
//!
//! A guest, a device model or another process may write to a mapping at any moment, so no reference into one is ever
//! handed out: [`Mapping::read`] and [`Mapping::write`] copy, after checking the range once.

#![expect(unsafe_code, reason = "mmap, munmap, madvise and copies to and from shared memory")]

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr::{self, NonNull};

use rustix::mm::{
    Advice, MapFlags, MprotectFlags, ProtFlags, madvise, mmap, mmap_anonymous, mprotect, munmap,
};

use super::memfd;
use super::page::{HUGE_PAGE_SIZE, PAGE_SIZE};

/// What a mapping is backed by.
#[derive(Debug, Clone, Copy)]
pub enum MappingSource<'fd> {
    /// Zero-filled memory of this process alone (`MAP_PRIVATE | MAP_ANONYMOUS`).
    Anonymous,
    /// The same on reserved 2 MiB pages (`MAP_HUGETLB`); fails with `ENOMEM` when too few are free.
    AnonymousHuge,
    /// A file's pages, shared with every process that maps it (`MAP_SHARED`).
    Shared(BorrowedFd<'fd>),
    /// A file's pages until first written, own copies afterwards (`MAP_PRIVATE`).
    CopyOnWrite(BorrowedFd<'fd>),
}

/// An address range of this process and the memory in it, unmapped on drop.
#[derive(Debug)]
pub struct Mapping {
    range: OwnedRange,
    /// Whether this mapping is the only way to this memory: it is anonymous, or its file is `memfd`.
    sole: bool,
    /// The anonymous file that backs it, if this mapping made one.
    memfd: Option<File>,
}

// SAFETY: the range belongs to this value until it is dropped, on whichever thread that happens; `munmap` and the copies
// below have no thread affinity.
unsafe impl Send for Mapping {}
// SAFETY: through `&Mapping` memory is only copied in and out, never referenced. Two threads copying over the same
// bytes race as a device and a driver do: the bytes read may be a mix, which callers must expect of guest memory, but
// no Rust reference is ever invalidated by it.
unsafe impl Sync for Mapping {}

/// An access that does not lie within the mapping.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{len_bytes} bytes at offset {offset:#x} do not lie within a mapping of {mapped_bytes} bytes")]
pub struct OutOfRange {
    /// Offset of the first byte of the access, in bytes from the start of the mapping.
    pub offset: usize,
    /// Length of the access, in bytes.
    pub len_bytes: usize,
    /// Length of the mapping, in bytes.
    pub mapped_bytes: usize,
}

impl OutOfRange {
    /// Checks that `len_bytes` at `offset` lie within `mapped_bytes`.
    ///
    /// # Errors
    /// [`OutOfRange`] with the three numbers if they do not.
    pub fn check(offset: usize, len_bytes: usize, mapped_bytes: usize) -> Result<(), Self> {
        match offset.checked_add(len_bytes) {
            Some(end) if end <= mapped_bytes => Ok(()),
            _ => Err(Self { offset, len_bytes, mapped_bytes }),
        }
    }
}

impl Mapping {
    /// Maps `len_bytes` of `source` from `file_offset`, aligned to 2 MiB when it is at least that long.
    ///
    /// The alignment lets the kernel back the range with transparent huge pages and lets KVM map them as such: it
    /// does so only where guest-physical and host-virtual address agree in their low 21 bits.
    ///
    /// # Errors
    /// `InvalidInput` for a length that is zero or not a multiple of the page size of `source`; otherwise the kernel's reason for
    /// refusing `mmap`, such as `ENOMEM`.
    pub fn new(source: MappingSource<'_>, len_bytes: usize, file_offset: u64) -> io::Result<Self> {
        let granule = if matches!(source, MappingSource::AnonymousHuge) { HUGE_PAGE_SIZE } else { PAGE_SIZE };
        if len_bytes == 0 || !len_bytes.is_multiple_of(granule) {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let align = if len_bytes >= HUGE_PAGE_SIZE { HUGE_PAGE_SIZE } else { PAGE_SIZE };

        let (flags, file) = match source {
            // NORESERVE: guests are mostly untouched, and the caller, which knows all of them, decides about overcommit.
            MappingSource::Anonymous => (MapFlags::PRIVATE | MapFlags::NORESERVE, None),
            // No NORESERVE here: an empty pool must be an error now, not a SIGBUS later.
            MappingSource::AnonymousHuge => (MapFlags::PRIVATE | MapFlags::HUGETLB, None),
            MappingSource::Shared(fd) => (MapFlags::SHARED, Some(fd)),
            MappingSource::CopyOnWrite(fd) => (MapFlags::PRIVATE | MapFlags::NORESERVE, Some(fd)),
        };
        let flags = flags | MapFlags::FIXED;
        let range = OwnedRange::reserve(len_bytes, align)?;
        let (target, access) = (range.start.as_ptr().cast(), ProtFlags::READ | ProtFlags::WRITE);
        match file {
            // SAFETY: MAP_FIXED replaces what is mapped in `range`: an empty reservation of exactly `len_bytes`, which this
            // function owns and no other code knows.
            None => unsafe { mmap_anonymous(target, len_bytes, access, flags) },
            // SAFETY: as above.
            Some(file) => unsafe { mmap(target, len_bytes, access, flags, file, file_offset) },
        }?;
        Ok(Self { range, sole: file.is_none(), memfd: None })
    }

    /// Makes an anonymous file of `len_bytes` zero bytes and maps it, shared.
    ///
    /// # Errors
    /// As for [`memfd::create`] and [`Mapping::new`].
    pub fn new_memfd(name: &CStr, len_bytes: usize, huge_pages: bool) -> io::Result<Self> {
        let file = memfd::create(name, len_bytes as u64, huge_pages)?;
        let mapping = Self::new(MappingSource::Shared(file.as_fd()), len_bytes, 0)?;
        // The descriptor never leaves this value, so no other mapping of the file exists or can be made.
        Ok(mapping.owning(file))
    }

    fn owning(mut self, file: File) -> Self {
        self.sole = true;
        self.memfd = Some(file);
        self
    }

    /// Sets bit `i` of `bitmap` when the page at `offset + 4096 * i` holds anything, in memory or in swap. `None` if the
    /// mapping has not made a file, which is what this asks.
    ///
    /// # Errors
    /// As for [`memfd::touched`].
    ///
    /// # Panics
    /// If `bitmap` has fewer than `pages` bits.
    pub fn touched_in_file(&self, offset: usize, pages: usize, bitmap: &mut [u64]) -> Option<io::Result<()>> {
        let file = self.memfd.as_ref()?;
        Some(memfd::touched(file, offset as u64, pages, bitmap))
    }

    /// The memory itself, as long as it cannot be reached in any other way: before it is given to a guest or to another process.
    ///
    /// `None` if it belongs to a file that may be mapped elsewhere.
    pub fn as_mut_slice(&mut self) -> Option<&mut [u8]> {
        // SAFETY: the range is mapped, readable, writable and initialised (by the kernel, with zeros). No other mapping
        // of the memory exists, by `sole`; KVM and the view of `volatile_region` reach it only through a shared
        // borrow of this value or its owner, which the exclusive borrow excludes.
        self.sole.then(|| unsafe {
            std::slice::from_raw_parts_mut(self.range.start.as_ptr(), self.range.len_bytes)
        })
    }

    /// Length in bytes, a multiple of the page size.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.range.len_bytes
    }

    /// Where the range starts in this process's address space. Meant for calls to the kernel (KVM memory slots, pagemap), not for
    /// access.
    #[must_use]
    pub fn host_address(&self) -> u64 {
        self.range.start.as_ptr() as u64
    }

    /// Copies `buffer.len()` bytes out, from `offset` on.
    ///
    /// # Errors
    /// [`OutOfRange`] unless they all lie within the mapping; nothing is copied in that case.
    pub fn read(&self, offset: usize, buffer: &mut [u8]) -> Result<(), OutOfRange> {
        let from = self.checked(offset, buffer.len())?;
        // SAFETY: `checked` proved that `from` is followed by `buffer.len()` mapped bytes; `buffer` is a Rust slice and
        // so cannot overlap a mapping into which no Rust reference exists.
        unsafe { ptr::copy_nonoverlapping(from, buffer.as_mut_ptr(), buffer.len()) };
        Ok(())
    }

    /// Copies `bytes` in, from `offset` on.
    ///
    /// # Errors
    /// [`OutOfRange`] unless they all fit into the mapping; nothing is copied in that case.
    pub fn write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfRange> {
        let to = self.checked(offset, bytes.len())?;
        // SAFETY: as in `read`, with the roles exchanged; the mapping was made writable.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), to, bytes.len()) };
        Ok(())
    }

    /// Asks the kernel to use transparent huge pages for this range, or not to use them.
    ///
    /// # Errors
    /// The kernel's reason for refusing the advice: `EINVAL` if it is built without them.
    pub fn advise_huge_pages(&self, wanted: bool) -> io::Result<()> {
        self.advise(if wanted { Advice::LinuxHugepage } else { Advice::LinuxNoHugepage })
    }

    /// Copies the 4 KiB pages of `[offset, offset + HUGE_PAGE_SIZE)` into one transparent huge page, unless they are one already.
    ///
    /// # Errors
    /// [`OutOfRange`] as the source of the error for a range outside the mapping; `EINVAL` if the kernel has no transparent huge
    /// pages, the range holds nothing, or it is not aligned; `ENOMEM` or `EAGAIN` if the kernel found no huge page or could not
    /// move the small ones.
    pub fn collapse(&self, offset: usize) -> io::Result<()> {
        let start = self.checked(offset, HUGE_PAGE_SIZE).map_err(io::Error::other)?;
        // rustix has no name for this advice, and takes no other number.
        // SAFETY: the range is inside this mapping, as just checked, and the advice does not change its content.
        let result = unsafe { libc::madvise(start.cast(), HUGE_PAGE_SIZE, libc::MADV_COLLAPSE) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Keeps the memory out of children made by `fork()` and out of core dumps.
    ///
    /// # Errors
    /// The kernel's reason for refusing the advice; the memory may be kept out of children already.
    pub fn keep_to_this_process(&self) -> io::Result<()> {
        self.advise(Advice::LinuxDontFork)?;
        self.advise(Advice::LinuxDontDump)
    }

    /// Makes every access to a range fail from now on: accesses by the kernel, such as KVM's for a guest, with `EFAULT`, and
    /// accesses by this process with a signal that ends it. The caller must see to it that this process stays away from the range.
    ///
    /// # Errors
    /// `InvalidInput` for a range outside the mapping; otherwise the kernel's reason for refusing `mprotect`.
    pub fn forbid(&self, offset: usize, len_bytes: usize) -> io::Result<()> {
        let start = self
            .checked(offset, len_bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
        // SAFETY: the range is this value's own. No Rust reference into it exists that the next access could go through:
        // `as_mut_slice` borrows this value exclusively.
        Ok(unsafe { mprotect(start.cast(), len_bytes, MprotectFlags::empty()) }?)
    }

    fn advise(&self, advice: Advice) -> io::Result<()> {
        // SAFETY: the range is this value's own, and no advice used here changes its content.
        Ok(unsafe { madvise(self.range.start.as_ptr().cast(), self.range.len_bytes, advice) }?)
    }

    /// A view of the range as a type of `vm-memory`, for loaders that take its traits.
    ///
    /// The view borrows nothing, so it must not leave this crate: [`crate::memory::Region`] keeps it beside the
    /// mapping that it points into.
    pub(crate) fn volatile_region(&self) -> Result<vm_memory::MmapRegion, vm_memory::mmap::MmapRegionError> {
        // SAFETY: pointer and length are those of a live mapping. `Region` owns both the view and this mapping, and
        // drops them together.
        let builder = unsafe {
            vm_memory::mmap::MmapRegionBuilder::new(self.range.len_bytes)
                .with_raw_mmap_pointer(self.range.start.as_ptr())
        };
        builder.with_mmap_prot(libc::PROT_READ | libc::PROT_WRITE).build()
    }

    /// Checks that `len_bytes` at `offset` lie within the mapping.
    ///
    /// # Errors
    /// [`OutOfRange`] if they do not.
    pub fn check(&self, offset: usize, len_bytes: usize) -> Result<(), OutOfRange> {
        OutOfRange::check(offset, len_bytes, self.range.len_bytes)
    }

    fn checked(&self, offset: usize, len_bytes: usize) -> Result<*mut u8, OutOfRange> {
        self.check(offset, len_bytes)?;
        Ok(self.range.start.as_ptr().wrapping_add(offset))
    }
}

/// Pages of this process's address space that this value owns, whatever is mapped there. They are unmapped on drop.
#[derive(Debug)]
struct OwnedRange {
    start: NonNull<u8>,
    /// A multiple of the page size. Zero if there is nothing to unmap.
    len_bytes: usize,
}

impl OwnedRange {
    /// Address space without memory, which starts at a multiple of `align` bytes.
    fn reserve(len_bytes: usize, align: usize) -> io::Result<Self> {
        let room_bytes = len_bytes.checked_add(align - PAGE_SIZE).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: a new anonymous mapping at an address that the kernel chooses touches nothing that exists.
        let start = unsafe { mmap_anonymous(ptr::null_mut(), room_bytes, ProtFlags::empty(), flags) }?;
        let start = NonNull::new(start.cast()).expect("mmap without MAP_FIXED never returns page zero");
        // The slack before and after the aligned part goes back at once.
        let mut before = Self { start, len_bytes: room_bytes };
        let mut aligned = before.split_off(start.as_ptr().align_offset(align));
        drop(aligned.split_off(len_bytes));
        Ok(aligned)
    }

    /// Cuts the range at `at`, a multiple of the page size, keeps the front and returns the back. Either may be empty.
    fn split_off(&mut self, at: usize) -> Self {
        let len_bytes = self.len_bytes.checked_sub(at).expect("a range is cut inside");
        self.len_bytes = at;
        // SAFETY: the result is inside the range or one past its end, as just checked.
        Self { start: unsafe { self.start.add(at) }, len_bytes }
    }
}

impl Drop for OwnedRange {
    fn drop(&mut self) {
        if self.len_bytes == 0 {
            return;
        }
        // SAFETY: `reserve` made the range, `split_off` leaves each page to one value, and MAP_FIXED has replaced only what is
        // mapped there. No pointer into it outlives it: the two that leave this file are an integer and the view that `Region`
        // drops with the mapping.
        let result = unsafe { munmap(self.start.as_ptr().cast(), self.len_bytes) };
        debug_assert_eq!(result, Ok(()), "munmap of an owned, page-aligned range");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_stay_inside() {
        let mapping = Mapping::new(MappingSource::Anonymous, 2 * PAGE_SIZE, 0).unwrap();
        mapping.write(PAGE_SIZE - 1, &[1, 2, 3]).unwrap();
        let mut back = [9; 5];
        mapping.read(PAGE_SIZE - 2, &mut back).unwrap();
        assert_eq!(back, [0, 1, 2, 3, 0]);

        let end = 2 * PAGE_SIZE;
        mapping.write(end, &[]).unwrap();
        for (offset, len) in [(end, 1), (end - 1, 2), (usize::MAX, 1), (usize::MAX, 0)] {
            let error = mapping.read(offset, &mut vec![0; len]).unwrap_err();
            assert_eq!(error, OutOfRange { offset, len_bytes: len, mapped_bytes: end });
        }
    }

    #[test]
    fn large_mappings_are_aligned_for_huge_pages() {
        for _ in 0..4 {
            let mapping = Mapping::new(MappingSource::Anonymous, 3 * HUGE_PAGE_SIZE, 0).unwrap();
            assert!(mapping.host_address().is_multiple_of(HUGE_PAGE_SIZE as u64));
        }
    }

    #[test]
    fn lengths_must_fit_the_page_size() {
        assert!(Mapping::new(MappingSource::Anonymous, 0, 0).is_err());
        assert!(Mapping::new(MappingSource::Anonymous, 4095, 0).is_err());
        assert!(Mapping::new(MappingSource::AnonymousHuge, PAGE_SIZE, 0).is_err());
    }
}
