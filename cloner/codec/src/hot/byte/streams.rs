//! The three streams of a record of byte markers.

use crate::chunk::PAGE_BYTES;

use super::super::narrow::{low_u8, low_u16};
use super::super::window::STEP_MAX;
use super::search::{Search, Vector};
use super::steps::{MARKERS, STEPS, Step, VectorSource};
use super::{COUNTS_BYTES, distance_bytes};

/// Markers, distances and literals, in the order in which they are found.
///
/// Each stream has room for twice what a page can have, so that a count modulo that room is a valid place and needs no check.
pub(super) struct Streams {
    /// Every marker, except one of no bytes at all, stands for at least two bytes or for one literal.
    markers: [u8; ROOM + FIT_MARKERS],
    marker_count: usize,
    distances: [u16; ROOM],
    distance_count: usize,
    literals: [u8; ROOM + STEP_MAX],
    literal_count: usize,
}

const ROOM: usize = 2 * PAGE_BYTES;

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            markers: [0; ROOM + FIT_MARKERS],
            marker_count: 0,
            distances: [0; ROOM],
            distance_count: 0,
            literals: [0; ROOM + STEP_MAX],
            literal_count: 0,
        }
    }

    pub(super) fn clear(&mut self) {
        self.marker_count = 0;
        self.distance_count = 0;
        self.literal_count = 0;
    }

    pub(super) fn markers(&self) -> &[u8] {
        &self.markers[..self.marker_count]
    }

    pub(super) fn distances(&self) -> &[u16] {
        &self.distances[..self.distance_count]
    }

    pub(super) fn literals(&self) -> &[u8] {
        &self.literals[..self.literal_count]
    }

    pub(super) fn record_bytes(&self) -> usize {
        COUNTS_BYTES + self.marker_count + distance_bytes(self.distance_count) + self.literal_count
    }

    /// Emits the literals from `anchor` to a vector, and as much of the vector as markers can name; returns where that ends.
    #[inline(always)]
    pub(super) fn push_step(&mut self, search: &Search, anchor: usize, vector: &Vector) -> usize {
        let (fits, next) = match vector.source {
            VectorSource::New => (&NEW, &SAME),
            VectorSource::Same => (&SAME, &SAME),
            VectorSource::Zero | VectorSource::None => (&ZERO, &ZERO),
        };
        self.distances[self.distance_count % ROOM] = low_u16((vector.distance - STEP_MAX) as u64);
        self.distance_count += usize::from(vector.source == VectorSource::New);
        let literals = self.push_literals(search, anchor, vector.start);
        let mut left = vector.end - vector.start;
        let mut fits = &fits[literals % LITERALS];
        loop {
            let Fit { markers, count, length } = fits[(left.min(STEP_MAX) - 1) % STEP_MAX];
            *self.markers[self.marker_count % ROOM..].first_chunk_mut().expect("room for a fit") = markers;
            self.marker_count += usize::from(count);
            left -= usize::from(length);
            if left < MORE_BYTES {
                return vector.end - left;
            }
            fits = &next[0];
        }
    }

    /// Emits the literals from `from` to `to`, which no vector follows.
    #[inline(always)]
    pub(super) fn push_rest(&mut self, search: &Search, from: usize, to: usize) {
        let literals = self.push_literals(search, from, to);
        self.push_run(literals);
    }

    /// Emits the literals `from..to`, and runs for all but the last few, which are left to the next marker; returns their
    /// number.
    #[inline(always)]
    fn push_literals(&mut self, search: &Search, from: usize, to: usize) -> usize {
        let mut at = from;
        loop {
            let place = self.literals[self.literal_count % ROOM..].first_chunk_mut::<STEP_MAX>();
            *place.expect("room for a step") = *search.load(at);
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

    /// Emits runs that take `literals` literals, which are already in the stream.
    #[inline(always)]
    fn push_run(&mut self, literals: usize) {
        if literals > 8 {
            self.push_marker(RUNS[8]);
            self.push_marker(RUNS[literals - 8]);
        } else if literals > 0 {
            self.push_marker(RUNS[literals]);
        }
    }

    #[inline(always)]
    fn push_marker(&mut self, marker: u8) {
        self.markers[self.marker_count % ROOM] = marker;
        self.marker_count += 1;
    }
}

/// Most literals that a step with a vector can take: if there are more, the others become runs of their own before it.
const LITERALS: usize = 16;

/// The markers that take a number of literals and then cover most of a vector of up to 32 bytes.
#[derive(Clone, Copy)]
#[repr(align(8))]
struct Fit {
    markers: [u8; FIT_MARKERS],
    /// How many of the markers are used; the next fit overwrites the others.
    count: u8,
    /// Number of the vector's bytes that the markers cover.
    length: u8,
}

/// If the markers leave at least this many bytes, more markers are added for them; fewer may become literals. Every source has
/// markers for shorter vectors.
const MORE_BYTES: usize = 4;

/// Two runs of literals, the longest step there is, and one more for what is left.
const FIT_MARKERS: usize = 4;

/// Indexed by number of literals, and by length less one.
type Fits = [[Fit; STEP_MAX]; LITERALS];

static NEW: Fits = fits(VectorSource::New, VectorSource::Same);
static SAME: Fits = fits(VectorSource::Same, VectorSource::Same);
static ZERO: Fits = fits(VectorSource::Zero, VectorSource::Zero);

/// The marker of a run of literals without a vector, for the run lengths that have one.
static RUNS: [u8; STEP_MAX + 1] = runs();

const fn runs() -> [u8; STEP_MAX + 1] {
    let mut runs = [0; STEP_MAX + 1];
    let mut marker = 0;
    while marker < MARKERS {
        if matches!(STEPS[marker].source, VectorSource::None) {
            runs[STEPS[marker].literals as usize] = low_u8(marker as u64);
        }
        marker += 1;
    }
    runs
}

/// The fits of vectors from `source`; `next` is the source that names what the first marker leaves.
const fn fits(source: VectorSource, next: VectorSource) -> Fits {
    let (first, second, runs) = (longest(source), longest(next), runs());
    let mut fits = [[Fit { markers: [0; FIT_MARKERS], count: 0, length: 0 }; STEP_MAX]; LITERALS];
    let mut literals = 0;
    while literals < LITERALS {
        let mut length = 1;
        while length <= STEP_MAX {
            let mut fit = Fit { markers: [0; FIT_MARKERS], count: 0, length: 0 };
            let mut step = first[literals][length];
            if step.length == 0 && literals > 0 {
                if literals > 8 {
                    fit.push(runs[8], 0);
                }
                fit.push(runs[if literals > 8 { literals - 8 } else { literals }], 0);
                step = first[0][length];
            }
            if step.length > 0 {
                fit.push(step.marker, step.length);
                let rest = second[0][length - step.length as usize];
                if rest.length > 0 {
                    fit.push(rest.marker, rest.length);
                }
            }
            fits[literals][length - 1] = fit;
            length += 1;
        }
        literals += 1;
    }
    fits
}

impl Fit {
    const fn push(&mut self, marker: u8, length: u8) {
        self.markers[self.count as usize] = marker;
        self.count += 1;
        self.length += length;
    }
}

/// A marker and how many bytes of a vector it covers: 0 if no marker is short enough.
#[derive(Clone, Copy)]
struct Longest {
    marker: u8,
    length: u8,
}

/// For each number of literals and each length, the marker that covers most.
const fn longest(source: VectorSource) -> [[Longest; STEP_MAX + 1]; LITERALS] {
    let mut all = [[Longest { marker: 0, length: 0 }; STEP_MAX + 1]; LITERALS];
    let mut marker = 0;
    while marker < MARKERS {
        let Step { literals, length, source: of } = STEPS[marker];
        if of as u8 == source as u8 {
            let mut longer = length as usize;
            while longer <= STEP_MAX {
                let longest = &mut all[literals as usize][longer];
                if longest.length < length {
                    *longest = Longest { marker: low_u8(marker as u64), length };
                }
                longer += 1;
            }
        }
        marker += 1;
    }
    all
}
