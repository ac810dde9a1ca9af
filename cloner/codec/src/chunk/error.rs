//! The errors of encoded chunks and of encoding, decoding and transcoding them.

use std::io;

use super::form::Form;
use super::{CHUNK_PAGES, PAGE_BYTES, PageIndex, PageKind, ResolveError, SLACK_BYTES, VERSION};

/// Why bytes are not a valid encoded chunk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatError {
    /// There are fewer bytes than the fixed parts need, or not as many as the header says.
    #[error("expected a {form} chunk of {expected_bytes} bytes, found {actual_bytes}")]
    Length {
        /// The form that was expected.
        form: Form,
        /// Length according to the header, or the shortest a chunk can be, in bytes.
        expected_bytes: usize,
        /// Bytes given.
        actual_bytes: usize,
    },
    /// The first four bytes are not the form's [magic](Form::magic).
    #[error("not a {form} chunk: it starts with {found:02x?}, not with {:02x?}", .form.magic())]
    Magic {
        /// The form that was expected.
        form: Form,
        /// The first four bytes.
        found: [u8; 4],
    },
    /// This build cannot read this version of the format.
    #[error("this build reads version {VERSION} of the {form} form, not version {found}")]
    Version {
        /// The form of the chunk.
        form: Form,
        /// The version in the header.
        found: u16,
    },
    /// The checksum in the header does not match the bytes.
    #[error("checksum {computed:016x} of the bytes does not match the {stored:016x} stored with them")]
    Checksum {
        /// The checksum in the header.
        stored: u64,
        /// The checksum of the bytes.
        computed: u64,
    },
    /// A header field is outside its range.
    #[error("header field {field} is {value}, outside {min}..={max}")]
    Field {
        /// The field's name in `FORMAT.md`.
        field: &'static str,
        /// The value in the header.
        value: u32,
        /// The smallest value allowed.
        min: u32,
        /// The largest value allowed.
        max: u32,
    },
    /// A map entry has a number that does not stand for a page kind.
    #[error("page {page} has kind {kind}, which does not exist")]
    Kind {
        /// The page whose map entry it is.
        page: PageIndex,
        /// The number in the map entry.
        kind: u8,
    },
    /// The page asked for lies after the last page of the chunk.
    #[error("there is no page {page}: the chunk has {page_count} pages")]
    Page {
        /// The page asked for.
        page: PageIndex,
        /// Number of pages in the chunk.
        page_count: usize,
    },
    /// A record is not where it must be, or its kind has no records of this length in this form.
    #[error("the {kind} record of page {page} spans bytes {start}..{end} of {records_bytes}")]
    Record {
        /// The page whose record it is.
        page: PageIndex,
        /// The kind of the page.
        kind: PageKind,
        /// First byte of the record, counted from the first record.
        start: usize,
        /// End of the record, counted from the first record.
        end: usize,
        /// Bytes that all records together can have.
        records_bytes: usize,
    },
    /// The last record of a hot chunk does not end where the slack starts.
    #[error("the records end at byte {end} of {records_bytes}")]
    RecordsEnd {
        /// End of the last record, counted from the first.
        end: usize,
        /// Bytes that all records together have.
        records_bytes: usize,
    },
    /// The slack of a hot chunk is not all zero.
    #[error("the {SLACK_BYTES} bytes after the last record are not all zero")]
    Slack,
    /// A cold chunk's map has more or fewer unique pages than its header says.
    #[error("the map has {unique_pages} unique pages, the header says {header_unique_pages}")]
    UniquePages {
        /// Unique pages according to the map.
        unique_pages: usize,
        /// Unique pages according to the header.
        header_unique_pages: usize,
    },
    /// A group of a cold chunk lies where no group can be.
    #[error("group {group} spans bytes {start}..{end} of {groups_bytes}")]
    GroupBounds {
        /// Number of the group in the chunk.
        group: usize,
        /// First byte of the group, counted from the first group.
        start: usize,
        /// End of the group, counted from the first group.
        end: usize,
        /// Bytes that all groups together have.
        groups_bytes: usize,
    },
    /// A group holds neither its pages as they are nor one zstd frame of the form that groups have.
    #[error("the {coded_bytes} bytes of group {group} are not a frame of {page_bytes} bytes of pages")]
    GroupFrame {
        /// Number of the group in the chunk.
        group: usize,
        /// Bytes that the group takes in the chunk.
        coded_bytes: usize,
        /// Bytes of the pages in the group.
        page_bytes: usize,
    },
    /// The last group does not end where the chunk ends.
    #[error("the groups end at byte {end} of {groups_bytes}")]
    GroupsEnd {
        /// End of the last group, counted from the first.
        end: usize,
        /// Bytes that all groups together have.
        groups_bytes: usize,
    },
}

