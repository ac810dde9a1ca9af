//! From a page to word markers.

use crate::chunk::{PAGE_VECTORS, Page, VECTOR_BYTES};

use super::super::narrow::{low_u16, low_u32};
use super::super::page::{Vectors, vector_bytes};
use super::super::simd::{Kernel, Lanes, Positions, REGISTER_BYTES, VectorMask, count};
use super::dictionary::is_hot;
use super::{Dictionary, PLANES, PLANES_BYTES, Streams, TagCounts, WordTag};

const REPEAT_SLOTS: usize = 1024;
const HIGH48_SLOTS: usize = 512;
const HIGH32_SLOTS: usize = 512;
/// The position of no vector of the page; a read at this position gives the zero vector after the page.
const NOWHERE: u16 = 512;

/// Scratch for one page's word markers: first [`MarkWords`] finds them, then [`WriteWords`] writes the record.
pub(in super::super) struct WordEncoder {
    /// The tag of each vector.
    tags: [u8; PAGE_VECTORS],
    /// The dictionary marker or the base position of each vector whose tag has one.
    names: [[u8; 2]; PAGE_VECTORS],
    /// The vectors that have each tag.
    sets: [VectorMask; WordTag::COUNT],
    record: [u8; RECORD_ROOM],
}

impl WordEncoder {
    pub(in super::super) fn new() -> Self {
        Self {
            tags: [0; PAGE_VECTORS],
            names: [[0; 2]; PAGE_VECTORS],
            sets: [[0; PAGE_VECTORS / 64]; WordTag::COUNT],
            record: [0; RECORD_ROOM],
        }
    }
}

/// Finds the word markers of a page. Returns how many vectors have each tag, or `None` if the record would be longer than
/// `bytes_max`, which is mostly known when a quarter of the vectors has been looked at.
pub(in super::super) struct MarkWords<'a> {
    pub encoder: &'a mut WordEncoder,
    pub vectors: &'a Vectors,
    pub dictionary: &'a Dictionary,
    pub bytes_max: usize,
    /// The page that will be encoded after this one, so that it can be fetched meanwhile.
    pub next: &'a Page,
}

/// Stands for the tag of a nonzero vector until the vector has one.
const UNMARKED: u8 = u8::MAX;

impl Kernel for MarkWords<'_> {
    type Output = Option<TagCounts>;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> Option<TagCounts> {
        let Self { encoder: WordEncoder { tags, names, sets, .. }, vectors, dictionary, bytes_max, next } =
            self;
        for (tag, &vector) in tags.iter_mut().zip(vectors) {
            *tag = if vector == 0 { WordTag::Zero as u8 } else { UNMARKED };
        }
        let mut seen = SeenVectors::new(vectors);
        let mut list: Positions = [0; _];
        let list = lanes.positions(&lanes.tagged(tags, UNMARKED), &mut list);
        let (sample, rest) = list.split_at(list.len() / 4);
        for part in [sample, rest] {
            for &at in part {
                let place = usize::from(at) % PAGE_VECTORS;
                let (tag, name) = mark(vectors[place], at, dictionary, &mut seen);
                tags[place] = tag as u8;
                names[place] = name.to_le_bytes();
                lanes.prefetch(next, place * VECTOR_BYTES);
            }
            let with = |tag: WordTag| count(&lanes.tagged(tags, tag as u8));
            let (literals, partial32) = (with(WordTag::Literal), with(WordTag::Partial32));
            let so_far = literals * 7 + partial32 * 4 + part.len();
            if part.len() < rest.len() && 4 * so_far > bytes_max - PLANES_BYTES {
                return None;
            }
        }
        let mut counts = [0; WordTag::COUNT];
        for tag in WordTag::ALL {
            let set = lanes.tagged(tags, tag as u8);
            counts[tag as usize] = low_u16(count(&set) as u64);
            sets[tag as usize] = set;
        }
        (Streams::of(&counts).record_bytes() <= bytes_max).then_some(counts)
    }
}

/// Vectors of the page that later ones may name, by hash. A look-up is one probe: a vector that is not found costs a few bytes.
struct SeenVectors<'a> {
    vectors: &'a Vectors,
    /// Vectors of any stage before REPEAT.
    repeat: [u16; REPEAT_SLOTS],
    /// Vectors of the stages before PARTIAL16.
    high48: [u16; HIGH48_SLOTS],
    /// Vectors of the stages before PARTIAL32.
    high32: [u16; HIGH32_SLOTS],
}

