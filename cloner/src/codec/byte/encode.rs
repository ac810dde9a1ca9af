//! From a page to byte markers.
//!
//! ```text
//! at each place: do zeros start here? the bytes of the same distance as before? bytes that stood elsewhere before?
//!     if not: the byte is a literal
//!     if so:  go back over literals that belong to the vector as well, emit it, go on behind it
//! ```
//!
//! One probe into a table of where bytes stood last and no second thoughts: a source paused or frozen while its memory is
//! encoded waits for this loop.

use crate::format::{PAGE_BYTES, Page};

use super::super::narrow::{low_u8, low_u16, low_u32};
use super::super::simd::{Kernel, Lanes};
use super::steps::{MARKERS, STEPS, Source, Step};
use super::{COUNTS_BYTES, STEP_MAX};

const SLOT_BITS: u32 = 12;
/// Where the page starts in the scratch window: after zeros, as the decoder has it, as far as vectors reach here.
const PAGE_AT: usize = 64;
const PAGE_END: usize = PAGE_AT + PAGE_BYTES;
/// The window goes on after the page, so that whole registers can be read anywhere in it.
const WINDOW_BYTES: usize = PLACES + 64;
/// A power of two beyond the places of the page.
const PLACES: usize = 2 * PAGE_BYTES;
/// The least length of a vector from a new distance that is looked for, and of one from the same distance or of zeros.
const NEW_BYTES: u32 = 5;
const SAME_BYTES: u32 = 4;

/// Scratch for one page's byte markers: first [`MarkBytes`] finds them, then [`WriteBytes`] writes the record.
pub(in super::super) struct ByteEncoder {
    window: [u8; WINDOW_BYTES],
    /// Where four bytes with this hash stood last.
    seen: [u16; 1 << SLOT_BITS],
    markers: [u8; PAGE_BYTES],
    marker_count: usize,
    distances: [u16; PAGE_BYTES],
    distance_count: usize,
    literals: [u8; PAGE_BYTES + STEP_MAX],
    literal_count: usize,
}

impl ByteEncoder {
    pub(in super::super) fn new() -> Self {
        Self {
            window: [0; WINDOW_BYTES],
            seen: [0; 1 << SLOT_BITS],
            markers: [0; PAGE_BYTES],
            marker_count: 0,
            distances: [0; PAGE_BYTES],
            distance_count: 0,
            literals: [0; PAGE_BYTES + STEP_MAX],
            literal_count: 0,
        }
    }

    #[inline(always)]
    fn start(&mut self, page: &Page) {
        self.window[PAGE_AT..PAGE_END].copy_from_slice(page);
        self.seen.fill(0);
        self.marker_count = 0;
        self.distance_count = 0;
        self.literal_count = 0;
    }

    pub(in super::super) fn marker_count(&self) -> usize {
        self.marker_count
    }

    fn record_bytes(&self) -> usize {
        COUNTS_BYTES + self.marker_count + (self.distance_count * 12).div_ceil(8) + self.literal_count
    }

    /// The bytes at a place of the window; places are at most `PAGE_END`, and masked so that a compiler sees it.
    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> &[u8; N] {
        self.window[at % PLACES..].first_chunk().expect("the window goes on for 64 bytes")
    }

