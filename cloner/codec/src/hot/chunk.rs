//! A hot chunk, every byte and bound of which has been checked.

use crate::chunk::{
    ChunkHeader, DICTIONARY_ENTRY_BYTES, Form, FormatError, PageIndex, PageKind, PageMap, SLACK_BYTES,
    check_checksum, stored_checksum,
};

/// A hot chunk: the only way from its bytes to pages.
///
/// A value exists only if the checksum matched and the header, every map entry, every record's bounds and the slack are as
/// FORMAT.md says. It borrows the bytes, so they cannot change meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedChunk<'a> {
    encoded: &'a [u8],
    header: ChunkHeader,
    map: PageMap<'a>,
    dictionary: &'a [[u8; DICTIONARY_ENTRY_BYTES]],
    /// The records and the slack after them.
    records: &'a [u8],
}

/// The marker of a page that was encoded before, for [`ChunkInput::with_kept`](super::ChunkInput::with_kept).
#[derive(Clone, Copy, Debug)]
pub struct KeptRecord<'a> {
    /// What the page is.
    pub kind: PageKind,
    /// Its record, as the earlier chunk has it; empty if the kind has none.
    pub record: &'a [u8],
}

impl<'a> VerifiedChunk<'a> {
    /// Checks an encoded chunk: the checksum before anything else is trusted, then every bound.
    ///
    /// # Errors
    /// The first thing found that is not as FORMAT.md says: the header, the checksum, a map entry, a record or the slack.
    pub fn verify(encoded: &'a [u8]) -> Result<Self, FormatError> {
        let chunk = Self::reopen(encoded)?;
        check_checksum(encoded)?;
        chunk.check_map()?;
        Ok(chunk)
    }

    /// Opens a chunk that this process has verified and that cannot have changed since: only the header is read again.
    ///
    /// This is for a pool that verifies chunks as they come in and then serves single pages. On bytes that were never verified,
    /// decoding stays in bounds and returns errors, but may return wrong bytes.
    ///
    /// # Errors
    /// The variant of [`FormatError`] that says what is wrong with the header.
    pub fn reopen(encoded: &'a [u8]) -> Result<Self, FormatError> {
        let header = ChunkHeader::read(Form::Hot, encoded)?;
        let (map, dictionary, records) = header.parts(encoded);
        Ok(Self { encoded, header, map, dictionary: dictionary.as_chunks().0, records })
    }

    fn check_map(&self) -> Result<(), FormatError> {
        let (records_bytes, slack) = (self.records_bytes(), &self.records[self.records_bytes()..]);
        let end = self.map.check(Form::Hot, records_bytes)?;
        if end != records_bytes {
            return Err(FormatError::RecordsEnd { end, records_bytes });
        }
        if slack != [0; SLACK_BYTES] {
            return Err(FormatError::Slack);
        }
        Ok(())
    }

    fn records_bytes(&self) -> usize {
        self.records.len() - SLACK_BYTES
    }

    /// The chunk's header.
    #[must_use]
    pub fn header(&self) -> ChunkHeader {
        self.header
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.encoded
    }

    /// The checksum stored in the header. Once verified, it identifies the content, so a manifest can say which chunk it means.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        stored_checksum(self.encoded)
    }

    /// Number of pages, 1 to 512.
    #[must_use]
    pub fn page_count(&self) -> usize {
        self.header.page_count()
    }

    /// The pages of this chunk, in order.
    pub fn page_indices(&self) -> impl ExactSizeIterator<Item = PageIndex> + use<> {
        PageIndex::first(self.page_count())
    }

    /// The kind of a page; `None` if the chunk ends before it.
    #[must_use]
    pub fn kind(&self, page: PageIndex) -> Option<PageKind> {
        self.map.kind(page)
    }

    /// The kind of a page and its record, followed by at least [`SLACK_BYTES`] readable bytes.
    ///
    /// # Errors
    /// [`FormatError::Page`] if the chunk ends before the page; no other error in a chunk that was verified.
    #[inline]
    pub(crate) fn record(&self, page: PageIndex) -> Result<(PageKind, Record<'a>), FormatError> {
        let (kind, place) = self.map.record(Form::Hot, page, self.records_bytes())?;
        Ok((kind, Record { with_slack: &self.records[place.start..place.end + SLACK_BYTES] }))
    }

    /// The marker of a page, to be kept in another chunk by [`ChunkInput::with_kept`](super::ChunkInput::with_kept).
    ///
    /// # Errors
    /// [`FormatError::Page`] if the chunk ends before the page; no other error in a chunk that was verified.
    pub fn marker(&self, page: PageIndex) -> Result<KeptRecord<'a>, FormatError> {
        self.record(page).map(|(kind, record)| KeptRecord { kind, record: record.bytes() })
    }

    /// The dictionary, most frequent vector first.
    pub(crate) fn dictionary(&self) -> &'a [[u8; DICTIONARY_ENTRY_BYTES]] {
        self.dictionary
    }
}

/// One page's record, with readable bytes after it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Record<'a> {
    with_slack: &'a [u8],
}

impl<'a> Record<'a> {
    /// The bytes of the record alone.
    pub(crate) fn bytes(self) -> &'a [u8] {
        &self.with_slack[..self.with_slack.len() - SLACK_BYTES]
    }

    /// The record and [`SLACK_BYTES`] more bytes, which may have any value.
    pub(crate) fn with_slack(self) -> &'a [u8] {
        self.with_slack
    }
}
