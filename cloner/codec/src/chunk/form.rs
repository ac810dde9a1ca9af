//! The two forms of an encoded chunk, and how they differ.

use std::fmt;

use super::{CHUNK_BYTES, CHUNK_PAGES, HEADER_BYTES, MAP_ENTRY_BYTES, PAGE_BYTES, VECTOR_BYTES};

/// Most entries that a hot chunk's dictionary may have: a dictionary marker has 12 bits.
pub const DICTIONARY_MAX: usize = 4096;
/// Bytes of one dictionary entry: a vector.
pub const DICTIONARY_ENTRY_BYTES: usize = VECTOR_BYTES;
/// Zero bytes after the last record of a hot chunk.
pub const SLACK_BYTES: usize = 32;
/// Upper bound of a hot chunk's length in bytes: every page RAW and a full dictionary.
pub const ENCODED_BYTES_MAX: usize =
    FRONT_BYTES_MAX + DICTIONARY_MAX * DICTIONARY_ENTRY_BYTES + CHUNK_BYTES + SLACK_BYTES;

/// Pages in a group of a cold chunk. The last group of a chunk may hold fewer.
pub const GROUP_PAGES: usize = 16;
/// Most bytes that the pages of a group can have.
pub const GROUP_BYTES: usize = GROUP_PAGES * PAGE_BYTES;
/// Bytes of one entry of the group table: the end of a group, counted from the first.
pub const GROUP_END_BYTES: usize = 4;
/// Most groups a cold chunk can have.
pub const GROUPS_MAX: usize = CHUNK_PAGES / GROUP_PAGES;
/// Upper bound of a cold chunk's length in bytes: no page takes more than its own bytes.
pub const COLD_BYTES_MAX: usize = FRONT_BYTES_MAX + GROUPS_MAX * GROUP_END_BYTES + CHUNK_BYTES;

const FRONT_BYTES_MAX: usize = HEADER_BYTES + CHUNK_PAGES * MAP_ENTRY_BYTES;

/// The form of an encoded chunk. Header, page map, and the records of pages that are not unique are the same in both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// For RAM: every page decodes alone, at the speed of memory.
    Hot,
    /// For files and networks: smaller, and slower to read.
    Cold,
}

impl Form {
    /// The first bytes of every chunk of this form.
    #[must_use]
    pub const fn magic(self) -> [u8; 4] {
        match self {
            Self::Hot => *b"BMC1",
            Self::Cold => *b"BMZ1",
        }
    }

    /// The form of the chunk that starts with these bytes, if it is one.
    #[must_use]
    pub fn of(encoded: &[u8]) -> Option<Self> {
        [Self::Hot, Self::Cold].into_iter().find(|form| encoded.starts_with(&form.magic()))
    }

    /// The name that `FORMAT.md` gives the header field with the number of table entries.
    pub(super) const fn entries_name(self) -> &'static str {
        match self {
            Self::Hot => "dictionary_entries",
            Self::Cold => "unique_pages",
        }
    }

    /// Most table entries that a chunk of `page_count` pages may have.
    pub(super) const fn entries_max(self, page_count: usize) -> usize {
        match self {
            Self::Hot => DICTIONARY_MAX,
            Self::Cold => page_count,
        }
    }

    /// Bytes of a table with this many entries.
    pub(super) const fn table_bytes(self, entries: usize) -> usize {
        match self {
            Self::Hot => entries * DICTIONARY_ENTRY_BYTES,
            Self::Cold => entries.div_ceil(GROUP_PAGES) * GROUP_END_BYTES,
        }
    }

    /// Bytes that always follow the records, even if nothing else does.
    pub(super) const fn trailer_bytes(self) -> usize {
        match self {
            Self::Hot => SLACK_BYTES,
            Self::Cold => 0,
        }
    }

    /// Upper bound of the length of a chunk of this form, in bytes.
    #[must_use]
    pub const fn encoded_bytes_max(self) -> usize {
        match self {
            Self::Hot => ENCODED_BYTES_MAX,
            Self::Cold => COLD_BYTES_MAX,
        }
    }
}

impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        })
    }
}
