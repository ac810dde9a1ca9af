//! Replaying byte markers: the loop that decodes most of a guest's memory, and cannot afford a bounds check per copy.
//!
//! The page is built in a window. Every move joins 32 bytes of literals and 32 of a vector in a register and writes them at once,
//! without a branch on how long either is: the next move overwrites the excess.
//!
//! ```text
//!  0                                      4192                     8288         8320
//!  ┌──────────────────────────────────────┬────────────────────────┬────────────┐
//!  │ zeros                                │ 4096 bytes of the page │ overshoot  │
//!  └──────────────────────────────────────┴────────────────────────┴────────────┘
//! ```
//!
//! A vector starts 32 to 4127 bytes before the place it is copied to, so it always starts in the window: before the page there
//! are zeros, and a vector of zeros is one that starts 4192 bytes before. Literals and distances are not checked copy by copy
//! either: if what a block of markers takes together fits, so does what any prefix of it takes.

#![expect(unsafe_code, reason = "the sums over a block of moves bound every copy, which no compiler can see")]

use crate::chunk::{PAGE_BYTES, Page};

use super::super::window::{COPY_BYTES, LEAST_DISTANCE, REPLAY_PAGE_AT};
use super::Lanes;
use super::moves::{BLOCK_MOVES, DISTANCE_MAX, Distances, MoveTable, Moves, ZEROS_BACK};

/// Byte of the window at which the page ends.
const PAGE_END: usize = REPLAY_PAGE_AT as usize + PAGE_BYTES;
/// A move ends at the end of the page at the latest, and so starts there at the latest.
const WINDOW_BYTES: usize = PAGE_END + COPY_BYTES;

const _: () = assert!(LEAST_DISTANCE + DISTANCE_MAX <= REPLAY_PAGE_AT);
const _: () = assert!(
    ZEROS_BACK <= REPLAY_PAGE_AT && PAGE_END + COPY_BYTES - ZEROS_BACK as usize <= REPLAY_PAGE_AT as usize
);

/// Where a page is built from byte markers. Reused from page to page: nothing is ever written before [`REPLAY_PAGE_AT`],
/// and after it nothing is read that was not written for the same page.
pub(in super::super) struct Window {
    bytes: [u8; WINDOW_BYTES],
    moves: Moves,
}

impl Window {
    pub(in super::super) fn new() -> Self {
        Self { bytes: [0; WINDOW_BYTES], moves: Moves::new() }
    }
}

/// A page that is being built: what is left of its record's streams, and how far the page has come.
pub(in super::super) struct Replay<'a> {
    markers: &'a [u8],
    distances: Distances<'a>,
    literals: &'a [u8],
    literal_at: usize,
    window: &'a mut Window,
    /// Byte of the window at which the next byte of the page goes.
    at: usize,
}

impl<'a> Replay<'a> {
    /// Starts a page. Bytes after the distances may have any value; at least [`COPY_BYTES`] bytes must follow the literals.
    pub(in super::super) fn new(
        markers: &'a [u8],
        distances: &'a [u8],
        literals: &'a [u8],
        window: &'a mut Window,
    ) -> Self {
        let distances = Distances::new(distances);
        Self { markers, distances, literals, literal_at: 0, window, at: REPLAY_PAGE_AT.into() }
    }

    /// Whether the page was built to its end, and took exactly this many distances and literals.
    pub(in super::super) fn took(&self, distances: usize, literals: usize) -> bool {
        (self.at, self.distances.taken(), self.literal_at) == (PAGE_END, distances, literals)
    }

