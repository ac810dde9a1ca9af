//! How a guest's memory is divided: chunks of 2 MiB, numbered through all regions.
//!
//! All conversions between chunk, page and guest-physical address are here.

use std::io;

use cloner_codec::chunk::{CHUNK_BYTES, CHUNK_PAGES, PAGE_BYTES, PageIndex};
use cloner_codec::hot::PageSet;
use vmm::memory::{Layout, StillMemory};

/// A chunk's number, from zero through all regions of a guest in ascending order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkIndex(pub u32);

/// A page's number: 512 times its chunk's number, plus its place in the chunk.
///
/// This is not its guest-physical address: there are no numbers for the MMIO gap, and a short last chunk of a region leaves
/// some numbers unused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageNumber(pub u64);

/// Number of bits of a page number in a [`PlaceRef`]: enough for 4 EiB of pages.
const NUMBER_BITS: u32 = 40;

/// A page of this snapshot or of one that it depends on, as a DUP marker refers to it.
///
/// ```text
/// 63                      40 39                    0
/// ┌─────────────────────────┬───────────────────────┐
/// │ 0: this snapshot        │ page number           │
/// │ n: its n-th dependency  │                       │
/// └─────────────────────────┴───────────────────────┘
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PlaceRef {
    /// Index among the snapshot's dependencies; `None` for the snapshot itself.
    pub dependency: Option<usize>,
    /// Number of the page in that snapshot.
    pub page: PageNumber,
}

impl PlaceRef {
    /// The reference as the 64 bits that the codec stores.
    ///
    /// # Panics
    /// If the dependency's index has more than 24 bits (16 million) or the page number more than 40. No guest has that many.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        assert!(self.page.0 >> NUMBER_BITS == 0, "{:?}", self.page);
        let snapshot = self.dependency.map_or(0, |index| index as u64 + 1);
        assert!(snapshot >> (64 - NUMBER_BITS) == 0, "{snapshot} dependencies");
        snapshot << NUMBER_BITS | self.page.0
    }

    /// The reference that these bits stand for; the reverse of [`to_bits`](Self::to_bits).
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        let snapshot = usize::try_from(bits >> NUMBER_BITS).expect("24 bits");
        Self { dependency: snapshot.checked_sub(1), page: PageNumber(bits & ((1 << NUMBER_BITS) - 1)) }
    }
}

/// Where in a guest's memory a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chunk {
    /// Number of the chunk.
    pub index: ChunkIndex,
    /// Index of the region of guest memory that the chunk belongs to.
    pub region: usize,
    /// Offset in bytes of the chunk within that region, a multiple of 2 MiB.
    pub offset: usize,
    /// Number of pages: 512, or fewer at the end of a region.
    pub pages: usize,
}

impl Chunk {
    /// Length in bytes.
    #[must_use]
    pub const fn len_bytes(&self) -> usize {
        self.pages * PAGE_BYTES
    }
}

impl PageNumber {
    /// The page at `page` of chunk `chunk`.
    #[must_use]
    pub fn new(chunk: ChunkIndex, page: PageIndex) -> Self {
        Self(u64::from(chunk.0) * CHUNK_PAGES as u64 + page.get() as u64)
    }

    /// The chunk and the place in it; `None` if no guest can have a page with this number.
    #[must_use]
    pub fn split(self) -> Option<(ChunkIndex, PageIndex)> {
        let chunk = u32::try_from(self.0 / CHUNK_PAGES as u64).ok()?;
        let page = usize::try_from(self.0 % CHUNK_PAGES as u64).ok()?;
        Some((ChunkIndex(chunk), PageIndex::new(page)?))
    }
}

/// The chunks of a guest with this layout, in order: the one with number `i` is element `i`.
#[must_use]
pub fn chunks(layout: Layout) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for (region, range) in layout.ranges().enumerate() {
        let mut offset = 0;
        while offset < range.len_bytes {
            let pages = ((range.len_bytes - offset) / PAGE_BYTES as u64).min(CHUNK_PAGES as u64);
            chunks.push(Chunk {
                index: ChunkIndex(u32::try_from(chunks.len()).expect("64 GiB have 32 Ki chunks")),
                region,
                offset: usize::try_from(offset).expect("a guest fits into the address space"),
                pages: usize::try_from(pages).expect("at most 512"),
            });
            offset += CHUNK_BYTES as u64;
        }
    }
    chunks
}

/// The chunk with this number, if a guest with this layout has one. Takes the same time for any layout.
#[must_use]
pub fn chunk_at(layout: Layout, index: ChunkIndex) -> Option<Chunk> {
    let mut first = 0;
    for (region, range) in layout.ranges().enumerate() {
        let behind = first + range.len_bytes.div_ceil(CHUNK_BYTES as u64);
        if u64::from(index.0) < behind {
            let offset = (u64::from(index.0) - first) * CHUNK_BYTES as u64;
            let pages = ((range.len_bytes - offset) / PAGE_BYTES as u64).min(CHUNK_PAGES as u64);
            return Some(Chunk {
                index,
                region,
                offset: usize::try_from(offset).expect("a guest fits into the address space"),
                pages: usize::try_from(pages).expect("at most 512"),
            });
        }
        first = behind;
    }
    None
}

