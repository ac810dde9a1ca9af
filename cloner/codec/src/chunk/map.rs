//! The page map: for each page its kind and the end of its record, so that any page is found with two loads.
//!
//! ```text
//! bit 31      28 27                                    0
//!     ┌─────────┬───────────────────────────────────────┐
//!     │ kind    │ end of the record, from the first one │
//!     └─────────┴───────────────────────────────────────┘
//! ```
//!
//! A record starts where the one before it ends. Ends instead of starts: page 0 needs no entry before it, and the last end
//! says how long the records are.

use super::PAGE_BYTES;

/// Bytes of a map entry.
pub const MAP_ENTRY_BYTES: usize = 4;

const KIND_SHIFT: u32 = 28;
const END_MASK: u32 = (1 << KIND_SHIFT) - 1;

/// What a page marker says about its page.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum PageKind {
    /// Never touched by the guest; reads as zero. No record.
    Untouched = 0,
    /// All zero. No record.
    Zero = 1,
    /// The same vector 512 times. The record is that vector.
    Fill = 2,
    /// Equal to a page kept elsewhere. The record is its reference, meaningful to the caller only.
    Dup = 3,
    /// Equal to the same page of the parent snapshot. No record.
    Parent = 4,
    /// Few vectors differ from the same page of the parent snapshot; the record lists them.
    Patch = 5,
    /// Coded by word markers.
    WordMarked = 6,
    /// Coded by byte markers.
    ByteMarked = 7,
    /// The bytes themselves.
    Raw = 8,
}

impl PageKind {
    /// Number of kinds.
    pub const COUNT: usize = 9;

    /// Every kind, in the order of their numbers.
    pub const ALL: [Self; Self::COUNT] = [
        Self::Untouched,
        Self::Zero,
        Self::Fill,
        Self::Dup,
        Self::Parent,
        Self::Patch,
        Self::WordMarked,
        Self::ByteMarked,
        Self::Raw,
    ];

    /// A short name for tables: `untouched`, `zero`, `fill`, …
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Untouched => "untouched",
            Self::Zero => "zero",
            Self::Fill => "fill",
            Self::Dup => "dup",
            Self::Parent => "parent",
            Self::Patch => "patch",
            Self::WordMarked => "word_marked",
            Self::ByteMarked => "byte_marked",
            Self::Raw => "raw",
        }
    }

    /// Whether such a page is all zero, so that fresh memory needs no write.
    #[must_use]
    pub fn reads_zero(self) -> bool {
        matches!(self, Self::Untouched | Self::Zero)
    }

    /// Whether decoding such a page asks the resolver for another page.
    #[must_use]
    pub fn needs_resolver(self) -> bool {
        matches!(self, Self::Dup | Self::Parent | Self::Patch)
    }

    /// The kind with this number.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    /// Whether a record of this kind may have this many bytes.
    pub(crate) fn allows_record_of(self, bytes: usize) -> bool {
        match self {
            Self::Untouched | Self::Zero | Self::Parent => bytes == 0,
            Self::Fill | Self::Dup => bytes == 8,
            Self::Patch | Self::WordMarked | Self::ByteMarked => (1..PAGE_BYTES).contains(&bytes),
            Self::Raw => bytes == PAGE_BYTES,
        }
    }
}

impl std::fmt::Display for PageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// One entry of the page map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// What the page is.
    pub kind: PageKind,
    /// Where its record ends, counted from the first record.
    pub end: u32,
}

impl MapEntry {
    /// The entry as bytes.
    ///
    /// # Panics
    /// If the end needs more than 28 bits.
    #[must_use]
    pub fn to_bytes(self) -> [u8; MAP_ENTRY_BYTES] {
        let Self { kind, end } = self;
        assert!(end <= END_MASK, "a record ends at {end}");
        (u32::from(kind as u8) << KIND_SHIFT | end).to_le_bytes()
    }

    /// Reads an entry; the number of an unknown kind is the error.
    pub(crate) fn from_bytes(bytes: [u8; MAP_ENTRY_BYTES]) -> Result<Self, u8> {
        let word = u32::from_le_bytes(bytes);
        let number = (word >> KIND_SHIFT) as u8;
        let kind = PageKind::from_number(number).ok_or(number)?;
        Ok(Self { kind, end: word & END_MASK })
    }
}