    #[inline(always)]
    fn load_u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.load(at))
    }

    /// The zeros at a place, or its vector from the same distance, whichever is longer.
    #[inline(always)]
    fn zeros_or_same<L: Lanes>(&self, lanes: L, at: usize, distance: usize) -> Vector {
        let from = at - distance;
        let (zeros, same) = (self.zeros(lanes, at), self.equal(lanes, from, at));
        if zeros >= same {
            Vector { source: Source::Zero, from, length: zeros }
        } else {
            Vector { source: Source::Same, from, length: same }
        }
    }

    /// Equal bytes at two places, up to the end of the page.
    #[inline(always)]
    fn equal<L: Lanes>(&self, lanes: L, source: usize, at: usize) -> usize {
        let mut length = lanes.equal_prefix(self.load(source), self.load(at));
        while length.is_multiple_of(STEP_MAX) && length != 0 && at + length < PAGE_END {
            let equal = lanes.equal_prefix(self.load(source + length), self.load(at + length));
            length += equal;
            if equal == 0 {
                break;
            }
        }
        length.min(PAGE_END - at)
    }

    /// Zero bytes from here, up to the end of the page.
    #[inline(always)]
    fn zeros<L: Lanes>(&self, lanes: L, at: usize) -> usize {
        let mut length = lanes.equal_prefix(&[0; STEP_MAX], self.load(at));
        while length.is_multiple_of(STEP_MAX) && length != 0 && at + length < PAGE_END {
            let equal = lanes.equal_prefix(&[0; STEP_MAX], self.load(at + length));
            length += equal;
            if equal == 0 {
                break;
            }
        }
        length.min(PAGE_END - at)
    }

    /// Bytes before `at` that the vector could have as well, up to eight.
    #[inline(always)]
    fn equal_before(&self, vector: &Vector, at: usize) -> usize {
        let before = self.load_u64(at - 8);
        let source =
            if vector.source == Source::Zero { 0 } else { self.load_u64(vector.from.saturating_sub(8)) };
        (before ^ source).leading_zeros() as usize / 8
    }

    #[inline(always)]
    fn push_marker(&mut self, marker: u8) {
        self.markers[self.marker_count] = marker;
        self.marker_count += 1;
    }

    /// Emits the literals `from..to`, and runs for all but the last few, which are left to the next marker; returns those.
    #[inline(always)]
    fn push_literals(&mut self, from: usize, to: usize) -> usize {
        let mut at = from;
        loop {
            let run = *self.load::<STEP_MAX>(at);
            self.literals[self.literal_count..][..STEP_MAX].copy_from_slice(&run);
            let left = to - at;
            if left < LITERALS {
                self.literal_count += left;
                return left;
            }
            let run = if left >= STEP_MAX { STEP_MAX } else { LITERALS };
            self.push_marker(RUNS[run]);
            self.literal_count += run;
            at += run;
        }
    }
}

impl ByteEncoder {
    /// Emits the literals `from..at` and the vector that follows them; returns how many of its bytes are covered.
    #[inline(always)]
    fn push_step(&mut self, from: usize, at: usize, vector: &Vector) -> usize {
        let (fits, next) = match vector.source {
            Source::New => {
                self.distances[self.distance_count] = low_u16((at - vector.from - STEP_MAX) as u64);
                self.distance_count += 1;
                (&NEW, &SAME)
            }
            Source::Same => (&SAME, &SAME),
            Source::Zero | Source::None => (&ZERO, &ZERO),
        };
        let literals = self.push_literals(from, at);
        let mut fit = fits[literals][vector.length.min(STEP_MAX)];
        if fit.length == 0 {
            self.push_run(literals);
            fit = fits[0][vector.length.min(STEP_MAX)];
        }
        self.push_marker(fit.marker);
        let mut covered = usize::from(fit.length);
        loop {
            let fit = next[0][(vector.length - covered).min(STEP_MAX)];
            if fit.length == 0 {
                return covered;
            }
            self.push_marker(fit.marker);
            covered += usize::from(fit.length);
        }
    }

    /// Emits runs that take `literals` literals, already in the stream.
    #[inline(always)]
    fn push_run(&mut self, literals: usize) {
        if literals > 8 {
            self.push_marker(RUNS[8]);
            self.push_marker(RUNS[literals - 8]);
        } else if literals > 0 {
            self.push_marker(RUNS[literals]);
        }
    }
}

/// Literals that a step with a vector can take: more are runs of their own before it.
const LITERALS: usize = 16;

/// For each source, number of literals and length: the marker that covers most of them.
#[derive(Clone, Copy)]
struct Fit {
    marker: u8,
    /// Bytes of the vector it covers: 0 if this source has no marker so short.
    length: u8,
}

type Fits = [[Fit; STEP_MAX + 1]; LITERALS];

static NEW: Fits = fits(Source::New);
static SAME: Fits = fits(Source::Same);
static ZERO: Fits = fits(Source::Zero);

