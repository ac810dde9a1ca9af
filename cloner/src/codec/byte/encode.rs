//! From a page to byte markers.

use crate::format::{PAGE_BYTES, Page};

use super::super::simd::{Kernel, Lanes};
use super::steps::{MARKERS, STEPS, Source, Step};
use super::{COUNTS_BYTES, STEP_MAX};

const SLOT_BITS: u32 = 12;
/// Readable bytes before the page in the scratch window, and after it.
const BEFORE: usize = 8;
const AFTER: usize = 64;
const WINDOW_BYTES: usize = BEFORE + PAGE_BYTES + AFTER;

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
        self.window[BEFORE..BEFORE + PAGE_BYTES].copy_from_slice(page);
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

    #[inline(always)]
    fn load<const N: usize>(&self, at: usize) -> &[u8; N] {
        self.window[BEFORE + at..].first_chunk().expect("the window has room after the page")
    }

    #[inline(always)]
    fn load_u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.load(at))
    }

    #[inline(always)]
    fn before_u64(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.window[at..].first_chunk().expect("the window has room before the page"))
    }

    /// Equal bytes at two places, up to the end of the page.
    #[inline(always)]
    fn equal<L: Lanes>(&self, lanes: L, source: usize, at: usize) -> usize {
        let mut length = 0;
        loop {
            let equal = lanes.equal_prefix(self.load(source + length), self.load(at + length));
            length += equal;
            if equal < STEP_MAX || at + length >= PAGE_BYTES {
                return length.min(PAGE_BYTES - at);
            }
        }
    }

    /// Zero bytes from here, up to the end of the page.
    #[inline(always)]
    fn zeros<L: Lanes>(&self, lanes: L, at: usize) -> usize {
        let mut length = 0;
        loop {
            let equal = lanes.equal_prefix(&[0; STEP_MAX], self.load(at + length));
            length += equal;
            if equal < STEP_MAX || at + length >= PAGE_BYTES {
                return length.min(PAGE_BYTES - at);
            }
        }
    }

    /// Bytes before `at` that the vector could have as well, up to eight.
    #[inline(always)]
    fn equal_before(&self, vector: &Vector, at: usize) -> usize {
        let before = self.before_u64(at);
        match vector.source {
            Source::Zero => before.leading_zeros() as usize / 8,
            _ => ((before ^ self.before_u64(vector.from)).leading_zeros() as usize / 8).min(vector.from),
        }
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
                self.distances[self.distance_count] = ((at - vector.from - STEP_MAX) & 0xfff) as u16;
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
    /// Literals it takes; those before them need a run of their own.
    literals: u8,
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
            runs[STEPS[marker].literals as usize] = marker as u8;
        }
        marker += 1;
    }
    runs
};

const fn fits(source: Source) -> Fits {
    let mut fits = [[Fit { marker: 0, literals: 0, length: 0 }; STEP_MAX + 1]; LITERALS];
    let mut marker = 0;
    while marker < MARKERS {
        let Step { literals, length, source: of } = STEPS[marker];
        if of as u8 == source as u8 {
            let mut longer = length as usize;
            while longer <= STEP_MAX {
                let fit = &mut fits[literals as usize][longer];
                if fit.length < length {
                    *fit = Fit { marker: marker as u8, literals, length };
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
        let mut anchor = 0;
        let mut at = 0;
        let mut distance = 0;
        while at + 4 <= PAGE_BYTES {
            let bytes = encoder.load_u64(at);
            let slot = hash(bytes);
            let seen = usize::from(encoder.seen[slot]);
            encoder.seen[slot] = (at & 0xffff) as u16;
            let same = at - distance;
            let is_zero = bytes & 0xff_ffff == 0;
            let is_same = distance != 0 && (encoder.load_u64(same) ^ bytes) & 0xff_ffff == 0;
            let mut vector = if is_zero | is_same {
                let zeros = if is_zero { encoder.zeros(lanes, at) } else { 0 };
                let sames = if is_same { encoder.equal(lanes, same, at) } else { 0 };
                if zeros >= sames {
                    Vector { source: Source::Zero, from: same, length: zeros }
                } else {
                    Vector { source: Source::Same, from: same, length: sames }
                }
            } else if seen + STEP_MAX <= at && (encoder.load_u64(seen) ^ bytes) & 0xffff_ffff == 0 {
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
        let literals = encoder.push_literals(anchor, PAGE_BYTES);
        encoder.push_run(literals);
        encoder.record_bytes()
    }
}

/// Bytes that can be had by naming them.
struct Vector {
    source: Source,
    /// Where they stood before, unless they are zeros.
    from: usize,
    length: usize,
}

/// Four bytes to a slot of the table.
#[inline(always)]
fn hash(bytes: u64) -> usize {
    ((bytes & 0xffff_ffff).wrapping_mul(0x9e37_79b1) as u32 >> (32 - SLOT_BITS)) as usize
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
        let counts = (markers.len() | distances.len() << 12) as u32;
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
