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

#[cfg(test)]
mod tests {
    use vmm::memory::Layout;
    use vmm::memory::layout::{MMIO_GAP_END, MMIO_GAP_START};

    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    fn memory(size_bytes: u64) -> GuestMemory {
        let layout = Layout::new(size_bytes).unwrap();
        GuestMemory::new(layout, Backing::Private(PageSize::Base)).unwrap()
    }

    #[test]
    fn the_first_page_that_differs_is_found_up_to_an_odd_end_and_beyond_the_gap() {
        let comparer = Comparer::new(&Threads::new(2).unwrap());
        let short = (512 + 300) * PAGE;
        let above_gap = MMIO_GAP_START + (512 + 37) * PAGE;
        let high = MMIO_GAP_END + (512 + 37) * PAGE;
        let cases: [(u64, &[u64]); 5] = [
            (256 * PAGE, &[0, 255 * PAGE, 256 * PAGE - 1]),
            (512 * PAGE, &[1, 511 * PAGE]),
            (513 * PAGE, &[512 * PAGE, 513 * PAGE - 1]),
            (short, &[5, 300 * PAGE - 1, 512 * PAGE, 600 * PAGE + 17, short - 1]),
            (above_gap, &[MMIO_GAP_START - 1, MMIO_GAP_END, high - PAGE, high - 1]),
        ];
        for (size, addresses) in cases {
            let memory = memory(size);
            addresses.iter().for_each(|address| memory.write(*address, &[1]).unwrap());
            let copy = comparer.copy_of(&memory).unwrap();
            assert_eq!(copy.layout(), memory.layout());
            assert_eq!(comparer.first_difference(&memory, &copy).unwrap(), None, "{size:#x}");
            // From the last to the first: each is then the first that differs, whichever side changed.
            for (address, left) in addresses.iter().rev().zip([true, false].into_iter().cycle()) {
                if left { &memory } else { &copy }.write(*address, &[2]).unwrap();
                let found = comparer.first_difference(&memory, &copy).unwrap();
                assert_eq!(found, Some(address & !(PAGE - 1)), "{address:#x} of {size:#x}");
            }
            // What only one of them touched differs if it is not zero.
            let (empty, touched) = (self::memory(size), self::memory(size));
            touched.write(*addresses.last().unwrap(), &[0]).unwrap();
            assert_eq!(comparer.first_difference(&empty, &touched).unwrap(), None);
            touched.write(*addresses.last().unwrap(), &[3]).unwrap();
            let wanted = Some(addresses.last().unwrap() & !(PAGE - 1));
            assert_eq!(comparer.first_difference(&empty, &touched).unwrap(), wanted);
            assert_eq!(comparer.first_difference(&touched, &empty).unwrap(), wanted);
        }
    }

    #[test]
    fn a_copy_touches_only_the_chunks_that_were_touched() {
        let comparer = Comparer::new(&Threads::new(1).unwrap());
        let memory = memory(812 * PAGE);
        memory.write(811 * PAGE, &[1]).unwrap();
        let copy = comparer.copy_of(&memory).unwrap();
        let touched = |chunk: usize| {
            let chunk = layout::chunks(copy.layout())[chunk];
            !layout::touched(&copy, &chunk).unwrap().is_empty()
        };
        assert_eq!((touched(0), touched(1)), (false, true));
    }

    #[test]
    fn memories_of_different_sizes_are_not_compared() {
        let comparer = Comparer::new(&Threads::new(1).unwrap());
        let (left, right) = (memory(256 * PAGE), memory(257 * PAGE));
        let error = comparer.first_difference(&left, &right).unwrap_err();
        let sizes = (256 * PAGE, 257 * PAGE);
        assert!(
            matches!(error, Error::Layout { left_bytes, right_bytes } if (left_bytes, right_bytes) == sizes)
        );
    }
}
