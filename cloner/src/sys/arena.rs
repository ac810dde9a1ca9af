//! Shared memory cut into spans, each of which owns its bytes.
//!
//! A [`Span`] is to one range of an arena what a `Box<[u8]>` is to a heap block. No operation makes a span from an
//! offset: an arena starts as a single span that covers all of it, and every other span comes from cutting one in two
//! ([`Span::split_off`]) or from merging neighbours ([`Span::join`]).
//!
//! ```text
//! map        [                              0                              ]
//! split_off  [      0      ][                       1                      ]
//! split_off  [      0      ][          1          ][           2           ]
//! join       [      0      ][                       1                      ]
//! ```
//!
//! # Why handing out slices is sound
//! 1. *No two spans overlap.* The first covers the arena alone; `split_off` shortens its receiver by exactly what it
//!    returns; `join` consumes what it adds. No other line in this file writes `start` or `len_bytes`. An allocator
//!    above may therefore be wrong, but it cannot alias memory: it must own every span that it gives away.
//! 2. *A span is written only through `&mut Span`.* A `&[u8]` borrows the span, so the compiler ensures that no code
//!    writes to it meanwhile: the bytes of a span in an `Arc` do not change until the last holder is gone.
//! 3. *No other mapping exists.* The memfd is created close-on-exec in [`Span::map`], never leaves it, and is closed
//!    before it returns. The one [`Mapping`] of it is private to [`Arena`], which neither reads nor writes through it.
//! 4. *The memory outlives its spans*: each holds the arena by [`Arc`].
//! 5. *Every byte is initialised*: a new memfd reads as zeros.
//!
//! As for any memory of a process, the proof does not cover accesses that Rust cannot see: a debugger, `/proc/PID/mem`. A
//! child made by a bare `fork()` does not get the mapping (`MADV_DONTFORK`).

#![expect(unsafe_code, reason = "slices into mapped memory")]

use std::ffi::CStr;
use std::io;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::slice;
use std::sync::Arc;

use vmm::memory::{Mapping, MappingSource, PageSize, memfd};

const NAME: &CStr = c"cloner-pool";

/// A mapping that is only ever reached through the spans it was cut into.
#[derive(Debug)]
struct Arena {
    base: NonNull<u8>,
    /// Keeps the memory at `base` mapped.
    mapping: Mapping,
}

// SAFETY: `base` is an address inside `mapping`, which may be used and dropped on any thread; access through it is
// governed by the spans, which are ordinary owned and borrowed values (points 1 and 2 of the module's proof).
unsafe impl Send for Arena {}
// SAFETY: as for `Send`; `&Arena` itself offers only the address.
unsafe impl Sync for Arena {}

/// The exclusive right to one range of an arena.
#[derive(Debug)]
pub(crate) struct Span {
    arena: Arc<Arena>,
    start: usize,
    len_bytes: usize,
}

impl Span {
    /// Maps a new zero-filled arena of `len_bytes` and returns the span that covers all of it.
    ///
    /// Pages of 2 MiB are set aside when the arena is made and never swapped out. Those of 4 KiB are taken when they are first
    /// touched, and the kernel may swap them out; whether it may merge them is up to the host's settings.
    ///
    /// # Errors
    /// `ENOMEM` if fewer huge pages are free than `len_bytes` takes; otherwise the kernel's reason for not making or mapping
    /// the memfd, such as a length that is zero or not a multiple of the page size.
    pub(crate) fn map(len_bytes: usize, pages: PageSize) -> io::Result<Self> {
        let huge_pages = pages == PageSize::Huge;
        let file = memfd::create(NAME, len_bytes as u64, huge_pages)?;
        let mapping = Mapping::new(MappingSource::Shared(file.as_fd()), len_bytes, 0)?;
        mapping.keep_to_this_process()?;
        let address = usize::try_from(mapping.host_address()).expect("addresses of this process fit usize");
        let base =
            NonNull::new(std::ptr::with_exposed_provenance_mut(address)).expect("mappings are not at zero");
        Ok(Self { arena: Arc::new(Arena { base, mapping }), start: 0, len_bytes })
    }

