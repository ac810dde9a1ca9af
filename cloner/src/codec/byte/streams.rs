//! The three streams of a record of byte markers.

use crate::format::PAGE_BYTES;

use super::super::narrow::{low_u8, low_u16};
use super::search::{Search, Vector};
use super::steps::{MARKERS, STEPS, Source, Step};
use super::{COUNTS_BYTES, STEP_MAX};

/// Markers, distances and literals, as they come.
pub(super) struct Streams {
    /// Every marker but one of no bytes at all stands for two bytes at least, or for one literal.
    markers: [u8; PAGE_BYTES],
    marker_count: usize,
    distances: [u16; PAGE_BYTES],
    distance_count: usize,
    literals: [u8; PAGE_BYTES + STEP_MAX],
    literal_count: usize,
}

impl Streams {
    pub(super) fn new() -> Self {
        Self {
            markers: [0; PAGE_BYTES],
            marker_count: 0,
            distances: [0; PAGE_BYTES],
            distance_count: 0,
            literals: [0; PAGE_BYTES + STEP_MAX],
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
        COUNTS_BYTES + self.marker_count + (self.distance_count * 12).div_ceil(8) + self.literal_count
    }

    /// Emits the literals from `anchor` to a vector and as much of the vector as markers can name; returns where that ends.
    #[inline(always)]
    pub(super) fn push_step(&mut self, search: &Search, anchor: usize, vector: &Vector) -> usize {
        let (fits, next) = match vector.source {
            Source::New => (&NEW, &SAME),
            Source::Same => (&SAME, &SAME),
            Source::Zero | Source::None => (&ZERO, &ZERO),
        };
        self.distances[self.distance_count] = low_u16((vector.distance - STEP_MAX) as u64);
        self.distance_count += usize::from(vector.source == Source::New);
        let literals = self.push_literals(search, anchor, vector.start);
        let mut left = vector.end - vector.start;
        let mut fit = fits[literals][left.min(STEP_MAX)];
        if fit.length == 0 {
            self.push_run(literals);
            fit = fits[0][left.min(STEP_MAX)];
        }
        while fit.length != 0 {
            self.push_marker(fit.marker);
            left -= usize::from(fit.length);
            fit = next[0][left.min(STEP_MAX)];
        }
        vector.end - left
    }

    /// Emits the literals from `from` to `to`, after which there is no vector.
    #[inline(always)]
    pub(super) fn push_rest(&mut self, search: &Search, from: usize, to: usize) {
        let literals = self.push_literals(search, from, to);
        self.push_run(literals);
    }

    /// Emits the literals `from..to`, and runs for all but the last few, which are left to the next marker; returns those.
    #[inline(always)]
    fn push_literals(&mut self, search: &Search, from: usize, to: usize) -> usize {
        let mut at = from;
        loop {
            let run = search.load::<STEP_MAX>(at);
            self.literals[self.literal_count..][..STEP_MAX].copy_from_slice(run);
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

    #[inline(always)]
    fn push_marker(&mut self, marker: u8) {
        self.markers[self.marker_count] = marker;
        self.marker_count += 1;
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
