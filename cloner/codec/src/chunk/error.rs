//! What can be wrong with encoded chunks, and with coding them.

use std::io;

use super::form::Form;
use super::{CHUNK_PAGES, PAGE_BYTES, PageIndex, PageKind, ResolveError, SLACK_BYTES, VERSION};

/// Why bytes are not an encoded chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// Fewer bytes than the fixed parts need, or more or fewer than the header says.
    #[error("a {form} chunk of {expected_bytes} bytes was expected, {actual_bytes} are there")]
    Length {
        /// The form that was expected.
        form: Form,
        /// What the header says, or the least a chunk can have.
        expected_bytes: usize,
        /// What was given.
        actual_bytes: usize,
    },
    /// The first four bytes are not the form's [magic](Form::magic).
    #[error("not a {form} chunk: it starts with {found:02x?}, not with {:02x?}", .form.magic())]
    Magic {
        /// The form that was expected.
        form: Form,
        /// The bytes found.
        found: [u8; 4],
    },
    /// A version this build cannot read.
    #[error("version {found} of the {form} form is not the version {VERSION} that this build reads")]
    Version {
        /// The form of the chunk.
        form: Form,
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
        /// The field's name in `FORMAT.md`.
        field: &'static str,
        /// The value found.
        value: u32,
        /// The least value allowed.
        min: u32,
        /// The greatest value allowed.
        max: u32,
    },
    /// A number that is not the number of a page kind.
    #[error("page {page} has kind {kind}, which does not exist")]
    Kind {
        /// The page.
        page: PageIndex,
        /// The number found.
        kind: u8,
    },
    /// A page was asked for that lies after the last page of the chunk.
    #[error("page {page} of a chunk of {page_count}")]
    Page {
        /// The page asked for.
        page: PageIndex,
        /// Pages of the chunk.
        page_count: usize,
    },
    /// A record that is not where it must be, or is not of a length its kind has in this form.
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
        /// Bytes that all records can have.
        records_bytes: usize,
    },
    /// The last record of a hot chunk does not end where the slack starts.
    #[error("the records end at byte {end} of {records_bytes}")]
    RecordsEnd {
        /// Where the last record ends.
        end: usize,
        /// Bytes of all records.
        records_bytes: usize,
    },
    /// The slack of a hot chunk is not all zero.
    #[error("the {SLACK_BYTES} bytes after the last record are not all zero")]
    Slack,
    /// A cold chunk's map has more or fewer unique pages than its header says.
    #[error("the map has {unique_pages} unique pages, the header says {header_unique_pages}")]
    UniquePages {
        /// Unique pages in the map.
        unique_pages: usize,
        /// Unique pages in the header.
        header_unique_pages: usize,
    },
    /// A group of a cold chunk that is not where a group can be.
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
}

/// Why a chunk could not be encoded, decoded or transcoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The pages to encode are not 1 to 512 whole pages.
    #[error("a chunk is 1 to {CHUNK_PAGES} whole pages of {PAGE_BYTES} bytes, not {bytes} bytes")]
    ChunkLength {
        /// Bytes given.
        bytes: usize,
    },
    /// The parent of a chunk is not as long as the chunk.
    #[error("the parent has {parent_bytes} bytes, the chunk {bytes}")]
    ParentLength {
        /// Bytes of the chunk.
        bytes: usize,
        /// Bytes of the parent.
        parent_bytes: usize,
    },
    /// The memory to decode into is not as long as the chunk.
    #[error("the chunk decodes to {chunk_bytes} bytes, the memory for it has {memory_bytes}")]
    MemoryLength {
        /// Bytes the chunk decodes to.
        chunk_bytes: usize,
        /// Bytes given.
        memory_bytes: usize,
    },
    /// The bytes are not an encoded chunk, or the chunk does not have the page.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A record contradicts itself.
    #[error("the {kind} record of page {page}")]
    Record {
        /// The page.
        page: PageIndex,
        /// Its kind.
        kind: PageKind,
        /// What is wrong.
        source: RecordError,
    },
    /// The page that a DUP, PARENT or PATCH page names could not be fetched.
    #[error("the page that {kind} page {page} refers to")]
    Resolve {
        /// The page.
        page: PageIndex,
        /// Its kind.
        kind: PageKind,
        /// What the resolver said.
        source: ResolveError,
    },
    /// A compression level that zstd does not have.
    #[error("zstd level {level} is outside {min}..={max}")]
    Level {
        /// The level asked for.
        level: i32,
        /// The fastest level there is.
        min: i32,
        /// The densest level there is.
        max: i32,
    },
    /// zstd has no memory for a context, or could not compress.
    #[error("zstd could not {step}")]
    Zstd {
        /// What it was to do.
        step: &'static str,
        /// What it said.
        source: io::Error,
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
}

/// How a page's record contradicts itself. Only a faulty or hostile writer makes such records: the checksum finds accidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The parts a record announces do not add up to its length.
    #[error("its parts need {needed_bytes} bytes, it has {record_bytes}")]
    Length {
        /// Bytes its markers ask for.
        needed_bytes: usize,
        /// Bytes it has.
        record_bytes: usize,
    },
    /// Padding bits that must be zero are not.
    #[error("padding bits are not zero")]
    Padding,
    /// A dictionary marker beyond the dictionary.
    #[error("dictionary marker {marker} of a dictionary of {entries}")]
    Dictionary {
        /// The marker.
        marker: u16,
        /// Entries of the dictionary.
        entries: usize,
    },
    /// The vectors of a patch are not in ascending order, or beyond the page.
    #[error("patched vector {vector} after {before}")]
    PatchOrder {
        /// The vector out of order.
        vector: u16,
        /// The one before it.
        before: u16,
    },
    /// The markers of a page describe more or fewer bytes than a page has.
    #[error("its markers describe {bytes} bytes of a page's {PAGE_BYTES}")]
    PageLength {
        /// Bytes described.
        bytes: usize,
    },
    /// A byte marker that stands for nothing.
    #[error("byte marker {marker} stands for nothing")]
    Marker {
        /// The marker.
        marker: u8,
    },
}
