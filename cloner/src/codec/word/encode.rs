//! From a page to word markers.

use crate::format::PAGE_VECTORS;

use super::super::narrow::{low_u8, low_u16, low_u32};
use super::super::page::Vectors;
use super::super::simd::{Kernel, Lanes, Positions, VectorMask};
use super::dictionary::is_hot;
use super::{Dictionary, PLANES, Streams, TagCounts, WordTag};

const REPEAT_SLOTS: usize = 1024;
const HIGH48_SLOTS: usize = 512;
const HIGH32_SLOTS: usize = 512;
/// No vector of the page; reading it as a position gives the zero vector behind the page.
const NOWHERE: u16 = 512;

/// Scratch for one page's word markers: first [`MarkWords`] finds them, then [`WriteWords`] writes the record.
pub(in super::super) struct WordEncoder {
    /// The tag of each vector.
    tags: [u8; PAGE_VECTORS],
    /// The dictionary marker or the base position of each vector whose tag has one.
    names: [u16; PAGE_VECTORS],
    counts: TagCounts,
}

/// The marks of a page: how large its record will be.
#[derive(Clone, Copy, Debug)]
pub(in super::super) struct WordMarks {
    pub record_bytes: usize,
    pub counts: TagCounts,
}

impl WordEncoder {
    pub(in super::super) fn new() -> Self {
        Self { tags: [0; PAGE_VECTORS], names: [0; PAGE_VECTORS], counts: [0; WordTag::COUNT] }
    }
}

/// Finds the word markers of a page.
pub(in super::super) struct MarkWords<'a> {
    pub encoder: &'a mut WordEncoder,
    pub vectors: &'a Vectors,
    pub dictionary: &'a Dictionary,
}

impl Kernel for MarkWords<'_> {
    type Output = WordMarks;

    #[inline(always)]
    fn run<L: Lanes>(self, _lanes: L) -> WordMarks {
        let Self { encoder, vectors, dictionary } = self;
        let mut seen = Seen::new(vectors);
        encoder.counts = [0; WordTag::COUNT];
        for (at, &vector) in (0..).zip(vectors) {
            let (tag, name) = mark(vector, at, dictionary, &mut seen);
            encoder.tags[usize::from(at)] = tag as u8;
            encoder.names[usize::from(at)] = name;
            encoder.counts[tag as usize] += 1;
        }
        WordMarks { record_bytes: Streams::of(&encoder.counts).record_bytes(), counts: encoder.counts }
    }
}

/// Vectors of the page that later ones may name, by hash. One probe: a vector that is not found costs a few bytes.
struct Seen<'a> {
    vectors: &'a Vectors,
    /// Vectors of any stage before REPEAT.
    repeat: [u16; REPEAT_SLOTS],
    /// Vectors of the stages before PARTIAL16.
    high48: [u16; HIGH48_SLOTS],
    /// Vectors of the stages before PARTIAL32.
    high32: [u16; HIGH32_SLOTS],
}

impl<'a> Seen<'a> {
    #[inline(always)]
    fn new(vectors: &'a Vectors) -> Self {
        Self {
            vectors,
            repeat: [NOWHERE; REPEAT_SLOTS],
            high48: [NOWHERE; HIGH48_SLOTS],
            high32: [NOWHERE; HIGH32_SLOTS],
        }
    }

    #[inline(always)]
    fn holds(&self, position: u16, high_of: u64, shift: u32) -> bool {
        self.vectors.get(usize::from(position)).is_some_and(|&seen| seen >> shift == high_of >> shift)
    }
}

#[inline(always)]
fn hash(vector: u64) -> u64 {
    vector.wrapping_mul(0x9e37_79b1_85eb_ca87)
}

