//! The shape of an encoded chunk: what `FORMAT.md` describes, and nothing about how the bits are found.
//!
//! The encoder and the decoder share this module and nothing else. It knows no files, no identifiers, no KVM: an encoded
//! chunk is one run of bytes that can lie anywhere.
//!
//! ```text
//! ┌──────────┬────────────────────┬─────────────────────┬─────────────────────────┬────────────┐
//! │ header   │ page map           │ dictionary          │ page records            │ slack      │
//! │ 24 bytes │ 4 bytes per page   │ 8 bytes per entry   │ in page order, no gaps  │ 32 × 0x00  │
//! └──────────┴────────────────────┴─────────────────────┴─────────────────────────┴────────────┘
//! ```
//!
//! The order is the order of use: a reader of one page touches the header, one or two map entries, the dictionary entries it
//! needs and one record. The slack lets a decoder read whole registers at the end of the last record.

mod checksum;
mod header;
mod map;

pub use checksum::{PageHash, page_hash};
pub use header::{ChunkHeader, HEADER_BYTES, MAGIC, VERSION};
pub use map::{MAP_ENTRY_BYTES, MapEntry, PageKind};

pub(crate) use checksum::{chunk_checksum, seal};
pub(crate) use header::{CHECKSUM_AT, HASHED_FROM};

/// Bytes of a page, the unit of random access.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a vector, the unit a word marker stands for.
pub const VECTOR_BYTES: usize = 8;
/// Vectors of a page.
pub const PAGE_VECTORS: usize = PAGE_BYTES / VECTOR_BYTES;
/// Pages of a full chunk. The last chunk of a region may hold fewer.
pub const CHUNK_PAGES: usize = 512;
/// Bytes of a full chunk, the unit of parallel work and of checksums.
pub const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE_BYTES;
/// Most entries a chunk's dictionary may have: a dictionary marker has 12 bits.
pub const DICTIONARY_MAX: usize = 4096;
/// Bytes of one dictionary entry: a vector.
pub const DICTIONARY_ENTRY_BYTES: usize = VECTOR_BYTES;
/// Zero bytes after the last record.
pub const SLACK_BYTES: usize = 32;
/// Upper bound of the bytes one chunk encodes to: every page RAW and a full dictionary.
pub const ENCODED_BYTES_MAX: usize = HEADER_BYTES
    + CHUNK_PAGES * MAP_ENTRY_BYTES
    + DICTIONARY_MAX * DICTIONARY_ENTRY_BYTES
    + CHUNK_BYTES
    + SLACK_BYTES;

/// The bytes of one page.
pub type Page = [u8; PAGE_BYTES];

/// The number of a page inside its chunk: 0 to 511.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(u16);

impl PageIndex {
    /// The page with this number, if a chunk can have one.
    #[must_use]
    pub fn new(index: usize) -> Option<Self> {
        u16::try_from(index).ok().filter(|&index| usize::from(index) < CHUNK_PAGES).map(Self)
    }

    /// The number, 0 to 511.
    #[must_use]
    pub fn get(self) -> usize {
        usize::from(self.0)
    }

    /// The first `count` pages of a chunk, in order.
    ///
    /// # Panics
    /// If `count` is more than [`CHUNK_PAGES`].
    pub fn first(count: usize) -> impl ExactSizeIterator<Item = Self> + DoubleEndedIterator + Clone {
        assert!(count <= CHUNK_PAGES, "a chunk has at most {CHUNK_PAGES} pages, not {count}");
        (0..u16::try_from(count).expect("at most 512")).map(Self)
    }
}

impl std::fmt::Display for PageIndex {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Why bytes are not an encoded chunk of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Fewer bytes than the fixed parts need, or more or fewer than the header says.
    #[error("an encoded chunk of {expected_bytes} bytes was expected, {actual_bytes} are there")]
    Length {
        /// What the header says, or the least an encoded chunk can have.
        expected_bytes: usize,
        /// What was given.
        actual_bytes: usize,
    },
    /// The first four bytes are not [`MAGIC`].
    #[error("not an encoded chunk: it starts with {found:02x?}, not with {MAGIC:02x?}")]
    Magic {
        /// The bytes found.
        found: [u8; 4],
    },
    /// A version this build cannot read.
    #[error("format version {found} is not the version {VERSION} this build reads")]
    Version {
        /// The version found.
        found: u16,
    },
    /// The checksum does not fit the bytes.
    #[error("checksum {computed:016x} of the bytes is not the {stored:016x} stored with them")]
    Checksum {
        /// The checksum in the header.
        stored: u64,
        /// The checksum of the bytes.
        computed: u64,
    },
    /// A header field outside its range.
    #[error("header field {field} is {value}, outside {min}..={max}")]
    Field {
        /// The field's name in FORMAT.md.
        field: &'static str,
        /// The value found.
        value: u32,
        /// The least value allowed.
        min: u32,
        /// The greatest value allowed.
        max: u32,
    },
    /// A page kind that this version does not have.
    #[error("page {page} has kind {kind}, which this version does not have")]
    Kind {
        /// The page.
        page: PageIndex,
        /// The number found.
        kind: u8,
    },
    /// A record that is not where it must be, or is not of the length its kind has.
    #[error("the {kind} record of page {page} spans bytes {start}..{end} of {records_bytes}")]
    Record {
        /// The page.
        page: PageIndex,
        /// Its kind.
        kind: PageKind,
        /// Where its record starts, counted from the first record.
        start: usize,
        /// Where its record ends.
        end: usize,
        /// Bytes of all records.
        records_bytes: usize,
    },
    /// The last record does not end where the slack starts.
    #[error("the records end at byte {end} of {records_bytes}")]
    RecordsEnd {
        /// Where the last record ends.
        end: usize,
        /// Bytes of all records.
        records_bytes: usize,
    },
    /// The slack is not all zero.
    #[error("the {SLACK_BYTES} bytes after the last record are not all zero")]
    Slack,
}

#[cfg(test)]
mod tests;
