//! Finds which bytes of a page occurred in it before.
//!
//! ```text
//! from a place on: where do zeros start, or where does the same distance go on? One look at 32 bytes tells.
//!     close by: take them
//!     further on: have the bytes at a place before that occurred elsewhere? One probe for each place, until one hits.
//!     One look at 32 bytes tells how far the match goes, forwards and back over literals that belong to the vector as well.
//! ```
//!
//! There is one probe into a table of where bytes occurred last, and no second attempt, because a source that is paused or frozen
//! while its memory is encoded waits for this. Half of the time goes into probes, and half into the work for each vector, where
//! instructions count as much as branches that cannot be predicted.

use std::num::NonZeroUsize;

use crate::chunk::{PAGE_BYTES, Page};

use super::super::narrow::low_u16;
use super::super::simd::Lanes;
use super::super::window::{SEARCH_PAGE_AT, STEP_MAX};
use super::steps::VectorSource;

/// Byte of the window at which the page ends.
pub(super) const PAGE_END: usize = SEARCH_PAGE_AT + PAGE_BYTES;
/// Every `u16` is a place in the window, so that no place has to be checked. Most of the window is never touched.
const PLACES: usize = 1 << 16;
/// Bytes after the last place, as many as are read from any place.
const SLACK: usize = 64;
const SLOT_BITS: u32 = 12;
/// The shortest vector from a new distance that is looked for, and the shortest from the same distance or of zeros.
const NEW_BYTES: u32 = 5;
const SAME_BYTES: u32 = 4;
/// Places searched together for zeros and the same distance. From later places, [`SAME_BYTES`] would not fit in the register.
const AHEAD: usize = STEP_MAX - SAME_BYTES as usize + 1;

/// Zeros or the same distance after fewer literals than this are taken without a probe: a new distance would be longer, but not
/// by enough to pay for itself.
const NEAR: usize = 3;
/// Bytes before a place that are compared along with those from there on.
const BEFORE: usize = 8;
static ZEROS: [u8; STEP_MAX] = [0; STEP_MAX];

/// The page, and where its bytes occurred last.
pub(super) struct Search {
    window: Box<[u8; PLACES + SLACK]>,
    /// For each hash, the place where bytes with this hash occurred last.
    seen: [u16; 1 << SLOT_BITS],
}

/// Bytes of the page that a marker can name instead of repeating them.
pub(super) struct Vector {
    pub source: VectorSource,
    pub start: usize,
    pub end: usize,
    /// How many bytes back the vector stood; for zeros, the distance of the vector before it.
    pub distance: usize,
}

impl Search {
    pub(super) fn new() -> Self {
        let window = vec![0; PLACES + SLACK].into_boxed_slice().try_into().expect("as long as said");
        Self { window, seen: [0; 1 << SLOT_BITS] }
    }

    /// Starts a page and forgets the one before it.
    #[inline(always)]
    pub(super) fn start(&mut self, page: &Page) {
        self.window[SEARCH_PAGE_AT..PAGE_END].copy_from_slice(page);
        self.seen.fill(0);
    }

    /// Finds the first vector at `at` or soon after it; literals since `anchor` may become its first bytes. `distance` is that of
    /// the vector before; `stride` is how many bytes probes are apart. The error is the place to go on from if nothing was found.
    #[inline(always)]
    pub(super) fn next<L: Lanes>(
        &mut self,
        lanes: L,
        anchor: usize,
        at: usize,
        distance: usize,
        stride: usize,
    ) -> Result<Vector, usize> {
        let here = self.load(at);
        let zero_or_same =
            lanes.equal_bytes(&ZEROS, here) | lanes.equal_bytes(self.load(at - distance), here);
        let ahead = (runs(zero_or_same) | 1 << AHEAD).trailing_zeros() as usize;
        let limit = (at + ahead).min(PAGE_END - 7);

        let (found, from) = if ahead < NEAR { (limit, None) } else { self.probe(at, limit, stride) };
        if let Some(from) = from {
            let from = from.get();
            // One look at eight bytes before and 24 bytes from there on.
            let differ = !lanes.equal_bytes(self.load(from - BEFORE), self.load(found - BEFORE));
            let before = (differ << (32 - BEFORE) | 1 << (31 - BEFORE)).leading_zeros() as usize;
            let mut length = (differ >> BEFORE | 1 << (32 - BEFORE)).trailing_zeros() as usize;
            if length == 32 - BEFORE {
                length = self.more_equal(lanes, from, found, length);
            }
            let start = found - before.min(found - anchor);
            let end = (found + length).min(PAGE_END);
            return Ok(Vector { source: VectorSource::New, start, end, distance: found - from });
        }
        if ahead == AHEAD || limit == PAGE_END - 7 {
            return Err(found);
        }
        self.zero_or_same(lanes, anchor, limit, distance).ok_or(limit + 1)
    }