/// The marker of a run of literals without a vector, for the lengths that have one.
static RUNS: [u8; STEP_MAX + 1] = {
    let mut runs = [0; STEP_MAX + 1];
    let mut marker = 0;
    while marker < MARKERS {
        if matches!(STEPS[marker].source, Source::None) {
            runs[STEPS[marker].literals as usize] = low_u8(marker as u64);
        }
        marker += 1;
    }
    runs
};

const fn fits(source: Source) -> Fits {
    let mut fits = [[Fit { marker: 0, length: 0 }; STEP_MAX + 1]; LITERALS];
    let mut marker = 0;
    while marker < MARKERS {
        let Step { literals, length, source: of } = STEPS[marker];
        if of as u8 == source as u8 {
            let mut longer = length as usize;
            while longer <= STEP_MAX {
                let fit = &mut fits[literals as usize][longer];
                if fit.length < length {
                    *fit = Fit { marker: low_u8(marker as u64), length };
                }
                longer += 1;
            }
        }
        marker += 1;
    }
    fits
}

/// Finds the byte markers of a page; returns the bytes of its record.
pub(in super::super) struct MarkBytes<'a> {
    pub encoder: &'a mut ByteEncoder,
    pub page: &'a Page,
}

impl Kernel for MarkBytes<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> usize {
        let Self { encoder, page } = self;
        encoder.start(page);
        let mut anchor = PAGE_AT;
        let mut at = PAGE_AT;
        let mut distance = STEP_MAX;
        while at + 8 <= PAGE_END {
            let bytes = encoder.load_u64(at);
            let slot = hash(bytes);
            let seen = usize::from(encoder.seen[slot]);
            encoder.seen[slot] = low_u16(at as u64);
            let is_zero = low(bytes, SAME_BYTES) == 0;
            let is_same = low(encoder.load_u64(at - distance) ^ bytes, SAME_BYTES) == 0;
            let mut vector = if is_zero | is_same {
                encoder.zeros_or_same(lanes, at, distance)
            } else if low(encoder.load_u64(seen) ^ bytes, NEW_BYTES) == 0 && seen + STEP_MAX <= at {
                Vector { source: Source::New, from: seen, length: encoder.equal(lanes, seen, at) }
            } else {
                at += 1 + (at - anchor) / 64;
                continue;
            };
            let back = encoder.equal_before(&vector, at).min(at - anchor);
            at -= back;
            vector.length += back;
            if vector.source != Source::Zero {
                vector.from -= back;
                distance = at - vector.from;
            }
            at += encoder.push_step(anchor, at, &vector);
            anchor = at;
        }
        let literals = encoder.push_literals(anchor, PAGE_END);
        encoder.push_run(literals);
        encoder.record_bytes()
    }
}

/// The first few bytes of eight.
#[inline(always)]
fn low(bytes: u64, count: u32) -> u64 {
    bytes << (64 - 8 * count)
}

/// Bytes that can be had by naming them.
struct Vector {
    source: Source,
    /// Where they stood before, unless they are zeros.
    from: usize,
    length: usize,
}

/// The bytes that a vector from a new distance has at least, to a slot of the table.
#[inline(always)]
fn hash(bytes: u64) -> usize {
    (low(bytes, NEW_BYTES).wrapping_mul(0x9e37_79b1_85eb_ca87) >> (64 - SLOT_BITS)) as usize
}

/// Appends the record of the page that was marked last.
pub(in super::super) struct WriteBytes<'a> {
    pub encoder: &'a ByteEncoder,
    pub out: &'a mut Vec<u8>,
}

impl Kernel for WriteBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _lanes: L) {
        let Self { encoder, out } = self;
        let markers = &encoder.markers[..encoder.marker_count];
        let distances = &encoder.distances[..encoder.distance_count];
        let counts = low_u32((markers.len() | distances.len() << 12) as u64);
        out.extend_from_slice(&counts.to_le_bytes()[..COUNTS_BYTES]);
        out.extend_from_slice(markers);
        let (pairs, last) = distances.as_chunks::<2>();
        for &[first, second] in pairs {
            let both = u32::from(first) | u32::from(second) << 12;
            out.extend_from_slice(&both.to_le_bytes()[..3]);
        }
        if let &[last] = last {
            out.extend_from_slice(&last.to_le_bytes());
        }
        out.extend_from_slice(&encoder.literals[..encoder.literal_count]);
    }
}