/// Why a chunk could not be encoded, decoded or transcoded.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// The bytes to encode are not 1 to 512 whole pages.
    #[error("a chunk is 1 to {CHUNK_PAGES} whole pages of {PAGE_BYTES} bytes, not {bytes} bytes")]
    ChunkLength {
        /// Bytes given.
        bytes: usize,
    },
    /// The parent and the chunk differ in length.
    #[error("the chunk has {bytes} bytes, but its parent has {parent_bytes}")]
    ParentLength {
        /// Bytes of the chunk.
        bytes: usize,
        /// Bytes of the parent.
        parent_bytes: usize,
    },
    /// The memory to decode into is shorter or longer than the chunk.
    #[error("the chunk decodes to {chunk_bytes} bytes, but the memory for it has {memory_bytes}")]
    MemoryLength {
        /// Bytes the chunk decodes to.
        chunk_bytes: usize,
        /// Bytes of the memory.
        memory_bytes: usize,
    },
    /// The bytes are not a valid encoded chunk, or the chunk does not have the page.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A record contradicts itself.
    #[error("the {kind} record of page {page} contradicts itself")]
    Record {
        /// The page whose record it is.
        page: PageIndex,
        /// The kind of the page.
        kind: PageKind,
        /// The contradiction.
        source: RecordError,
    },
    /// The page that a DUP, PARENT or PATCH page names could not be fetched.
    #[error("could not fetch the page that {kind} page {page} refers to")]
    Resolve {
        /// The page that refers to another.
        page: PageIndex,
        /// The kind of the page.
        kind: PageKind,
        /// The resolver's reason.
        source: ResolveError,
    },
    /// A compression level that zstd does not have.
    #[error("zstd level {level} is outside {min}..={max}")]
    Level {
        /// The level asked for.
        level: i32,
        /// The fastest level zstd has.
        min: i32,
        /// The level of zstd that compresses most.
        max: i32,
    },
    /// zstd could not allocate or set up a context, or could not compress.
    #[error("zstd could not {step}")]
    Zstd {
        /// What zstd was asked to do: completes "zstd could not …".
        step: &'static str,
        /// zstd's reason.
        source: io::Error,
    },
    /// zstd could not decompress the frame of a group.
    #[error("the zstd frame of group {group} is corrupt")]
    GroupContent {
        /// Number of the group in the chunk.
        group: usize,
        /// zstd's reason.
        source: io::Error,
    },
    /// The frame of a group decompresses to fewer bytes than its pages have.
    #[error("group {group} decompresses to {actual_bytes} bytes, but its pages have {page_bytes}")]
    GroupLength {
        /// Number of the group in the chunk.
        group: usize,
        /// Bytes of the pages in the group.
        page_bytes: usize,
        /// Bytes that the frame decompressed to.
        actual_bytes: usize,
    },
}

/// How a page's record contradicts itself. Only a faulty or hostile writer makes such records: accidents are found by the checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// The parts a record announces do not add up to its length.
    #[error("its parts need {needed_bytes} bytes, but it has {record_bytes}")]
    Length {
        /// Bytes that the parts need.
        needed_bytes: usize,
        /// Bytes that the record has.
        record_bytes: usize,
    },
    /// Some of the padding bits, which must be zero, are not.
    #[error("padding bits are not zero")]
    Padding,
    /// A dictionary marker lies beyond the end of the dictionary.
    #[error("dictionary marker {marker} is beyond the {entries} entries of the dictionary")]
    Dictionary {
        /// The marker's number.
        marker: u16,
        /// Number of entries in the dictionary.
        entries: usize,
    },
    /// The vectors of a patch are not in ascending order, or lie beyond the page.
    #[error("patched vector {vector} cannot follow vector {before}")]
    PatchOrder {
        /// Number of the offending vector.
        vector: u16,
        /// Number of the vector before it.
        before: u16,
    },
    /// The markers of a page describe more or fewer bytes than a page has.
    #[error("its markers describe {bytes} bytes, but a page has {PAGE_BYTES}")]
    PageLength {
        /// Bytes that the markers describe.
        bytes: usize,
    },
    /// A byte marker is one of the numbers that stand for nothing.
    #[error("byte marker {marker} stands for nothing")]
    Marker {
        /// The marker's number.
        marker: u8,
    },
}
