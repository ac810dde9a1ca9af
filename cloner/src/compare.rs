//! Compares the memories of two guests, or of one guest at two [moments](crate::moment), byte for byte.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES};
use vmm::memory::{self, AccessError, Backing, GuestMemory, PageSize, ReadError, StillMemory};

use crate::layout;
use crate::walk::{Threads, Walker};

/// Why memories cannot be copied or compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memories have different sizes.
    #[error("memories of {left_bytes} and {right_bytes} bytes cannot be compared")]
    Layout {
        /// Size in bytes of the first memory.
        left_bytes: u64,
        /// Size in bytes of the second memory.
        right_bytes: u64,
    },
    /// There is no memory for a copy.
    #[error("cannot copy guest memory")]
    Memory(#[from] memory::Error),
    /// The kernel does not tell which pages were touched.
    #[error("cannot tell which pages of guest memory were touched")]
    Touched(#[from] io::Error),
    /// Part of the memory will never arrive in a lazy clone, or the process that holds the memory cannot be read.
    #[error("cannot read guest memory")]
    Read(#[from] ReadError),
    /// A chunk lies outside the copy, which its layout rules out.
    #[error("cannot write to the copy of guest memory")]
    Write(#[from] AccessError),
}

/// Compares memories, on threads that other tools may share.
#[derive(Debug)]
pub struct Comparer {
    walker: Walker<[Vec<u8>; 2]>,
}

impl Comparer {
    /// Makes the buffers of each thread.
    #[must_use]
    pub fn new(threads: &Threads) -> Self {
        Self { walker: Walker::new(threads, || [vec![0; CHUNK_BYTES], vec![0; CHUNK_BYTES]]) }
    }

    /// Copies memory that stands still, to compare with it later.
    ///
    /// # Errors
    /// [`Error::Memory`] if there is no memory for the copy; [`Error::Touched`] or [`Error::Read`] if `memory` cannot be read.
    pub fn copy_of(&self, memory: &dyn StillMemory) -> Result<GuestMemory, Error> {
        let copy = GuestMemory::new(memory.layout(), Backing::Private(PageSize::Transparent))?;
        self.walker.walk(&layout::chunks(memory.layout()), |[bytes, _], chunk| {
            if !layout::touched(memory, chunk)?.is_empty() {
                let bytes = &mut bytes[..chunk.len_bytes()];
                memory.read(chunk.region, chunk.offset, bytes)?;
                copy.regions()[chunk.region].write(chunk.offset, bytes)?;
            }
            Ok::<(), Error>(())
        })?;
        Ok(copy)
    }

    /// The guest-physical address of the first page that differs; `None` if the memories are equal.
    ///
    /// Both memories must stand still. Chunks that are untouched on both sides count as equal without being read.
    ///
    /// # Errors
    /// [`Error::Layout`] if the memories have different sizes; [`Error::Touched`] or [`Error::Read`] if one of them cannot be read.
    pub fn first_difference(
        &self,
        left: &dyn StillMemory,
        right: &dyn StillMemory,
    ) -> Result<Option<u64>, Error> {
        if left.layout() != right.layout() {
            let (left_bytes, right_bytes) = (left.layout().size_bytes(), right.layout().size_bytes());
            return Err(Error::Layout { left_bytes, right_bytes });
        }
        let first = AtomicU64::new(u64::MAX);
        self.walker.walk(&layout::chunks(left.layout()), |[ours, theirs], chunk| {
            if layout::touched(left, chunk)?.is_empty() && layout::touched(right, chunk)?.is_empty() {
                return Ok(());
            }
            let (ours, theirs) = (&mut ours[..chunk.len_bytes()], &mut theirs[..chunk.len_bytes()]);
            left.read(chunk.region, chunk.offset, ours)?;
            right.read(chunk.region, chunk.offset, theirs)?;
            let differs = |page: &usize| {
                let range = page * PAGE_BYTES..(page + 1) * PAGE_BYTES;
                ours[range.clone()] != theirs[range]
            };
            if let Some(page) = (0..chunk.pages).find(differs) {
                let region = left.layout().ranges().nth(chunk.region).expect("the chunk is of this layout");
                let address = region.start + (chunk.offset + page * PAGE_BYTES) as u64;
                first.fetch_min(address, Ordering::Relaxed);
            }
            Ok::<(), Error>(())
        })?;
        let first = first.into_inner();
        Ok((first != u64::MAX).then_some(first))
    }
}
