//! What can be wrong with input to the coder.

use crate::chunk::{self, CHUNK_BYTES, PAGE_BYTES, PageIndex, PageKind};

use super::ResolveError;

/// Why a chunk could not be encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A chunk to encode is not 1 to 512 whole pages.
    #[error("a chunk is 1 to {} whole pages of {PAGE_BYTES} bytes, not {bytes} bytes", CHUNK_BYTES / PAGE_BYTES)]
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
    /// Memory to decode into is not as long as the chunk.
    #[error("the chunk decodes to {chunk_bytes} bytes, the memory for it has {memory_bytes}")]
    MemoryLength {
        /// Bytes the chunk decodes to.
        chunk_bytes: usize,
        /// Bytes given.
        memory_bytes: usize,
    },
    /// The chunk does not have this page, or its map is wrong.
    #[error("the chunk's page map")]
    Format(#[from] chunk::Error),
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