/// The pages of a chunk that may hold anything but zeros.
///
/// # Errors
/// As [`StillMemory::touched`].
pub(crate) fn touched(memory: &dyn StillMemory, chunk: &Chunk) -> io::Result<PageSet> {
    let mut words = [0; CHUNK_PAGES / 64];
    memory.touched(chunk.region, chunk.offset, chunk.pages, &mut words)?;
    Ok(PageSet::from_words(words))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_tile_the_regions() {
        let gap = 3 << 30;
        let whole = [1 << 20, 2 << 20, 5 << 30, gap];
        let odd = [
            (1 << 20) + 4096,
            (2 << 20) - 4096,
            (2 << 20) + 4096,
            gap - 4096,
            gap + 4096,
            gap + (2 << 20) + 4096,
        ];
        for size in whole.into_iter().chain(odd) {
            let layout = Layout::new(size).unwrap();
            let chunks = chunks(layout);
            for (region, range) in layout.ranges().enumerate() {
                let own: Vec<&Chunk> = chunks.iter().filter(|chunk| chunk.region == region).collect();
                let mut end = 0;
                for chunk in &own {
                    assert_eq!(chunk.offset, end, "{chunk:?} of {size:#x}");
                    end += chunk.len_bytes();
                }
                // Only the last one is short, and it ends where the region does.
                assert_eq!(end as u64, range.len_bytes, "{size:#x}");
                assert!(own.split_last().unwrap().1.iter().all(|chunk| chunk.pages == CHUNK_PAGES));
            }
            assert_eq!(chunks.iter().map(|chunk| chunk.len_bytes() as u64).sum::<u64>(), size);
            for (i, chunk) in chunks.iter().enumerate() {
                assert_eq!(chunk.index.0 as usize, i);
                assert!(chunk.offset.is_multiple_of(CHUNK_BYTES));
                assert_eq!(chunk_at(layout, chunk.index), Some(*chunk));
            }
            assert_eq!(chunk_at(layout, ChunkIndex(u32::try_from(chunks.len()).unwrap())), None);
        }
    }

    #[test]
    fn places_come_back_from_their_bits() {
        for dependency in [None, Some(0), Some(1), Some(0xff_fffe)] {
            for page in [0, 1, (1 << NUMBER_BITS) - 1] {
                let place = PlaceRef { dependency, page: PageNumber(page) };
                assert_eq!(PlaceRef::from_bits(place.to_bits()), place);
            }
        }
    }

    #[test]
    fn page_numbers_split_where_they_were_joined() {
        for (chunk, page) in [(0, 0), (0, 511), (7, 13), (u32::MAX, 511)] {
            let (chunk, page) = (ChunkIndex(chunk), PageIndex::new(page).unwrap());
            assert_eq!(PageNumber::new(chunk, page).split(), Some((chunk, page)));
        }
        assert_eq!(PageNumber(u64::MAX).split(), None);
    }

    #[test]
    #[should_panic(expected = "PageNumber(1099511627776)")]
    fn a_page_number_of_more_than_40_bits_has_no_reference() {
        let _ = PlaceRef { dependency: None, page: PageNumber(1 << NUMBER_BITS) }.to_bits();
    }

    #[test]
    #[should_panic(expected = "16777216 dependencies")]
    fn a_dependency_of_more_than_24_bits_has_no_reference() {
        let _ = PlaceRef { dependency: Some(0xff_ffff), page: PageNumber(0) }.to_bits();
    }

    #[test]
    fn no_page_number_is_beyond_the_greatest_chunk() {
        let greatest = PageNumber::new(ChunkIndex(u32::MAX), PageIndex::new(511).unwrap());
        assert!(greatest.split().is_some());
        assert_eq!(PageNumber(greatest.0 + 1).split(), None);
    }

    /// Both ends of both regions, where the first of the second follows a short chunk or a full one.
    #[test]
    fn chunks_of_two_regions_are_numbered_through() {
        let gap = 3 << 30;
        for (size, last) in
            [(gap, (0, 512)), (gap + 4096, (1, 1)), (gap + (2 << 20), (1, 512)), (64 << 30, (1, 512))]
        {
            let layout = Layout::new(size).unwrap();
            let chunks = chunks(layout);
            let ends = |chunk: &Chunk| (chunk.region, chunk.offset, chunk.pages);
            assert_eq!((ends(&chunks[0]), ends(&chunks[1535])), ((0, 0, 512), (0, 1535 * CHUNK_BYTES, 512)));
            if let Some(first) = chunks.get(1536) {
                assert_eq!((first.region, first.offset), (1, 0));
            }
            let end = chunks.last().unwrap();
            assert_eq!((end.region, end.pages), last);
            for index in [0, 1, 1535, 1536, 1537, chunks.len() - 1, chunks.len(), chunks.len() + 1] {
                let number = ChunkIndex(u32::try_from(index).unwrap());
                assert_eq!(chunk_at(layout, number), chunks.get(index).copied(), "chunk {index} of {size}");
            }
            assert_eq!(chunk_at(layout, ChunkIndex(u32::MAX)), None);
        }
    }
}