    /// Offset in the arena of the span's first byte.
    pub(crate) const fn start(&self) -> usize {
        self.start
    }

    /// Length in bytes.
    pub(crate) const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Offset in the arena one past the span's last byte.
    pub(crate) const fn end(&self) -> usize {
        self.start + self.len_bytes
    }

    /// Cuts the span at `at`, keeps the front and returns the back. Either may be empty.
    ///
    /// # Panics
    /// If `at` lies beyond the end.
    pub(crate) fn split_off(&mut self, at: usize) -> Self {
        assert!(at <= self.len_bytes, "a span of {} bytes cannot be cut at {at}", self.len_bytes);
        let back =
            Self { arena: Arc::clone(&self.arena), start: self.start + at, len_bytes: self.len_bytes - at };
        self.len_bytes = at;
        back
    }

    /// Appends `next`, which must begin where this span ends. Hands it back if it does not.
    pub(crate) fn join(&mut self, next: Self) -> Result<(), Self> {
        if !Arc::ptr_eq(&self.arena, &next.arena) || next.start != self.end() {
            return Err(next);
        }
        self.len_bytes += next.len_bytes;
        Ok(())
    }

    /// The span's bytes.
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: `first` is followed by `len_bytes` mapped (4), initialised (5) bytes, no more than `isize::MAX`
        // because they lie in one mapping. They belong to this span alone (1, 3), and the returned borrow of `self` keeps
        // `bytes_mut` from being called (2). The numbers are those of the module's proof.
        unsafe { slice::from_raw_parts(self.first(), self.len_bytes) }
    }

    /// The span's bytes, for writing.
    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `bytes`; `&mut self` makes this the only borrow of the span.
        unsafe { slice::from_raw_parts_mut(self.first(), self.len_bytes) }
    }

    fn first(&self) -> *mut u8 {
        debug_assert!(self.end() <= self.arena.mapping.len_bytes());
        // SAFETY: `start <= end <= ` the mapping's length: `map` starts there, `split_off` and `join` stay inside.
        unsafe { self.arena.base.as_ptr().add(self.start) }
    }
}

#[cfg(test)]
mod tests {
    use vmm::memory::PAGE_SIZE;

    use super::*;

    #[test]
    fn spans_are_cut_and_merged_without_losing_a_byte() {
        let mut front = Span::map(PAGE_SIZE, PageSize::Base).unwrap();
        let mut middle = front.split_off(100);
        let mut back = middle.split_off(200);
        assert_eq!([front.start(), middle.start(), back.start(), back.end()], [0, 100, 300, PAGE_SIZE]);

        front.bytes_mut().fill(1);
        middle.bytes_mut().fill(2);
        back.bytes_mut().fill(3);
        assert!(front.bytes().iter().all(|&byte| byte == 1));

        let back = front.join(back).expect_err("a gap lies between them");
        front.join(middle).unwrap();
        front.join(back).unwrap();
        assert_eq!(front.len_bytes(), PAGE_SIZE);
        assert_eq!([0, 99, 100, 299, 300].map(|at| front.bytes()[at]), [1, 1, 2, 2, 3]);
    }

    #[test]
    fn spans_of_two_arenas_do_not_merge() {
        let mut one = Span::map(PAGE_SIZE, PageSize::Base).unwrap();
        let mut other = Span::map(2 * PAGE_SIZE, PageSize::Base).unwrap();
        let neighbour_in_number_only = other.split_off(PAGE_SIZE);
        assert!(one.join(neighbour_in_number_only).is_err());
    }

    #[test]
    fn memory_outlives_the_span_it_was_mapped_with() {
        let mut whole = Span::map(PAGE_SIZE, PageSize::Base).unwrap();
        let mut back = whole.split_off(64);
        drop(whole);
        back.bytes_mut().fill(7);
        assert_eq!(back.bytes(), [7; PAGE_SIZE - 64]);
    }

    #[test]
    #[should_panic(expected = "cannot be cut at 4097")]
    fn a_cut_beyond_the_end_panics() {
        Span::map(PAGE_SIZE, PageSize::Base).unwrap().split_off(PAGE_SIZE + 1);
    }
}
