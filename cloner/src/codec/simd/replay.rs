//! Replaying byte markers: the loop that decodes most of a guest's memory, and cannot afford a bounds check per copy.
//!
//! The page is built in a window. Every step is two copies of 32 bytes and a few additions, without a branch on what kind of
//! step it is:
//!
//! ```text
//!  0                                      4128                     8224         8320
//!  ┌──────────────────────────────────────┬────────────────────────┬────────────┐
//!  │ zeros                                │ 4096 bytes of the page │ overshoot  │
//!  └──────────────────────────────────────┴────────────────────────┴────────────┘
//! ```
//!
//! A vector starts 32 to 4127 bytes before the place it is copied to, so it always starts in the window: before the page there
//! are zeros, and a vector of zeros is one that starts at 0. Literals and distances are not checked copy by copy either; if
//! what all markers take together fits, so does what any prefix of them takes.

#![expect(
    unsafe_code,
    reason = "the sums over a record's markers bound every copy, which no compiler can see"
)]

use crate::format::{PAGE_BYTES, Page};

use super::super::narrow::low_u32;
use super::Lanes;

/// Bytes a copy moves, whatever the step needs of them; and the least distance of a vector.
pub(in super::super) const COPY_BYTES: usize = 32;
/// Bits of a distance.
const DISTANCE_BITS: u8 = 12;
/// The distance that is stored as 0.
const LEAST_DISTANCE: u32 = 32;
/// Where the page starts in the window: the greatest distance after its start.
const PAGE_AT: u32 = (1 << DISTANCE_BITS) + LEAST_DISTANCE;
/// Steps between two loads of distances: four of 12 bits, after up to 7 bits of the byte before, are in one word.
const STEPS_PER_LOAD: usize = 4;
/// The last step starts at the end of the page at most, and takes literals and a vector.
const WINDOW_BYTES: usize = PAGE_AT as usize + PAGE_BYTES + 3 * COPY_BYTES;

/// Where a page is built from byte markers. Reused from page to page: nothing is ever written before [`PAGE_AT`],
/// and nothing is read after it that was not written for the same page.
pub(in super::super) struct Window([u8; WINDOW_BYTES]);

impl Window {
    pub(in super::super) fn new() -> Self {
        Self([0; WINDOW_BYTES])
    }

    /// The page that was built last.
    pub(in super::super) fn page(&self) -> &Page {
        self.0[PAGE_AT as usize..].first_chunk().expect("the window is larger than a page")
    }
}

/// A step as masks instead of names: what a compiler can see to be a choice it may make a branch, and no branch can be
/// predicted here.
#[derive(Clone, Copy)]
pub(in super::super) struct Move {
    /// The bits of a distance if the vector has a new one, else none.
    new: u32,
    /// The bits of the distance before if the vector has the same one, else none.
    same: u32,
    /// All bits of a place in the window, none if the vector is zeros.
    copied: u32,
    literals: u8,
    length: u8,
    /// Bits the step takes from the stream of distances.
    distance_bits: u8,
}

impl Move {
    pub(in super::super) const fn new(literals: u8, length: u8, is_new: bool, is_zeros: bool) -> Self {
        assert!(literals as usize <= COPY_BYTES && length as usize <= COPY_BYTES);
        const DISTANCE: u32 = (1 << DISTANCE_BITS) - 1;
        Self {
            new: if is_new { DISTANCE } else { 0 },
            same: if is_new { 0 } else { DISTANCE },
            copied: if is_zeros { 0 } else { u32::MAX },
            literals,
            length,
            distance_bits: if is_new { DISTANCE_BITS } else { 0 },
        }
    }
}

/// All moves, and what each takes: literals, bytes of a vector, distances.
pub(in super::super) struct Moves {
    moves: [Move; 256],
    needs: [[u8; 256]; 3],
}

impl Moves {
    pub(in super::super) const fn new(moves: [Move; 256]) -> Self {
        let mut needs = [[0; 256]; 3];
        let mut marker = 0;
        while marker < 256 {
            let Move { literals, length, distance_bits, .. } = moves[marker];
            needs[0][marker] = literals;
            needs[1][marker] = length;
            needs[2][marker] = distance_bits / DISTANCE_BITS;
            marker += 1;
        }
        Self { moves, needs }
    }
}

/// Markers and what they ask for, all together.
#[derive(Clone, Copy)]
pub(in super::super) struct Markers<'a> {
    moves: &'a Moves,
    markers: &'a [u8],
    literals: usize,
    vectors: usize,
    distances: usize,
}

impl<'a> Markers<'a> {
    /// Adds up the markers.
    #[inline(always)]
    pub(in super::super) fn new<L: Lanes>(lanes: L, moves: &'a Moves, markers: &'a [u8]) -> Self {
        let [literals, vectors, distances] = lanes.sums(&moves.needs, markers);
        Self { moves, markers, literals, vectors, distances }
    }

