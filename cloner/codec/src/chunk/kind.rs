//! The nine kinds of pages.

use super::{Form, PAGE_BYTES, VECTOR_BYTES};

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
    /// Equal to a page kept elsewhere. The record is a reference to it, which only the caller understands.
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
    /// Number of page kinds.
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

    /// Whether such a page is all zero, so that fresh memory need not be written.
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

    /// Whether the chunk itself holds the page's content, rather than a marker that stands for it.
    #[must_use]
    pub fn is_unique(self) -> bool {
        matches!(self, Self::WordMarked | Self::ByteMarked | Self::Raw)
    }

    /// Whether a page of this kind may have a record of this many bytes. The cold form keeps unique pages in groups: there all of
    /// them are RAW and have no record.
    pub(crate) fn allows_record_of(self, form: Form, bytes: usize) -> bool {
        match (self, form) {
            (Self::Untouched | Self::Zero | Self::Parent, _) | (Self::Raw, Form::Cold) => bytes == 0,
            (Self::Fill | Self::Dup, _) => bytes == VECTOR_BYTES,
            (Self::Patch, _) | (Self::WordMarked | Self::ByteMarked, Form::Hot) => {
                (1..PAGE_BYTES).contains(&bytes)
            }
            (Self::Raw, Form::Hot) => bytes == PAGE_BYTES,
            (Self::WordMarked | Self::ByteMarked, Form::Cold) => false,
        }
    }
}

impl std::fmt::Display for PageKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}
