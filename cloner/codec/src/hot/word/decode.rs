//! From word markers to the page.

use crate::chunk::{DICTIONARY_ENTRY_BYTES, PAGE_VECTORS, Page};

use super::super::narrow::low_u16;
use super::super::page::vector_bytes_mut;
use super::super::simd::{Kernel, Lanes, Numbers, Positions, VectorMask, count};
use super::{PLANE_BYTES, PLANES, PLANES_BYTES, Streams, WordTag};
use crate::chunk::RecordError;

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
        let planes = planes_of(planes);
        // Not by `map`, which is not inlined, and so is not compiled for the instruction set.
        let (mut sets, mut counts) = ([[0; PAGE_VECTORS / 64]; WordTag::COUNT], [0; WordTag::COUNT]);
        for tag in WordTag::ALL {
            let set = tag_set(&planes, tag);
            counts[tag as usize] = low_u16(count(&set) as u64);
            sets[tag as usize] = set;
        }
        let lengths = Streams::of(&counts);
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
        let (cold_low, cold_high) = (take(lengths.dictionary_low), take(lengths.dictionary_high));
        let small = take(lengths.small).as_chunks::<2>().0;
        let partial32 = take(lengths.partial32).as_chunks().0;
        let partial16 = take(lengths.partial16).as_chunks().0;
        let (base_low, base_high) = (take(lengths.base_low), take(lengths.base_high));
        let literals = take(lengths.literal).as_chunks().0;

        let vectors = vector_bytes_mut(page);
        let mut list: Positions = [0; PAGE_VECTORS + 32];
        let mut numbers: Numbers = [0; PAGE_VECTORS];
        let entry = |marker: u16| match dictionary.get(usize::from(marker)) {
            Some(&entry) => Ok(entry),
            None => Err(RecordError::Dictionary { marker, entries: dictionary.len() }),
        };
        let slot = |position: u16| usize::from(position) % PAGE_VECTORS;
        let set = |tag: WordTag| &sets[tag as usize];

        lanes.expand(set(WordTag::Literal), literals, vectors);
        if !hot.is_empty() {
            for (&at, &marker) in lanes.positions(set(WordTag::Hot), &mut list).iter().zip(hot) {
                vectors[slot(at)] = entry(marker.into())?;
            }
        }
        if !cold_low.is_empty() {
            let cold = join::<L, 4>(lanes, cold_low, cold_high, &mut numbers)?;
            for (&at, &marker) in lanes.positions(set(WordTag::Dictionary), &mut list).iter().zip(cold) {
                vectors[slot(at)] = entry(marker)?;
            }
        }
        if !small.is_empty() {
            for (&at, &low) in lanes.positions(set(WordTag::Small), &mut list).iter().zip(small) {
                vectors[slot(at)] = [low[0], low[1], 0, 0, 0, 0, 0, 0];
            }
        }
        let bases = join::<L, 1>(lanes, base_low, base_high, &mut numbers)?;
        let (of_partial32, bases) = bases.split_at(partial32.len());
        let (of_partial16, of_repeat) = bases.split_at(partial16.len());
        if !partial32.is_empty() {
            let at = lanes.positions(set(WordTag::Partial32), &mut list);
            for ((&at, &low), &base) in at.iter().zip(partial32).zip(of_partial32) {
                let high = u64::from_le_bytes(vectors[slot(base)]) & !0xffff_ffff;
                vectors[slot(at)] = (high | u64::from(u32::from_le_bytes(low))).to_le_bytes();
            }
        }
        let at = lanes.positions(set(WordTag::Partial16), &mut list);
        for ((&at, &low), &base) in at.iter().zip(partial16).zip(of_partial16) {
            let high = u64::from_le_bytes(vectors[slot(base)]) & !0xffff;
            vectors[slot(at)] = (high | u64::from(u16::from_le_bytes(low))).to_le_bytes();
        }
        let at = lanes.positions(set(WordTag::Repeat), &mut list);
        for (&at, &base) in at.iter().zip(of_repeat) {
            vectors[slot(at)] = vectors[slot(base)];
        }
        Ok(())
    }
}

/// The planes of tag bits as words.
#[inline(always)]
fn planes_of(bytes: &[u8; PLANES_BYTES]) -> [VectorMask; PLANES] {
    let mut planes = [[0; PAGE_VECTORS / 64]; PLANES];
    for (plane, bytes) in planes.iter_mut().zip(bytes.as_chunks::<PLANE_BYTES>().0) {
        for (word, &bytes) in plane.iter_mut().zip(bytes.as_chunks().0) {
            *word = u64::from_le_bytes(bytes);
        }
    }
    planes
}

/// The set of vectors that have a tag.
#[inline(always)]
fn tag_set(planes: &[VectorMask; PLANES], tag: WordTag) -> VectorMask {
    let inverted = |bit: usize| if tag as usize >> bit & 1 == 0 { u64::MAX } else { 0 };
    let [inverted0, inverted1, inverted2] = [inverted(0), inverted(1), inverted(2)];
    let mut set = [0; PAGE_VECTORS / 64];
    for (word, set) in set.iter_mut().enumerate() {
        *set = (planes[0][word] ^ inverted0) & (planes[1][word] ^ inverted1) & (planes[2][word] ^ inverted2);
    }
    set
}

/// Joins low bytes with `HIGH_BITS` bits each, packed lowest first.
#[inline(always)]
fn join<'n, L: Lanes, const HIGH_BITS: usize>(
    lanes: L,
    low: &[u8],
    high: &[u8],
    numbers: &'n mut Numbers,
) -> Result<&'n [u16], RecordError> {
    let used_bits = low.len() * HIGH_BITS % 8;
    if used_bits != 0 && high.last().is_some_and(|last| last >> used_bits != 0) {
        return Err(RecordError::Padding);
    }
    lanes.join_bits::<HIGH_BITS>(low, high, numbers);
    Ok(&numbers[..low.len()])
}
