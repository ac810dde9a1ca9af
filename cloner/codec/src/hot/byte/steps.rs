//! The fixed table of steps that byte markers index.
//!
//! Markers are assigned by how often guests need them: short literal runs go with many lengths, long runs with few. Rows
//! differ only where memory does: after one or two changed bytes of an 8 or 16 byte stride, the same distance comes back, so
//! lengths of 6, 7, 14 and 15 are frequent there.

use super::super::window::STEP_MAX;

/// Where a step's vector comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum VectorSource {
    /// The next distance of the distance stream.
    New,
    /// The same distance as that of the vector before.
    Same,
    /// A vector of zeros.
    Zero,
    /// No vector: the step has only literals.
    None,
}

/// What one marker stands for: `literals` bytes from the literal stream, then `length` bytes from `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    pub literals: u8,
    pub length: u8,
    pub source: VectorSource,
}

/// Consecutive markers: for each number of literals from `first` to `last`, one marker for every length, in this order.
struct Row {
    source: VectorSource,
    first: u8,
    last: u8,
    lengths: &'static [u8],
}

const fn row(source: VectorSource, first: u8, last: u8, lengths: &'static [u8]) -> Row {
    Row { source, first, last, lengths }
}

/// The table, row by row. FORMAT.md has the same rows.
const ROWS: [Row; 23] = [
    row(VectorSource::New, 0, 0, &[4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 20, 22, 24, 28, 32]),
    row(VectorSource::New, 1, 3, &[4, 5, 6, 7, 8, 9, 10, 11, 12, 14, 16, 20, 24, 32]),
    row(VectorSource::New, 4, 5, &[4, 5, 6, 7, 8, 9, 10, 12, 16]),
    row(VectorSource::New, 6, 7, &[4, 5, 6, 7, 8, 10, 12]),
    row(VectorSource::New, 8, 11, &[4, 5, 6, 7, 8]),
    row(VectorSource::New, 12, 15, &[4, 5, 6, 8]),
    row(VectorSource::Same, 0, 0, &[2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 32]),
    row(VectorSource::Same, 1, 1, &[2, 3, 4, 5, 6, 7, 8, 11, 14, 15, 16, 23, 31, 32]),
    row(VectorSource::Same, 2, 2, &[3, 4, 5, 6, 7, 8, 10, 14, 16, 22, 30, 32]),
    row(VectorSource::Same, 3, 3, &[3, 4, 5, 6, 8, 13, 16]),
    row(VectorSource::Same, 4, 4, &[3, 4, 8, 12, 20]),
    row(VectorSource::Same, 5, 7, &[3, 4, 6]),
    row(VectorSource::Same, 8, 8, &[4, 8]),
    row(VectorSource::Zero, 0, 0, &[3, 4, 5, 6, 7, 8, 12, 16, 24, 32]),
    row(VectorSource::Zero, 1, 1, &[2, 3, 4, 5, 6, 7, 15]),
    row(VectorSource::Zero, 2, 2, &[2, 3, 4, 5, 6, 14]),
    row(VectorSource::Zero, 3, 3, &[3, 4, 5, 13]),
    row(VectorSource::Zero, 4, 4, &[3, 4, 12]),
    row(VectorSource::Zero, 5, 6, &[3, 4]),
    row(VectorSource::Zero, 7, 7, &[3]),
    row(VectorSource::None, 1, 8, &[0]),
    row(VectorSource::None, 16, 16, &[0]),
    row(VectorSource::None, 32, 32, &[0]),
];

/// Markers from this number on stand for nothing.
pub(super) const MARKERS: usize = {
    let mut markers = 0;
    let mut number = 0;
    while number < ROWS.len() {
        let Row { first, last, lengths, .. } = &ROWS[number];
        markers += (*last - *first + 1) as usize * lengths.len();
        number += 1;
    }
    markers
};

/// The step of every marker; the unused markers at the end are steps of no bytes.
pub(super) const STEPS: [Step; 256] = {
    let mut steps = [Step { literals: 0, length: 0, source: VectorSource::None }; 256];
    let (mut marker, mut number) = (0, 0);
    while number < ROWS.len() {
        let Row { source, first, last, lengths } = &ROWS[number];
        let mut literals = *first;
        while literals <= *last {
            let mut which = 0;
            while which < lengths.len() {
                steps[marker] = Step { literals, length: lengths[which], source: *source };
                marker += 1;
                which += 1;
            }
            literals += 1;
        }
        number += 1;
    }
    steps
};

const _: () = assert!(MARKERS <= 256);
const _: () = assert!(STEPS[MARKERS - 1].literals as usize == STEP_MAX);