#[inline(always)]
fn mark(vector: u64, at: u16, dictionary: &Dictionary, seen: &mut Seen<'_>) -> (WordTag, u16) {
    if vector == 0 {
        return (WordTag::Zero, 0);
    }
    let repeat_slot = (hash(vector) >> 54) as usize % REPEAT_SLOTS;
    let repeat = seen.repeat[repeat_slot];
    if seen.holds(repeat, vector, 0) {
        return (WordTag::Repeat, repeat);
    }
    seen.repeat[repeat_slot] = at;
    let high48_slot = (hash(vector >> 16) >> 55) as usize % HIGH48_SLOTS;
    let high32_slot = (hash(vector >> 32) >> 55) as usize % HIGH32_SLOTS;
    let (tag, name) = if let Some(marker) = dictionary.marker(vector) {
        (if is_hot(marker) { WordTag::Hot } else { WordTag::Dictionary }, marker)
    } else if vector < 1 << 16 {
        (WordTag::Small, 0)
    } else if seen.holds(seen.high48[high48_slot], vector, 16) {
        return (WordTag::Partial16, seen.high48[high48_slot]);
    } else if seen.holds(seen.high32[high32_slot], vector, 32) {
        seen.high48[high48_slot] = at;
        return (WordTag::Partial32, seen.high32[high32_slot]);
    } else {
        (WordTag::Literal, 0)
    };
    seen.high48[high48_slot] = at;
    seen.high32[high32_slot] = at;
    (tag, name)
}

/// Writes the record of the page that was marked last.
pub(in super::super) struct WriteWords<'a> {
    pub encoder: &'a WordEncoder,
    pub vectors: &'a Vectors,
    pub out: &'a mut Vec<u8>,
}

impl Kernel for WriteWords<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { encoder: WordEncoder { tags, names, .. }, vectors, out } = self;
        let sets = WordTag::ALL.map(|tag| lanes.tagged(tags, tag as u8));
        for bit in 0..PLANES {
            let tags_with = |bit: usize| sets.iter().enumerate().filter(move |(tag, _)| tag >> bit & 1 == 1);
            let plane: VectorMask =
                std::array::from_fn(|word| tags_with(bit).fold(0, |all, (_, set)| all | set[word]));
            out.extend(plane.iter().flat_map(|word| word.to_le_bytes()));
        }

        let mut list: Positions = [0; PAGE_VECTORS + 32];
        let mut of = |tag: WordTag, each: &mut dyn FnMut(usize)| {
            let list = lanes.positions(&sets[tag as usize], &mut list);
            list.iter().for_each(|&at| each(usize::from(at) % PAGE_VECTORS));
        };
        let mut numbers = Numbers { numbers: [0; PAGE_VECTORS], count: 0 };
        of(WordTag::Hot, &mut |at| out.push(low_u8(names[at].into())));
        of(WordTag::Dictionary, &mut |at| numbers.push(names[at]));
        numbers.write::<4>(out);
        of(WordTag::Small, &mut |at| out.extend_from_slice(&low_u16(vectors[at]).to_le_bytes()));
        of(WordTag::Partial32, &mut |at| out.extend_from_slice(&low_u32(vectors[at]).to_le_bytes()));
        of(WordTag::Partial16, &mut |at| out.extend_from_slice(&low_u16(vectors[at]).to_le_bytes()));
        for tag in [WordTag::Partial32, WordTag::Partial16, WordTag::Repeat] {
            of(tag, &mut |at| numbers.push(names[at]));
        }
        numbers.write::<1>(out);
        of(WordTag::Literal, &mut |at| out.extend_from_slice(&vectors[at].to_le_bytes()));
    }
}

/// Numbers of more than eight bits, to be written as two streams.
struct Numbers {
    numbers: [u16; PAGE_VECTORS],
    count: usize,
}

impl Numbers {
    #[inline(always)]
    fn push(&mut self, number: u16) {
        self.numbers[self.count % PAGE_VECTORS] = number;
        self.count += 1;
    }

    /// Appends the low bytes, then `HIGH_BITS` bits each, packed lowest first; the numbers are gone then.
    #[inline(always)]
    fn write<const HIGH_BITS: usize>(&mut self, out: &mut Vec<u8>) {
        let numbers = &self.numbers[..self.count];
        out.extend(numbers.iter().map(|&number| low_u8(number.into())));
        out.extend(numbers.chunks(8 / HIGH_BITS).map(|some| {
            let high = |byte: u64, (place, &number): (usize, &u16)| {
                byte | u64::from(number >> 8) << (place * HIGH_BITS)
            };
            low_u8(some.iter().enumerate().fold(0, high))
        }));
        self.count = 0;
    }
}
