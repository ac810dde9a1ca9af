//! What can be wrong with input to the cold coder.

use std::io;

use crate::chunk::{PageIndex, PageKind};
use crate::hot::{self, RecordError, ResolveError};

use super::{LEVEL_MAX, LEVEL_MIN, MAGIC, VERSION};

/// Why a cold chunk could not be written, verified or decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A compression level zstd does not have.
    #[error("zstd level {level} is outside {LEVEL_MIN}..={LEVEL_MAX}")]
    Level {
        /// The level asked for.
        level: i32,
    },
    /// zstd has no memory for a context, or could not compress.
    #[error("zstd could not {step}")]
    Zstd {
        /// What it was to do.
        step: &'static str,
        /// What it said.
        source: io::Error,
    },
    /// The hot form of a chunk: a unique page of it does not decode, or it could not be written.
    #[error("the hot form of the chunk")]
    Hot(#[source] hot::Error),
    /// Fewer bytes than the parts need, or more or fewer than the header says.
    #[error("a cold chunk of {expected_bytes} bytes was expected, {actual_bytes} are there")]
    Length {
        /// What the header says, or the least its parts can have.
        expected_bytes: usize,
        /// What was given.
        actual_bytes: usize,
    },
    /// The first four bytes are not [`MAGIC`].
    #[error("not a cold chunk: it starts with {found:02x?}, not with {MAGIC:02x?}")]
    Magic {
        /// The bytes found.
        found: [u8; 4],
    },
    /// A version this build cannot read.
    #[error("cold format version {found} is not the version {VERSION} this build reads")]
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
    /// A page kind that cold chunks do not have.
    #[error("page {page} has kind {kind}, which cold chunks do not have")]
    Kind {
        /// The page.
        page: PageIndex,
        /// The number found.
        kind: u8,
    },
    /// A record whose length its kind does not allow.
    #[error("the {kind} record of page {page} has {record_bytes} bytes")]
    Record {
        /// The page.
        page: PageIndex,
        /// Its kind.
        kind: PageKind,
        /// Bytes of the record.
        record_bytes: usize,
    },
    /// The page map does not add up to what the header says.
    #[error(
        "the map has {records_bytes} bytes of records and {unique_pages} unique pages, \
         the header {header_records_bytes} and {header_unique_pages}"
    )]
    Map {
        /// Bytes of records in the map.
        records_bytes: usize,
        /// Bytes of records in the header.
        header_records_bytes: usize,
        /// Unique pages in the map.
        unique_pages: usize,
        /// Unique pages in the header.
        header_unique_pages: usize,
    },
    /// A group that is not where a group can be.
    #[error("group {group} spans bytes {start}..{end} of {groups_bytes}")]
    GroupBounds {
        /// The group.
        group: usize,
        /// Where it starts, counted from the first group.
        start: usize,
        /// Where it ends.
        end: usize,
        /// Bytes of all groups.
        groups_bytes: usize,
    },
    /// A group that is neither its pages nor one zstd frame of the form groups have.
    #[error("the {coded_bytes} bytes of group {group} are not a frame of {page_bytes} bytes of pages")]
    GroupFrame {
        /// The group.
        group: usize,
        /// Bytes of the coded group.
        coded_bytes: usize,
        /// Bytes of its pages.
        page_bytes: usize,
    },
    /// The last group does not end where the chunk ends.
    #[error("the groups end at byte {end} of {groups_bytes}")]
    GroupsEnd {
        /// Where the last group ends.
        end: usize,
        /// Bytes of all groups.
        groups_bytes: usize,
    },
    /// zstd finds a group's frame corrupt.
    #[error("the zstd frame of group {group}")]
    GroupContent {
        /// The group.
        group: usize,
        /// What zstd said.
        source: io::Error,
    },
    /// A group's frame decompresses to less than its pages.
    #[error("group {group} decompresses to {actual_bytes} bytes, its pages have {page_bytes}")]
    GroupLength {
        /// The group.
        group: usize,
        /// Bytes of its pages.
        page_bytes: usize,
        /// Bytes it decompressed to.
        actual_bytes: usize,
    },
    /// Memory to decode into is not as long as the chunk.
    #[error("the chunk decodes to {chunk_bytes} bytes, the memory for it has {memory_bytes}")]
    MemoryLength {
        /// Bytes the chunk decodes to.
        chunk_bytes: usize,
        /// Bytes given.
        memory_bytes: usize,
    },
    /// The chunk ends before the page.
    #[error("page {page} of a chunk of {page_count}")]
    Page {
        /// The page asked for.
        page: PageIndex,
        /// Pages of the chunk.
        page_count: usize,
    },
    /// A PATCH record contradicts itself.
    #[error("the patch record of page {page}")]
    Patch {
        /// The page.
        page: PageIndex,
        /// What is wrong.
        source: RecordError,
    },
    /// The page that a DUP, PARENT or PATCH page names could not be had.
    #[error("the page that {kind} page {page} refers to")]
    Resolve {
        /// The page.
        page: PageIndex,
        /// Its kind.
        kind: PageKind,
        /// What the resolver said.
        source: ResolveError,
    },
}
