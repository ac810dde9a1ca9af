//! From word markers to the page.

use crate::format::{DICTIONARY_ENTRY_BYTES, PAGE_VECTORS, Page};

use super::super::RecordError;
use super::super::page::{Vectors, store_vectors};
use super::super::simd::{Kernel, Lanes, Positions, VectorMask};
use super::{PLANE_BYTES, PLANES, PLANES_BYTES, Streams, WordTag};

/// Decodes one WORD-MARKED record.
pub(in super::super) struct WordDecode<'a> {
    pub record: &'a [u8],
    pub dictionary: &'a [[u8; DICTIONARY_ENTRY_BYTES]],
    pub page: &'a mut Page,
}

impl Kernel for WordDecode<'_> {
    type Output = Result<(), RecordError>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Result<(), RecordError> {
        let Self { record, dictionary, page } = self;
        let short = RecordError::Length { needed_bytes: PLANES_BYTES, record_bytes: record.len() };
        let (planes, mut streams) = record.split_first_chunk::<PLANES_BYTES>().ok_or(short)?;
        let sets = tag_sets(planes);
        let lengths = Streams::of(&sets.map(|set| set.iter().map(|word| word.count_ones() as u16).sum()));
        if lengths.record_bytes() != record.len() {
            let needed_bytes = lengths.record_bytes();
            return Err(RecordError::Length { needed_bytes, record_bytes: record.len() });
        }
        let mut take = |bytes: usize| {
            let (stream, rest) = streams.split_at(bytes);
            streams = rest;
            stream
        };
        let hot = take(lengths.hot);
        let cold = SplitNumbers::<4>::new(take(lengths.dictionary_low), take(lengths.dictionary_high))?;
        let small = take(lengths.small).as_chunks().0;
        let partial32 = take(lengths.partial32).as_chunks().0;
        let partial16 = take(lengths.partial16).as_chunks().0;
        let bases = SplitNumbers::<1>::new(take(lengths.base_low), take(lengths.base_high))?;
        let literals = take(lengths.literal).as_chunks().0;

        let mut vectors: Vectors = [0; PAGE_VECTORS];
        let mut list: Positions = [0; PAGE_VECTORS + 32];
        let entry = |marker: usize| match dictionary.get(marker) {
            Some(&entry) => Ok(u64::from_le_bytes(entry)),
            None => Err(RecordError::Dictionary { marker, entries: dictionary.len() }),
        };
        let slot = |position: u16| usize::from(position) % PAGE_VECTORS;
        let set = |tag: WordTag| &sets[tag as usize];

        lanes.expand(set(WordTag::Literal), literals, &mut vectors);
        for (&at, &marker) in lanes.positions(set(WordTag::Hot), &mut list).iter().zip(hot) {
            vectors[slot(at)] = entry(usize::from(marker))?;
        }
        for (&at, marker) in lanes.positions(set(WordTag::Dictionary), &mut list).iter().zip(cold.iter()) {
            vectors[slot(at)] = entry(marker)?;
        }
        for (&at, &low) in lanes.positions(set(WordTag::Small), &mut list).iter().zip(small) {
            vectors[slot(at)] = u16::from_le_bytes(low).into();
        }
        let mut bases = bases.iter();
        let partial =
            lanes.positions(set(WordTag::Partial32), &mut list).iter().zip(partial32).zip(&mut bases);
        for ((&at, &low), base) in partial {
            vectors[slot(at)] = vectors[base] & !0xffff_ffff | u64::from(u32::from_le_bytes(low));
        }
        let partial =
            lanes.positions(set(WordTag::Partial16), &mut list).iter().zip(partial16).zip(&mut bases);
        for ((&at, &low), base) in partial {
            vectors[slot(at)] = vectors[base] & !0xffff | u64::from(u16::from_le_bytes(low));
        }
        for (&at, base) in lanes.positions(set(WordTag::Repeat), &mut list).iter().zip(&mut bases) {
            vectors[slot(at)] = vectors[base];
        }
        store_vectors(&vectors, page);
        Ok(())
    }
}

/// The vectors of each tag, from the planes of tag bits.
#[inline(always)]
fn tag_sets(planes: &[u8; PLANES_BYTES]) -> [VectorMask; WordTag::COUNT] {
    let planes: &[[u8; PLANE_BYTES]] = planes.as_chunks().0;
    let mut sets = [[u64::MAX; PAGE_VECTORS / 64]; WordTag::COUNT];
    for (tag, set) in sets.iter_mut().enumerate() {
        for (bit, plane) in planes.iter().enumerate().take(PLANES) {
            let invert = if tag >> bit & 1 == 0 { u64::MAX } else { 0 };
            for (word, &plane) in set.iter_mut().zip(plane.as_chunks().0) {
                *word &= u64::from_le_bytes(plane) ^ invert;
            }
        }
    }
    sets
}

/// Numbers of `8 + HIGH_BITS` bits whose low and high bits lie in two streams.
struct SplitNumbers<'a, const HIGH_BITS: usize> {
    low: &'a [u8],
    high: &'a [u8],
}

impl<'a, const HIGH_BITS: usize> SplitNumbers<'a, HIGH_BITS> {
    #[inline(always)]
    fn new(low: &'a [u8], high: &'a [u8]) -> Result<Self, RecordError> {
        let used_bits = low.len() * HIGH_BITS % 8;
        if used_bits != 0 && high.last().is_some_and(|last| last >> used_bits != 0) {
            return Err(RecordError::Padding);
        }
        Ok(Self { low, high })
    }

    #[inline(always)]
    fn iter(&self) -> impl Iterator<Item = usize> {
        let per_byte = 8 / HIGH_BITS;
        let mask = (1 << HIGH_BITS) - 1;
        self.low.iter().enumerate().map(move |(number, &low)| {
            let high = self.high[number / per_byte] >> (number % per_byte * HIGH_BITS) & mask;
            usize::from(high) << 8 | usize::from(low)
        })
    }
}
