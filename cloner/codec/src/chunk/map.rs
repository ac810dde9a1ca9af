//! The page map: the kind of each page and the end of its record, so that any page is found with two loads.
//!
//! ```text
//! bit 31      28 27                                    0
//!     ┌─────────┬───────────────────────────────────────┐
//!     │ kind    │ end of the record, from the first one │
//!     └─────────┴───────────────────────────────────────┘
//! ```
//!
//! A record starts where the one before it ends. The map holds ends rather than starts because then page 0 needs no entry before
//! it, and the last end tells how long the records are.

use std::ops::Range;

use super::{Form, FormatError, MAP_ENTRY_BYTES, PageIndex, PageKind};

const KIND_SHIFT: u32 = 28;
const END_MASK: u32 = (1 << KIND_SHIFT) - 1;

/// One entry of the page map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MapEntry {
    /// The kind of the page.
    pub kind: PageKind,
    /// End of the page's record in bytes, counted from the first record.
    pub end: u32,
}

impl MapEntry {
    /// Encodes the entry as it lies in the map.
    ///
    /// # Panics
    /// If the end needs more than 28 bits.
    #[must_use]
    pub fn to_bytes(self) -> [u8; MAP_ENTRY_BYTES] {
        let Self { kind, end } = self;
        assert!(end <= END_MASK, "a record ends at {end}");
        (u32::from(kind as u8) << KIND_SHIFT | end).to_le_bytes()
    }

    /// Reads an entry; the error is the number, if it does not stand for a kind.
    fn from_bytes(bytes: [u8; MAP_ENTRY_BYTES]) -> Result<Self, u8> {
        let word = u32::from_le_bytes(bytes);
        let number = (word >> KIND_SHIFT) as u8;
        let kind = PageKind::from_number(number).ok_or(number)?;
        Ok(Self { kind, end: word & END_MASK })
    }
}

/// The page map of an encoded chunk, where it lies.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageMap<'a> {
    entries: &'a [[u8; MAP_ENTRY_BYTES]],
}

impl<'a> PageMap<'a> {
    /// The map with these bytes, four for each page.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { entries: bytes.as_chunks().0 }
    }

    fn entry(self, page: PageIndex) -> Result<MapEntry, FormatError> {
        MapEntry::from_bytes(self.entries[page.get()]).map_err(|kind| FormatError::Kind { page, kind })
    }

    /// Checks every entry and returns the end of the last record, which is at most `records_bytes`.
    pub(crate) fn check(self, form: Form, records_bytes: usize) -> Result<usize, FormatError> {
        let mut start = 0;
        for page in PageIndex::first(self.entries.len()) {
            let MapEntry { kind, end } = self.entry(page)?;
            let end = end as usize;
            if end < start || end > records_bytes || !kind.allows_record_of(form, end - start) {
                return Err(FormatError::Record { page, kind, start, end, records_bytes });
            }
            start = end;
        }
        Ok(start)
    }

    /// The kind of a page; `None` if the chunk ends before it.
    pub(crate) fn kind(self, page: PageIndex) -> Option<PageKind> {
        self.entries
            .get(page.get())
            .and_then(|&bytes| MapEntry::from_bytes(bytes).ok())
            .map(|entry| entry.kind)
    }

    /// The kind of a page, and which of the `records_bytes` bytes are its record.
    ///
    /// # Errors
    /// [`FormatError::Page`] if the chunk ends before the page; no other error if the map was checked.
    #[inline]
    pub(crate) fn record(
        self,
        form: Form,
        page: PageIndex,
        records_bytes: usize,
    ) -> Result<(PageKind, Range<usize>), FormatError> {
        if page.get() >= self.entries.len() {
            return Err(FormatError::Page { page, page_count: self.entries.len() });
        }
        let MapEntry { kind, end } = self.entry(page)?;
        let start = match page.get().checked_sub(1).and_then(PageIndex::new) {
            Some(before) => self.entry(before)?.end as usize,
            None => 0,
        };
        let end = end as usize;
        if end < start || end > records_bytes || !kind.allows_record_of(form, end - start) {
            return Err(FormatError::Record { page, kind, start, end, records_bytes });
        }
        Ok((kind, start..end))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_survive_their_bytes() {
        for kind in PageKind::ALL {
            for end in [0, 1, 4096, (1 << 28) - 1] {
                let entry = MapEntry { kind, end };
                assert_eq!(MapEntry::from_bytes(entry.to_bytes()), Ok(entry));
            }
        }
        assert_eq!(MapEntry::from_bytes([0, 0, 0, 0x90]), Err(9));
    }
}
