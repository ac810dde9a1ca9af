//! The page map of a cold chunk: for each page its kind and the length of its record.
//!
//! ```text
//! bit 15      12 11                       0
//!     ┌─────────┬──────────────────────────┐
//!     │ kind    │ bytes of the record      │
//!     └─────────┴──────────────────────────┘
//! ```
//!
//! Kinds have the numbers of the hot form. A unique page is RAW: its bytes are in a group, it has no record. Lengths instead of
//! ends, in half the bytes: where a page is follows from the entries before it, and adding up a kilobyte of them is nothing
//! beside decompressing a group.

use crate::chunk::{PAGE_BYTES, PageKind};

/// Bytes of a map entry.
pub const MAP_ENTRY_BYTES: usize = 2;

const KIND_SHIFT: u32 = 12;
const LENGTH_MASK: u16 = (1 << KIND_SHIFT) - 1;

/// One entry of the page map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct MapEntry {
    pub(super) kind: PageKind,
    pub(super) record_bytes: usize,
}

impl MapEntry {
    /// The entry as bytes.
    ///
    /// # Panics
    /// If the record is as long as a page or longer.
    pub(super) fn to_bytes(self) -> [u8; MAP_ENTRY_BYTES] {
        let Self { kind, record_bytes } = self;
        assert!(record_bytes < PAGE_BYTES, "a record of {record_bytes} bytes");
        let record_bytes = u16::try_from(record_bytes).expect("less than a page");
        (u16::from(kind as u8) << KIND_SHIFT | record_bytes).to_le_bytes()
    }

    /// Reads an entry; the number of a kind that cold chunks do not have is the error.
    pub(super) fn from_bytes(bytes: [u8; MAP_ENTRY_BYTES]) -> Result<Self, u8> {
        let entry = u16::from_le_bytes(bytes);
        let number = (entry >> KIND_SHIFT) as u8;
        match PageKind::from_number(number) {
            None | Some(PageKind::WordMarked | PageKind::ByteMarked) => Err(number),
            Some(kind) => Ok(Self { kind, record_bytes: usize::from(entry & LENGTH_MASK) }),
        }
    }

    /// Whether a page of this kind may have a record of this length.
    pub(super) fn is_allowed(self) -> bool {
        match self.kind {
            PageKind::Fill | PageKind::Dup => self.record_bytes == 8,
            PageKind::Patch => (1..PAGE_BYTES).contains(&self.record_bytes),
            _ => self.record_bytes == 0,
        }
    }
}
