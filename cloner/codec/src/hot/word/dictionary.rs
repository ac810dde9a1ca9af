//! The chunk's dictionary: the vectors that most pages of the chunk share, most frequent first.
//!
//! A census of direct-mapped slots takes the place of an exact count: a vector that finds its slot held by another weakens the
//! holder by one, and takes the slot when nothing is left of the holder. Rare vectors displace each other, frequent ones stay. A
//! vector is counted once per page, since within a page a repeat is cheaper than any dictionary.
//!
//! Markers are looked up in a separate table that is small enough for the first-level cache: almost every vector of a page is
//! looked up and almost none is found. A vector is left out if a more frequent one has its slot, so a look-up is one probe.

use crate::chunk::{DICTIONARY_MAX, Page, PageIndex};

use super::super::narrow::low_u16;
use super::super::page::vector_bytes;
use super::HOT_ENTRIES;

/// The census has two to this power slots.
const SLOT_BITS: u32 = 13;
const SLOTS: usize = 1 << SLOT_BITS;
/// The table of markers has two to this power slots.
const MARKER_BITS: u32 = 11;
/// An entry costs eight bytes and saves about five per page that uses it, so it pays only if at least this many pages do.
const PAGES_MIN: u16 = 3;
/// One vector out of this many is counted.
const SAMPLE: usize = 8;
/// Stands for the marker of a vector that has none.
const NONE: u16 = u16::MAX;

#[derive(Clone, Copy)]
struct Slot {
    vector: u64,
    /// Number of pages that had this vector, less the number of pages that had others with the same slot.
    pages: u16,
    /// The page counted last, so that each page counts once.
    last_page: u16,
}

const EMPTY: Slot = Slot { vector: 0, pages: 0, last_page: u16::MAX };

/// Counts vectors, then names the most frequent.
pub(in super::super) struct Dictionary {
    slots: Box<[Slot; SLOTS]>,
    entries: Vec<u64>,
    /// For the hash of each vector, its marker.
    markers: [u16; 1 << MARKER_BITS],
    /// Slots that are worth an entry, while they are ranked.
    ranking: Vec<u32>,
}

impl Dictionary {
    pub(in super::super) fn new() -> Self {
        let slots = vec![EMPTY; SLOTS].into_boxed_slice().try_into().ok().expect("SLOTS slots were made");
        Self {
            slots,
            entries: Vec::with_capacity(DICTIONARY_MAX),
            markers: [NONE; 1 << MARKER_BITS],
            ranking: Vec::with_capacity(SLOTS),
        }
    }

    /// Forgets everything, for a new chunk.
    pub(in super::super) fn clear(&mut self) {
        self.slots.fill(EMPTY);
        self.entries.clear();
        self.markers.fill(NONE);
    }

    /// Counts a sample of one page's vectors. Every page must have a different number.
    pub(in super::super) fn count(&mut self, page: PageIndex, bytes: &Page) {
        let number = low_u16(page.get() as u64);
        for (place, group) in (page.get()..).zip(vector_bytes(bytes).as_chunks::<SAMPLE>().0) {
            // The place differs by group and page, or arrays of structures would always show the same field.
            let vector = u64::from_le_bytes(group[place % SAMPLE]);
            if vector == 0 {
                continue;
            }
            let slot = &mut self.slots[hash::<SLOT_BITS>(vector)];
            if slot.vector == vector {
                slot.pages += u16::from(slot.last_page != number);
                slot.last_page = number;
            } else if slot.pages == 0 {
                *slot = Slot { vector, pages: 1, last_page: number };
            } else {
                slot.pages -= 1;
            }
        }
    }

    /// Ends the census: chooses the vectors that pay for an entry, in order of frequency.
    pub(in super::super) fn choose(&mut self) {
        self.ranking.clear();
        for (slot, number) in self.slots.iter().zip(0_u32..) {
            if slot.pages >= PAGES_MIN {
                self.ranking.push(u32::from(slot.pages) << 16 | number);
            }
        }
        self.ranking.sort_unstable_by_key(|&rank| std::cmp::Reverse(rank));
        for &rank in &self.ranking {
            let vector = self.slots[(rank & 0xffff) as usize % SLOTS].vector;
            let marker = &mut self.markers[hash::<MARKER_BITS>(vector)];
            if *marker == NONE {
                *marker = low_u16(self.entries.len() as u64);
                self.entries.push(vector);
            }
        }
    }

    /// The dictionary, most frequent vector first.
    pub(in super::super) fn entries(&self) -> &[u64] {
        &self.entries
    }

    /// The marker of a vector other than zero, if it has one.
    #[inline(always)]
    pub(super) fn marker(&self, vector: u64) -> Option<u16> {
        let marker = self.markers[hash::<MARKER_BITS>(vector)];
        (self.entries.get(usize::from(marker)) == Some(&vector)).then_some(marker)
    }
}

/// Whether a marker fits in the eight bits of a hot marker.
pub(super) fn is_hot(marker: u16) -> bool {
    usize::from(marker) < HOT_ENTRIES
}

#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "the bits that are left fit in any usize")]
fn hash<const BITS: u32>(vector: u64) -> usize {
    (vector.wrapping_mul(0x9e37_79b1_85eb_ca87) >> (64 - BITS)) as usize
}
