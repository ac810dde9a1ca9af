//! Writes pages past the caches, to memory that will not be read soon.
//!
//! A store to a line that is in no cache first fetches it, from memory that is about to be overwritten completely, and a coder
//! that decodes a page in a microsecond waits for that. Non-temporal stores avoid the fetch and leave the caches as they are.
#![cfg_attr(
    all(target_arch = "x86_64", not(feature = "portable")),
    expect(unsafe_code, reason = "non-temporal stores are instructions")
)]

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use std::arch::x86_64::{_mm_sfence, _mm256_loadu_si256, _mm256_stream_si256};

use crate::chunk::Page;

use super::Backend;

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use super::InstructionSet;

/// Writes pages past the caches; once it is dropped, what it wrote is in order with other stores.
pub(in super::super) struct PastCaches {
    backend: Backend,
}

impl PastCaches {
    pub(super) fn new(backend: Backend) -> Self {
        Self { backend }
    }

    /// Copies a page. Pages of guest memory are aligned to pages; to memory that is not aligned, the page is copied as usual.
    #[inline]
    pub(in super::super) fn write(&mut self, from: &Page, to: &mut Page) {
        match self.backend.0 {
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            InstructionSet::Avx2(_) | InstructionSet::Avx512(_)
                if to.as_ptr().addr().is_multiple_of(STORE_BYTES) =>
            {
                // SAFETY: values of these types prove that the machine has AVX; `drop` orders the stores.
                unsafe { write(from, to) }
            }
            _ => to.copy_from_slice(from),
        }
    }
}

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
impl Drop for PastCaches {
    fn drop(&mut self) {
        // SAFETY: every x86-64 has SSE.
        unsafe { _mm_sfence() }
    }
}

/// Bytes of one store.
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
const STORE_BYTES: usize = 32;

/// # Safety
/// `to` must be aligned to [`STORE_BYTES`], and `_mm_sfence` follow before another thread may read it: non-temporal stores are
/// weakly ordered (Intel SDM 1, 10.4.6.2).
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
#[target_feature(enable = "avx")]
unsafe fn write(from: &Page, to: &mut Page) {
    let to = to.as_chunks_mut::<STORE_BYTES>().0;
    for (from, to) in from.as_chunks::<STORE_BYTES>().0.iter().zip(to) {
        // SAFETY: `from` has 32 readable bytes.
        let bytes = unsafe { _mm256_loadu_si256(from.as_ptr().cast()) };
        // SAFETY: `to` has 32 writable bytes and, as the caller says, the alignment.
        unsafe { _mm256_stream_si256(to.as_mut_ptr().cast(), bytes) };
    }
}