    /// The page that was built.
    pub(in super::super) fn into_page(self) -> &'a Page {
        self.window.bytes[REPLAY_PAGE_AT as usize..].first_chunk().expect("the window is larger than a page")
    }

    /// Builds the page, as far as its markers fit.
    #[inline(always)]
    pub(in super::super) fn build<L: Lanes>(&mut self, lanes: L, table: &MoveTable) {
        while !self.markers.is_empty() {
            let mut player = self.read(lanes, table);
            player.play(lanes, 0);
        }
    }

    /// Builds two pages at once.
    ///
    /// What a vector is copied from may have been written by several of the moves just before it, and can be read only when all of
    /// these have reached the cache. Meanwhile the other page goes on.
    #[inline(always)]
    pub(in super::super) fn build_both<L: Lanes>(&mut self, other: &mut Self, lanes: L, table: &MoveTable) {
        while !self.markers.is_empty() && !other.markers.is_empty() {
            let mut players = [self.read(lanes, table), other.read(lanes, table)];
            let together = players[0].count.min(players[1].count);
            for number in 0..together {
                for player in &mut players {
                    // SAFETY: `number` is less than the player's count, and those before it have been made.
                    unsafe { player.step(lanes, number) };
                }
            }
            for player in &mut players {
                player.play(lanes, together);
            }
        }
        self.build(lanes, table);
        other.build(lanes, table);
    }

    /// Reads a block of markers. If the block does not fit, there is nothing to play, in this block or any after it.
    #[inline(always)]
    fn read<L: Lanes>(&mut self, lanes: L, table: &MoveTable) -> Player<'_> {
        let (block, rest) = self.markers.split_at(self.markers.len().min(BLOCK_MOVES));
        let Window { bytes, moves } = &mut *self.window;
        lanes.moves(table, block, &mut self.distances, moves);
        let farthest = moves.back[..block.len()].iter().fold(0, |farthest, &back| farthest.max(back));
        assert!(farthest <= REPLAY_PAGE_AT, "{farthest} bytes back");
        let (at, literal_at) = (self.at, self.literal_at);
        self.at += sum(&moves.bytes[..block.len()]);
        self.literal_at += sum(&moves.literals[..block.len()]);
        let fits = self.at <= PAGE_END && self.literal_at + COPY_BYTES <= self.literals.len();
        self.markers = if fits { rest } else { &[] };
        Player {
            literals: self.literals[literal_at..].as_ptr(),
            // SAFETY: all moves before fitted, so this is in the page or at its end.
            place: unsafe { bytes.as_mut_ptr().add(at) },
            moves,
            count: if fits { block.len() } else { 0 },
        }
    }
}

/// A block of moves to make. They are known to stay in the page, to leave at least [`COPY_BYTES`] of literals, and to copy
/// vectors from at most [`REPLAY_PAGE_AT`] bytes before.
struct Player<'a> {
    /// The first literal that has not been taken yet.
    literals: *const u8,
    /// Where the next byte of the page goes, in a window.
    place: *mut u8,
    moves: &'a Moves,
    count: usize,
}

impl Player<'_> {
    /// Makes the moves from `first` on; those before it have been made.
    #[inline(always)]
    fn play<L: Lanes>(&mut self, lanes: L, first: usize) {
        for number in first..self.count {
            // SAFETY: `number` is less than the count, and those before it have been made.
            unsafe { self.step(lanes, number) };
        }
    }

    /// Makes the move with this number.
    ///
    /// # Safety
    /// The block must have a move with this number, and the moves before it must have been made, once each.
    #[inline(always)]
    unsafe fn step<L: Lanes>(&mut self, lanes: L, number: usize) {
        let &mut Self { literals, place, moves, .. } = self;
        let number = number % BLOCK_MOVES;
        let (takes, makes) = (moves.literals[number], moves.bytes[number]);
        // SAFETY: the moves up to this one leave COPY_BYTES of literals.
        let run = unsafe { load(literals) };
        // SAFETY: `place` is in the page or at its end, so REPLAY_PAGE_AT bytes before it are in the window.
        let source = unsafe { place.sub(moves.back[number].into()) };
        // SAFETY: COPY_BYTES follow the end of the page in the window, and so any place before.
        let vector = unsafe { load(source) };
        match lanes.join(takes, &run, &vector) {
            // SAFETY: as above.
            Some(joined) if usize::from(makes) <= COPY_BYTES => unsafe { store(place, joined) },
            _ => {
                // SAFETY: as above.
                unsafe { store(place, run) };
                // SAFETY: the literals of this move end at the end of the page at the latest.
                let place = unsafe { place.add(takes.into()) };
                // SAFETY: so the vector, which starts there, comes from at most REPLAY_PAGE_AT bytes before that.
                let source = unsafe { place.sub(moves.back[number].into()) };
                // SAFETY: as above.
                let vector = unsafe { load(source) };
                // SAFETY: as above.
                unsafe { store(place, vector) };
            }
        }
        // SAFETY: this leads at most to the end of the literals that all moves take.
        self.literals = unsafe { literals.add(takes.into()) };
        // SAFETY: this leads at most to the end of the page.
        self.place = unsafe { place.add(makes.into()) };
    }
}

/// Adds up the numbers of a block, each less than [`FLAG`](super::moves::FLAG), so that the sum cannot overflow.
#[inline(always)]
fn sum(numbers: &[u8]) -> usize {
    numbers.iter().fold(0_u16, |sum, &number| sum + u16::from(number)).into()
}

/// # Safety
/// `COPY_BYTES` must be readable at `from`.
#[inline(always)]
unsafe fn load(from: *const u8) -> [u8; COPY_BYTES] {
    // SAFETY: the caller guarantees that the bytes are readable.
    unsafe { from.cast::<[u8; COPY_BYTES]>().read() }
}

/// # Safety
/// `COPY_BYTES` must be writable at `to`.
#[inline(always)]
unsafe fn store(to: *mut u8, bytes: [u8; COPY_BYTES]) {
    // SAFETY: the caller guarantees that the bytes are writable.
    unsafe { to.cast::<[u8; COPY_BYTES]>().write(bytes) }
}
