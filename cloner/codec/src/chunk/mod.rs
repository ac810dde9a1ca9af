//! The layout of an encoded chunk: what `FORMAT.md` describes, without how an encoder finds the bits.
//!
//! A chunk has two forms that share header, page map and the records of pages that are not unique. The hot form lies in RAM, the
//! [cold](crate::cold) one in files. An encoded chunk is one run of bytes that can lie anywhere.
//!
//! ```text
//!      ┌──────────┬──────────────────┬───────────────────┬────────────────────────┬───────────────────┐
//! hot  │ header   │ page map         │ dictionary        │ page records           │ slack             │
//!      │ 24 bytes │ 4 bytes per page │ 8 bytes per entry │ in page order, no gaps │ 32 × 0x00         │
//!      ├──────────┼──────────────────┼───────────────────┼────────────────────────┼───────────────────┤
//! cold │ the same │ the same         │ group table       │ of FILL, DUP and PATCH │ groups            │
//!      │          │                  │ 4 bytes per group │                        │ of unique pages   │
//!      └──────────┴──────────────────┴───────────────────┴────────────────────────┴───────────────────┘
//! ```
//!
//! The order of the parts is the order in which they are used: a reader of one page touches the header, one or two map entries,
//! the table entries it needs, and one record or group. The slack lets a decoder read whole registers at the end of the last
//! record.

mod checksum;
mod error;
mod form;
mod header;
mod kind;
mod map;
mod resolve;

pub use checksum::{PageHash, page_hash};
pub use error::{CodecError, FormatError, RecordError};
pub use form::{
    COLD_BYTES_MAX, DICTIONARY_ENTRY_BYTES, DICTIONARY_MAX, ENCODED_BYTES_MAX, Form, GROUP_BYTES,
    GROUP_END_BYTES, GROUP_PAGES, GROUPS_MAX, SLACK_BYTES,
};
pub use header::{ChunkHeader, stored_checksum};
pub use kind::PageKind;
pub use map::MapEntry;
pub use resolve::{NoResolve, PageRef, Resolve, ResolveError, TargetContents};

pub(crate) use checksum::write_checksum;
pub(crate) use header::check_checksum;
pub(crate) use map::PageMap;

/// Bytes of a page, the unit of random access.
pub const PAGE_BYTES: usize = 4096;
/// Bytes of a vector, which is what one word marker stands for.
pub const VECTOR_BYTES: usize = 8;
/// Number of vectors in a page.
pub const PAGE_VECTORS: usize = PAGE_BYTES / VECTOR_BYTES;
/// Number of pages in a full chunk. The last chunk of a region may hold fewer.
pub const CHUNK_PAGES: usize = 512;
/// Bytes of a full chunk, the unit of parallel work and of checksums.
pub const CHUNK_BYTES: usize = CHUNK_PAGES * PAGE_BYTES;

/// The version this build writes, and the only one it reads.
pub const VERSION: u16 = 2;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 24;
/// Where the checksum stands in the header; the bytes before it are its seed.
pub(crate) const CHECKSUM_AT: usize = 8;
/// Where the bytes start that the checksum covers.
pub(crate) const HASHED_FROM: usize = 16;
/// Bytes of a map entry.
pub const MAP_ENTRY_BYTES: usize = 4;

/// The bytes of one page.
pub type Page = [u8; PAGE_BYTES];

/// The number of a page inside its chunk: 0 to 511.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(u16);

impl PageIndex {
    /// The page with this number, or `None` if no chunk is so long.
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

#[cfg(test)]
mod tests;
