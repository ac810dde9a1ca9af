//! Moves: what byte markers ask for, read before any of it is done.
//!
//! Reading a marker takes a few look-ups and additions, carrying it out is a copy, and the two keep a processor busy in different
//! ways: wide registers read 64 markers at once, but copies come one after the other. So markers are read [`BLOCK_MOVES`] at a
//! time into arrays, whose sums say whether the copies fit before the first is made.

use super::super::narrow::{low_u16, low_u32};
use super::super::window::{LEAST_DISTANCE, REPLAY_PAGE_AT};

/// Markers that are read at a time: most pages have fewer.
pub(super) const BLOCK_MOVES: usize = 512;
/// Bits of a distance.
pub(super) const DISTANCE_BITS: usize = 12;
/// The greatest distance, in the form it is stored in.
pub(super) const DISTANCE_MAX: u16 = (1 << DISTANCE_BITS) - 1;
/// How many bytes before every place of the page there are zeros.
pub(super) const ZEROS_BACK: u16 = REPLAY_PAGE_AT;

/// What every marker stands for.
pub(in super::super) struct MoveTable {
    /// Literals that the marker takes; with [`FLAG`], its vector has a new distance.
    pub(super) literals: [u8; 256],
    /// Bytes that the marker makes; with [`FLAG`], its vector is zeros.
    pub(super) bytes: [u8; 256],
    /// What the flags say, as masks.
    sources: [SourceMasks; 256],
}

/// The bit of a table entry that is not part of the number.
pub(super) const FLAG: u8 = 0x80;

/// Where a vector comes from, as masks: a compiler may turn a choice into a branch, and no branch can be predicted here.
#[derive(Clone, Copy)]
struct SourceMasks {
    /// The bits of a distance if the vector has a new one, otherwise zero.
    new: u32,
    /// The bits of a distance if the vector has the same one as the vector before, or is zeros; otherwise zero.
    same: u32,
    /// The bits of a distance if the vector is copied, zero if it is zeros.
    copied: u32,
    /// What is added to the masked distance.
    least: u32,
}

impl SourceMasks {
    const fn new(is_new: bool, is_zeros: bool) -> Self {
        const DISTANCE: u32 = DISTANCE_MAX as u32;
        Self {
            new: if is_new { DISTANCE } else { 0 },
            same: if is_new { 0 } else { DISTANCE },
            copied: if is_zeros { 0 } else { DISTANCE },
            least: if is_zeros { ZEROS_BACK } else { LEAST_DISTANCE } as u32,
        }
    }
}

impl MoveTable {
    /// A table in which all markers take and make nothing.
    pub(in super::super) const fn new() -> Self {
        Self { literals: [0; 256], bytes: [FLAG; 256], sources: [SourceMasks::new(false, true); 256] }
    }

    /// Gives `marker` a meaning: `literals`, and then a vector of `length` bytes.
    ///
    /// # Panics
    /// If there are more bytes than an entry can hold.
    pub(in super::super) const fn set(
        &mut self,
        marker: usize,
        literals: u8,
        length: u8,
        is_new: bool,
        is_zeros: bool,
    ) {
        assert!(literals < FLAG && length < FLAG - literals);
        self.literals[marker] = literals | if is_new { FLAG } else { 0 };
        self.bytes[marker] = (literals + length) | if is_zeros { FLAG } else { 0 };
        self.sources[marker] = SourceMasks::new(is_new, is_zeros);
    }
}

/// What a block of markers asks for, marker by marker.
pub(in super::super) struct Moves {
    /// Literals that each move takes.
    pub(super) literals: [u8; BLOCK_MOVES],
    /// Bytes of the page that each move makes: literals and a vector.
    pub(super) bytes: [u8; BLOCK_MOVES],
    /// How many bytes before its place the vector is copied from.
    pub(super) back: [u16; BLOCK_MOVES],
}

impl Moves {
    pub(super) const fn new() -> Self {
        Self { literals: [0; BLOCK_MOVES], bytes: [0; BLOCK_MOVES], back: [0; BLOCK_MOVES] }
    }
}

/// The distances of a record, taken one after the other.
pub(in super::super) struct Distances<'a> {
    /// The distances, [`DISTANCE_BITS`] each, with more bytes after the last.
    packed: &'a [u8],
    /// Number of bits taken so far.
    pub(super) bit: usize,
    /// The distance taken last, in the form it is stored in; 0 if none was taken.
    pub(super) last: u16,
}

impl<'a> Distances<'a> {
    /// Starts at the first distance. Distances taken beyond the end of `packed` are zero.
    pub(super) fn new(packed: &'a [u8]) -> Self {
        Self { packed, bit: 0, last: 0 }
    }

    /// Number of distances taken so far.
    pub(super) fn taken(&self) -> usize {
        self.bit / DISTANCE_BITS
    }

    /// The bytes in which the next distance starts, and how many bits of the first byte belong to the one before: 0 or 4.
    #[inline(always)]
    pub(super) fn next(&self) -> (&'a [u8], usize) {
        (self.packed.get(self.bit / 8..).unwrap_or_default(), self.bit % 8)
    }

    /// The next five distances, lowest first.
    #[inline(always)]
    fn next_five(&self) -> u64 {
        let (packed, shift) = self.next();
        let bytes = packed.first_chunk().copied().unwrap_or_else(|| {
            let mut bytes = [0; 8];
            bytes[..packed.len()].copy_from_slice(packed);
            bytes
        });
        u64::from_le_bytes(bytes) >> shift
    }
}

/// Number of markers read for each load of distances.
const GROUP: usize = 4;

/// Reads at most [`BLOCK_MOVES`] `markers` to the front of `moves`. What follows them there may be overwritten.
#[inline(always)]
pub(super) fn read(table: &MoveTable, markers: &[u8], distances: &mut Distances<'_>, moves: &mut Moves) {
    let Moves { literals, bytes, back } = moves;
    let (literals, bytes) = (literals.as_chunks_mut().0, bytes.as_chunks_mut().0);
    let mut places = literals.iter_mut().zip(bytes).zip(back.as_chunks_mut().0);
    let (groups, rest) = markers.as_chunks::<GROUP>();
    for (group, ((literals, bytes), back)) in groups.iter().zip(&mut places) {
        read_group(table, group, distances, literals, bytes, back);
    }
    if let Some(((literals, bytes), back)) = places.next() {
        read_group(table, rest, distances, literals, bytes, back);
    }
}

/// Reads at most [`GROUP`] markers.
#[inline(always)]
fn read_group(
    table: &MoveTable,
    markers: &[u8],
    distances: &mut Distances<'_>,
    literals: &mut [u8; GROUP],
    bytes: &mut [u8; GROUP],
    back: &mut [u16; GROUP],
) {
    let mut next = distances.next_five();
    let (mut last, mut bits) = (u32::from(distances.last), 0);
    for (place, &marker) in markers.iter().enumerate() {
        let marker = usize::from(marker);
        literals[place] = table.literals[marker] & !FLAG;
        bytes[place] = table.bytes[marker] & !FLAG;
        let SourceMasks { new, same, copied, least } = table.sources[marker];
        last = low_u32(next) & new | last & same;
        back[place] = low_u16(u64::from((last & copied) + least));
        let taken = DISTANCE_BITS & new as usize;
        next >>= taken;
        bits += taken;
    }
    distances.last = low_u16(last.into());
    distances.bit += bits;
}