impl<'a> SeenVectors<'a> {
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

/// The tag of a nonzero vector, and the dictionary marker or position that it names.
#[inline(always)]
fn mark(vector: u64, at: u16, dictionary: &Dictionary, seen: &mut SeenVectors<'_>) -> (WordTag, u16) {
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
    pub encoder: &'a mut WordEncoder,
    pub page: &'a Page,
    pub vectors: &'a Vectors,
    pub out: &'a mut Vec<u8>,
}

impl Kernel for WriteWords<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        let Self { encoder: WordEncoder { names, sets, record, .. }, page, vectors, out } = self;
        let mut record = RecordWriter { lanes, bytes: record, end: 0 };
        for bit in 0..PLANES {
            let tags_with = |bit: usize| sets.iter().enumerate().filter(move |(tag, _)| tag >> bit & 1 == 1);
            for word in 0..PAGE_VECTORS / 64 {
                let plane = tags_with(bit).fold(0, |all, (_, set)| all | set[word]);
                record.push(&plane.to_le_bytes());
            }
        }
        let set = |tag: WordTag| &sets[tag as usize];
        let has = |tag: WordTag| set(tag).iter().any(|&word| word != 0);

        let mut numbers = SplitNumbers::new();
        numbers.add(lanes, set(WordTag::Hot), names);
        record.push_low_bytes(&numbers);
        if has(WordTag::Dictionary) {
            numbers.clear();
            numbers.add(lanes, set(WordTag::Dictionary), names);
            record.push_low_bytes(&numbers);
            record.push_high_bits::<4>(&numbers);
        }
        let low16 = vectors.map(|vector| low_u16(vector).to_le_bytes());
        record.compress(set(WordTag::Small), &low16);
        if has(WordTag::Partial32) {
            record.compress(set(WordTag::Partial32), &vectors.map(|vector| low_u32(vector).to_le_bytes()));
        }
        record.compress(set(WordTag::Partial16), &low16);
        numbers.clear();
        for tag in [WordTag::Partial32, WordTag::Partial16, WordTag::Repeat] {
            numbers.add(lanes, set(tag), names);
        }
        record.push_low_bytes(&numbers);
        record.push_high_bits::<1>(&numbers);
        record.compress(set(WordTag::Literal), vector_bytes(page));
        out.extend_from_slice(record.bytes());
    }
}

/// Room for the longest record, one of 512 literals, and for what is written after its end.
const RECORD_ROOM: usize = PLANES_BYTES + PAGE_VECTORS * VECTOR_BYTES + REGISTER_BYTES;

/// A record being written.
struct RecordWriter<'a, L> {
    lanes: L,
    bytes: &'a mut [u8; RECORD_ROOM],
    end: usize,
}

impl<L: Lanes> RecordWriter<'_, L> {
    #[inline(always)]
    fn bytes(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    #[inline(always)]
    fn push(&mut self, bytes: &[u8]) {
        self.bytes[self.end..][..bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }

    #[inline(always)]
    fn compress<const N: usize>(&mut self, set: &VectorMask, elements: &[[u8; N]; PAGE_VECTORS]) {
        self.end += self.lanes.compress(set, elements, &mut self.bytes[self.end..]);
    }

    #[inline(always)]
    fn push_low_bytes(&mut self, numbers: &SplitNumbers) {
        let numbers = numbers.get();
        for (low, number) in self.bytes[self.end..][..numbers.len()].iter_mut().zip(numbers) {
            *low = number[0];
        }
        self.end += numbers.len();
    }

    /// Appends `HIGH_BITS` bits of each number, packed lowest first.
    #[inline(always)]
    fn push_high_bits<const HIGH_BITS: usize>(&mut self, numbers: &SplitNumbers) {
        let numbers = numbers.get().chunks(8 / HIGH_BITS);
        let bytes = numbers.len();
        for (high, some) in self.bytes[self.end..][..bytes].iter_mut().zip(numbers) {
            *high = some.iter().rev().fold(0, |bits, number| bits << HIGH_BITS | number[1]);
        }
        self.end += bytes;
    }
}

/// Numbers of more than eight bits, which are written as two streams.
struct SplitNumbers {
    numbers: [u8; 2 * PAGE_VECTORS + REGISTER_BYTES],
    bytes: usize,
}

impl SplitNumbers {
    #[inline(always)]
    fn new() -> Self {
        Self { numbers: [0; 2 * PAGE_VECTORS + REGISTER_BYTES], bytes: 0 }
    }

    #[inline(always)]
    fn clear(&mut self) {
        self.bytes = 0;
    }

    /// Adds the names of a set's vectors. Sets added between two calls of `clear` must be disjoint.
    #[inline(always)]
    fn add(&mut self, lanes: impl Lanes, set: &VectorMask, names: &[[u8; 2]; PAGE_VECTORS]) {
        self.bytes += lanes.compress(set, names, &mut self.numbers[self.bytes..]);
    }

    #[inline(always)]
    fn get(&self) -> &[[u8; 2]] {
        self.numbers[..self.bytes].as_chunks().0
    }
}