    /// Literal bytes the markers take.
    #[inline(always)]
    pub(in super::super) fn literals(&self) -> usize {
        self.literals
    }

    /// Distances the markers take.
    #[inline(always)]
    pub(in super::super) fn distances(&self) -> usize {
        self.distances
    }

    /// Bytes the markers make.
    #[inline(always)]
    pub(in super::super) fn page_bytes(&self) -> usize {
        self.literals + self.vectors
    }

    /// Builds the page.
    ///
    /// # Panics
    /// If the markers do not make one page, or `distances` or `literals` do not go on for [`COPY_BYTES`] after
    /// what the markers take.
    #[inline(always)]
    pub(in super::super) fn replay(&self, distances: &[u8], literals: &[u8], window: &mut Window) {
        let &Self { moves, markers, .. } = self;
        assert!(self.page_bytes() == PAGE_BYTES, "the markers make {} bytes", self.page_bytes());
        assert!(
            (self.distances * 12).div_ceil(8) + COPY_BYTES <= distances.len(),
            "{} distances",
            self.distances
        );
        assert!(self.literals + COPY_BYTES <= literals.len(), "{} literals", self.literals);
        let mut player = Player { window, literals, at: PAGE_AT, literal_at: 0, distance: 0, bits: 0 };
        let mut distance_bit = 0;
        let (groups, rest) = markers.as_chunks::<STEPS_PER_LOAD>();
        for group in groups {
            // SAFETY: the markers so far took `distance_bit` bits, and after all bits there are COPY_BYTES more.
            player.bits = unsafe { load_u64(distances, distance_bit / 8) } >> (distance_bit % 8);
            for &marker in group {
                let step = &moves.moves[usize::from(marker)];
                distance_bit += usize::from(step.distance_bits);
                // SAFETY: the sums over all markers were found to fit, and this is a prefix of them.
                unsafe { player.step(step) };
            }
        }
        // SAFETY: as above.
        player.bits = unsafe { load_u64(distances, distance_bit / 8) } >> (distance_bit % 8);
        for &marker in rest {
            // SAFETY: as above.
            unsafe { player.step(&moves.moves[usize::from(marker)]) };
        }
    }
}

/// A page half built.
struct Player<'a> {
    window: &'a mut Window,
    literals: &'a [u8],
    /// Where the next byte goes, in the window.
    at: u32,
    literal_at: usize,
    /// How far the last vector was from its source, less `LEAST_DISTANCE`.
    distance: u32,
    /// The distances to come.
    bits: u64,
}

impl Player<'_> {
    /// # Safety
    /// The literals taken so far must leave `COPY_BYTES` in `literals`, and `at` be at most the end of the page.
    #[inline(always)]
    unsafe fn step(&mut self, step: &Move) {
        let window = self.window.0.as_mut_ptr();
        // SAFETY: the caller leaves COPY_BYTES literals.
        let run = unsafe { self.literals.as_ptr().add(self.literal_at) };
        // SAFETY: `at` is in the page or at its end, and more than COPY_BYTES follow.
        let place = unsafe { window.add(self.at as usize) };
        // SAFETY: both have COPY_BYTES, as just said.
        unsafe { copy(run, place) };
        self.literal_at += usize::from(step.literals);
        self.at += u32::from(step.literals);

        let number = low_u32(self.bits) & step.new;
        self.bits >>= step.distance_bits;
        self.distance = self.distance & step.same | number;
        let source = (self.at - LEAST_DISTANCE - self.distance) & step.copied;
        // SAFETY: 0, or less than `at` and not negative: `at` is at least PAGE_AT and a distance has 12 bits.
        let source = unsafe { window.add(source as usize) };
        // SAFETY: literals moved `at` by COPY_BYTES at most, and the window goes on for 3 * COPY_BYTES after the page.
        let place = unsafe { window.add(self.at as usize) };
        // SAFETY: both have COPY_BYTES, as just said.
        unsafe { copy(source, place) };
        self.at += u32::from(step.length);
    }
}

/// Copies `COPY_BYTES`, through a register: the places may overlap.
///
/// # Safety
/// Both places must have `COPY_BYTES`.
#[inline(always)]
unsafe fn copy(from: *const u8, to: *mut u8) {
    // SAFETY: the caller's.
    let bytes = unsafe { from.cast::<[u8; COPY_BYTES]>().read() };
    // SAFETY: the caller's.
    unsafe { to.cast::<[u8; COPY_BYTES]>().write(bytes) };
}

/// # Safety
/// Eight bytes must follow `at` in `bytes`.
#[inline(always)]
unsafe fn load_u64(bytes: &[u8], at: usize) -> u64 {
    // SAFETY: the caller's.
    let start = unsafe { bytes.as_ptr().add(at) };
    // SAFETY: the caller's.
    u64::from_le_bytes(unsafe { start.cast::<[u8; 8]>().read() })
}
