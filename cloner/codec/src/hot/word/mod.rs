//! Word markers: a page as 512 aligned vectors, each with a tag of three bits.
//!
//! Memory that holds pointers and integers repeats whole vectors or their high parts. The tag says how a vector is coded; what
//! the vector needs beyond the tag lies in one of several streams, one per kind, so that each kind is one tight loop:
//!
//! ```text
//! ┌─────────────────────────────┬────────────────────────────────────────────────┐
//! │ tag bits 0, 1, 2: one plane │ hot │ dictionary │ small │ low32 │ low16 │ …     │
//! │ of 512 bits each, 192 bytes │ streams, in the order of `Streams`             │
//! └─────────────────────────────┴────────────────────────────────────────────────┘
//! ```
//!
//! Partial matches and repeats name another vector of the page. *Stages* keep the decoder free of dependencies: zero,
//! dictionary, small and literal vectors come first, then PARTIAL32, then PARTIAL16, then REPEAT, and an encoder names only
//! vectors of an earlier stage.
//!
//! The planes tell how long every stream is, and the record's length has to agree.

mod decode;
mod dictionary;
mod encode;

pub(super) use decode::WordDecode;
pub(super) use dictionary::Dictionary;
pub(super) use encode::{MarkWords, WordEncoder, WriteWords};

use crate::chunk::PAGE_VECTORS;

/// How a vector of a WORD-MARKED page is coded, and what it takes beyond the tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum WordTag {
    /// The vector is zero.
    Zero = 0,
    /// Any other vector: its eight bytes.
    Literal = 1,
    /// One of the first 256 entries of the chunk's dictionary: 8 bits.
    Hot = 2,
    /// An entry of the chunk's dictionary: 12 bits.
    Dictionary = 3,
    /// A vector below 65,536: its low 16 bits.
    Small = 4,
    /// The high 32 bits of another vector of the page (9 bits), its own low 32 bits.
    Partial32 = 5,
    /// The high 48 bits of another vector of the page (9 bits), its own low 16 bits.
    Partial16 = 6,
    /// Equal to another vector of the page: 9 bits.
    Repeat = 7,
}

impl WordTag {
    /// Number of different tags.
    pub const COUNT: usize = 8;

    /// Every tag, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Zero,
        Self::Literal,
        Self::Hot,
        Self::Dictionary,
        Self::Small,
        Self::Partial32,
        Self::Partial16,
        Self::Repeat,
    ];

    /// A short name for tables: `zero`, `literal`, …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Zero => "zero",
            Self::Literal => "literal",
            Self::Hot => "hot",
            Self::Dictionary => "dictionary",
            Self::Small => "small",
            Self::Partial32 => "partial32",
            Self::Partial16 => "partial16",
            Self::Repeat => "repeat",
        }
    }
}

/// Number of dictionary entries that a hot marker can name.
pub(super) const HOT_ENTRIES: usize = 256;
/// Bytes of one plane of tag bits.
const PLANE_BYTES: usize = PAGE_VECTORS / 8;
/// Number of planes: the bits of a tag.
const PLANES: usize = 3;
/// Bytes of all planes together.
const PLANES_BYTES: usize = PLANES * PLANE_BYTES;

/// How many vectors of a page have each tag.
pub(super) type TagCounts = [u16; WordTag::COUNT];

/// The streams of a record in their order, as the length of each in bytes: what encoder and decoder must agree on.
///
/// Numbers of 12 and 9 bits are split: their low eight bits go to one stream of bytes, and the bits above are packed into
/// another, first number lowest. Unused bits of the last byte are zero. Base positions are those of PARTIAL32, PARTIAL16 and
/// REPEAT vectors, in this order.
#[derive(Clone, Copy, Debug)]
struct Streams {
    hot: usize,
    dictionary_low: usize,
    dictionary_high: usize,
    small: usize,
    partial32: usize,
    partial16: usize,
    base_low: usize,
    base_high: usize,
    literal: usize,
}

impl Streams {
    fn of(counts: &TagCounts) -> Self {
        let count = |tag: WordTag| usize::from(counts[tag as usize]);
        let bases = count(WordTag::Partial32) + count(WordTag::Partial16) + count(WordTag::Repeat);
        Self {
            hot: count(WordTag::Hot),
            dictionary_low: count(WordTag::Dictionary),
            dictionary_high: count(WordTag::Dictionary).div_ceil(2),
            small: count(WordTag::Small) * 2,
            partial32: count(WordTag::Partial32) * 4,
            partial16: count(WordTag::Partial16) * 2,
            base_low: bases,
            base_high: bases.div_ceil(8),
            literal: count(WordTag::Literal) * 8,
        }
    }

    /// Bytes of the whole record.
    fn record_bytes(&self) -> usize {
        let Self { hot, dictionary_low, dictionary_high, small, partial32, partial16, .. } = self;
        let Self { base_low, base_high, literal, .. } = self;
        let markers = hot + dictionary_low + dictionary_high + base_low + base_high;
        PLANES_BYTES + markers + small + partial32 + partial16 + literal
    }
}
