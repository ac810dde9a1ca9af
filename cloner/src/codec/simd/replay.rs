//! Replaying byte markers: the loop that decodes most of a guest's memory, and cannot afford a bounds check per copy.
//!
//! The page is built in a window. Every step is two copies of 32 bytes and a few additions, without a branch on what kind of
//! step it is:
//!
//! ```text
//!  0          32                           4096       4128                     8224       8320
//!  ┌──────────┬────────────────────────────┬──────────┬────────────────────────┬──────────┐
//!  │ 32 zeros │ never part of a page       │ 32 zeros │ 4096 bytes of the page │ overshoot│
//!  └──────────┴────────────────────────────┴──────────┴────────────────────────┴──────────┘
//!    for vectors of zeros                    before the page
//! ```
//!
//! A vector starts 32 to 4127 bytes before the place it is copied to. If that is before the zeros before the page the record
//! lies, which is remembered, not branched on: the copy stays inside the window all the same. Literals and distances are not
//! checked copy by copy; if what all markers take together fits, so does what any prefix of them takes.

#![expect(
    unsafe_code,
    reason = "the sums over a record's markers bound every copy, which no compiler can see"
)]

use crate::format::{PAGE_BYTES, Page};

/// Bytes a copy moves, whatever the step needs of them; and the least distance of a vector.
pub(in super::super) const COPY_BYTES: usize = 32;
/// Bits of a distance.
const DISTANCE_BITS: u8 = 12;
const BEFORE_AT: usize = 1 << DISTANCE_BITS;
const PAGE_AT: usize = BEFORE_AT + COPY_BYTES;
/// Steps between two loads of distances: four of 12 bits, after up to 7 bits of the byte before, are in one word.
const STEPS_PER_LOAD: usize = 4;
/// The last step starts at the end of the page at most, and takes literals and a vector.
const WINDOW_BYTES: usize = PAGE_AT + PAGE_BYTES + 3 * COPY_BYTES;

/// Where a page is built from byte markers. Reused from page to page; what it held does not matter.
pub(in super::super) struct Window([u8; WINDOW_BYTES]);

impl Window {
    pub(in super::super) fn new() -> Self {
        Self([0; WINDOW_BYTES])
    }

    /// The page that was built last.
    pub(in super::super) fn page(&self) -> &Page {
        self.0[PAGE_AT..].first_chunk().expect("the window is larger than a page")
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

/// All moves, and what each takes in one number: so far apart that the sum over 4095 markers keeps them apart.
pub(in super::super) struct Moves {
    moves: [Move; 256],
    needs: [u64; 256],
}

impl Moves {
    const VECTORS: u32 = 20;
    const DISTANCES: u32 = 40;
    const NEED: u64 = (1 << 20) - 1;

    pub(in super::super) const fn new(moves: [Move; 256]) -> Self {
        let mut needs = [0; 256];
        let mut marker = 0;
        while marker < 256 {
            let Move { literals, length, distance_bits, .. } = moves[marker];
            let distances = (distance_bits / DISTANCE_BITS) as u64;
            needs[marker] = literals as u64 | (length as u64) << Self::VECTORS | distances << Self::DISTANCES;
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
    ///
    /// # Panics
    /// If there are more than 4095.
    #[inline(always)]
    pub(in super::super) fn new(moves: &'a Moves, markers: &'a [u8]) -> Self {
        assert!(markers.len() < 4096, "{} markers", markers.len());
        let sum =
            markers.iter().fold(0_u64, |sum, &marker| sum.wrapping_add(moves.needs[usize::from(marker)]));
        Self {
            moves,
            markers,
            literals: (sum & Moves::NEED) as usize,
            vectors: (sum >> Moves::VECTORS & Moves::NEED) as usize,
            distances: (sum >> Moves::DISTANCES & Moves::NEED) as usize,
        }
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

    /// Builds the page. `false` if a marker names bytes before the page; the window then holds no page.
    ///
    /// # Panics
    /// If the markers do not make one page, or `distances` or `literals` do not go on for [`COPY_BYTES`] after what the
    /// markers take.
    #[inline(always)]
    #[must_use]
    pub(in super::super) fn replay(&self, distances: &[u8], literals: &[u8], window: &mut Window) -> bool {
        let &Self { moves, markers, .. } = self;
        assert!(self.page_bytes() == PAGE_BYTES, "the markers make {} bytes", self.page_bytes());
        assert!(
            (self.distances * 12).div_ceil(8) + COPY_BYTES <= distances.len(),
            "{} distances",
            self.distances
        );
        assert!(self.literals + COPY_BYTES <= literals.len(), "{} literals", self.literals);
        let mut player =
            Player { window, literals, at: PAGE_AT, literal_at: 0, distance: 0, bits: 0, before: 0 };
        let mut distance_bit = 0;
        let (groups, rest) = markers.as_chunks::<STEPS_PER_LOAD>();
        for group in groups {
            // SAFETY: the markers so far took `distance_bit` bits, and after all bits there are COPY_BYTES more bytes.
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
        player.before >> (u32::BITS - 1) == 0
    }
}

/// A page half built.
struct Player<'a> {
    window: &'a mut Window,
    literals: &'a [u8],
    /// Where the next byte goes, in the window.
    at: usize,
    literal_at: usize,
    /// How far the last vector was from its source, less COPY_BYTES.
    distance: u32,
    /// The distances to come.
    bits: u64,
    /// Its highest bit says whether a vector started before the zeros before the page.
    before: u32,
}

impl Player<'_> {
    /// # Safety
    /// The literals taken so far must leave COPY_BYTES in `literals`, and `at` be at most PAGE_AT + PAGE_BYTES.
    #[inline(always)]
    unsafe fn step(&mut self, step: &Move) {
        // SAFETY: the caller leaves COPY_BYTES literals; `at` is in the page or at its end, and COPY_BYTES follow.
        unsafe { copy(self.literals.as_ptr().add(self.literal_at), self.window.0.as_mut_ptr().add(self.at)) };
        self.literal_at += usize::from(step.literals);
        self.at += usize::from(step.literals);

        let number = (self.bits & 0xffff_ffff) as u32;
        self.bits >>= step.distance_bits;
        self.distance = self.distance & step.same | number & step.new;
        let start = (self.at & 0xffff) as u32 - COPY_BYTES as u32 - self.distance;
        self.before |= start.wrapping_sub(BEFORE_AT as u32);
        let source = (start & step.copied) as usize;
        let window = self.window.0.as_mut_ptr();
        // SAFETY: `start` is below `at`, and not negative since `at` is at least PAGE_AT and a distance has 12 bits; zero is the
        // start of the window. After `at`, which literals moved by COPY_BYTES at most, the window goes on for 2 * COPY_BYTES.
        unsafe { copy(window.add(source), window.add(self.at)) };
        self.at += usize::from(step.length);
    }
}

/// Copies COPY_BYTES, through a register: the places may overlap.
///
/// # Safety
/// Both places must have COPY_BYTES.
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
    u64::from_le_bytes(unsafe { bytes.as_ptr().add(at).cast::<[u8; 8]>().read() })
}