    /// The vector of zeros or from the same distance at `at`, whichever is longer. Both may be too short there to be a vector, even
    /// if a little of each is found.
    #[inline(always)]
    fn zero_or_same<L: Lanes>(&self, lanes: L, anchor: usize, at: usize, distance: usize) -> Option<Vector> {
        let zeros = self.more(lanes, at, 0, |_| &ZEROS);
        let same = self.more_equal(lanes, at - distance, at, 0);
        if zeros.max(same) < SAME_BYTES as usize {
            return None;
        }
        let end = (at + zeros.max(same)).min(PAGE_END);
        let (source, before) = if zeros >= same {
            (VectorSource::Zero, self.load_u64(at - 8).leading_zeros())
        } else {
            (
                VectorSource::Same,
                (self.load_u64(at - 8) ^ self.load_u64((at - distance).saturating_sub(8))).leading_zeros(),
            )
        };
        Some(Vector { source, start: at - (before as usize / 8).min(at - anchor), end, distance })
    }

    /// Looks for bytes that occurred elsewhere, at every `stride`-th place from `at` to before `limit`. Returns where they are and
    /// where they were before, or where the search stopped and `None`.
    ///
    /// Not inlined: among the caller's variables this loop would keep its own in memory, which costs more than the call.
    #[inline(never)]
    fn probe(&mut self, mut at: usize, limit: usize, stride: usize) -> (usize, Option<NonZeroUsize>) {
        if stride == 1 {
            // Two places are read with one load.
            while at + 2 <= limit {
                let bytes = self.load_u64(at);
                let slot = &mut self.seen[hash(bytes)];
                let from = usize::from(*slot);
                *slot = low_u16(at as u64);
                if low(self.load_u64(from) ^ bytes, NEW_BYTES) == 0 && from + STEP_MAX <= at {
                    return (at, NonZeroUsize::new(from));
                }
                let next = bytes >> 8;
                let slot = &mut self.seen[hash(next)];
                let from = usize::from(*slot);
                *slot = low_u16(at as u64 + 1);
                if low(self.load_u64(from) ^ next, NEW_BYTES) == 0 && from + STEP_MAX <= at + 1 {
                    return (at + 1, NonZeroUsize::new(from));
                }
                at += 2;
            }
        }
        while at < limit {
            let bytes = self.load_u64(at);
            let slot = &mut self.seen[hash(bytes)];
            let from = usize::from(*slot);
            *slot = low_u16(at as u64);
            if low(self.load_u64(from) ^ bytes, NEW_BYTES) == 0 && from + STEP_MAX <= at {
                return (at, NonZeroUsize::new(from));
            }
            at += stride;
        }
        (at, None)
    }

    /// Length of the equal bytes at two places, of which the first `length` are known to be equal. Beyond the end of the page the
    /// result may be anything.
    #[inline(always)]
    fn more_equal<L: Lanes>(&self, lanes: L, from: usize, at: usize, length: usize) -> usize {
        self.more(lanes, at, length, |length| self.load(from + length))
    }

    /// Length of the bytes at a place that equal those of `other`, of which the first `length` are known to be equal.
    #[inline(always)]
    fn more<'a, L: Lanes>(
        &self,
        lanes: L,
        at: usize,
        mut length: usize,
        other: impl Fn(usize) -> &'a [u8; STEP_MAX],
    ) -> usize {
        loop {
            let equal = lanes.equal_bytes(other(length), self.load(at + length)).trailing_ones();
            length += equal as usize;
            if equal < 32 || at + length >= PAGE_END {
                return length;
            }
        }
    }

    /// The bytes from a place on.
    #[inline(always)]
    pub(super) fn load<const N: usize>(&self, at: usize) -> &[u8; N] {
        const { assert!(N <= SLACK) };
        self.window[at % PLACES..].first_chunk().expect("the window goes on after the last place")
    }

    #[inline(always)]
    fn load_u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.load(at))
    }
}

/// The places where [`SAME_BYTES`] set bits in a row start.
#[inline(always)]
fn runs(mask: u32) -> u32 {
    const { assert!(SAME_BYTES == 4) };
    let pairs = mask & mask >> 1;
    pairs & pairs >> 2
}

/// The first `count` of eight bytes.
#[inline(always)]
fn low(bytes: u64, count: u32) -> u64 {
    bytes << (64 - 8 * count)
}

/// Hashes as many bytes as a vector from a new distance has at least, to a slot of the table.
#[inline(always)]
fn hash(bytes: u64) -> usize {
    (low(bytes, NEW_BYTES).wrapping_mul(0x9e37_79b1_85eb_ca87) >> (64 - SLOT_BITS)) as usize
}
