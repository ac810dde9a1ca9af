//! An encoded chunk whose every byte and bound has been checked.

use crate::chunk::{
    CHECKSUM_AT, ChunkHeader, DICTIONARY_ENTRY_BYTES, Error, HASHED_FROM, MAP_ENTRY_BYTES, MapEntry,
    PageIndex, PageKind, SLACK_BYTES, chunk_checksum,
};

use super::KeptRecord;

/// An encoded chunk: the only way from bytes to pages.
///
/// A value exists only if the checksum fitted and the header, every map entry, every record's bounds and the slack are as
/// FORMAT.md says. It borrows the bytes, so they cannot change under it.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedChunk<'a> {
    encoded: &'a [u8],
    header: ChunkHeader,
    map: &'a [[u8; MAP_ENTRY_BYTES]],
    dictionary: &'a [[u8; DICTIONARY_ENTRY_BYTES]],
    /// The records and the slack after them.
    records: &'a [u8],
}

impl<'a> VerifiedChunk<'a> {
    /// Checks an encoded chunk: the checksum before anything else is believed, then every bound.
    ///
    /// # Errors
    /// The first thing found that is not as FORMAT.md says.
    pub fn verify(encoded: &'a [u8]) -> Result<Self, Error> {
        let chunk = Self::reopen(encoded)?;
        let (seed, rest) = encoded.split_first_chunk::<CHECKSUM_AT>().expect("reopen found a whole header");
        let (stored, hashed) = rest.split_first_chunk().expect("reopen found a whole header");
        debug_assert_eq!(hashed.len(), encoded.len() - HASHED_FROM);
        let stored = u64::from_le_bytes(*stored);
        let computed = chunk_checksum(*seed, hashed);
        if stored != computed {
            return Err(Error::Checksum { stored, computed });
        }
        chunk.check_map()?;
        Ok(chunk)
    }

    /// Opens a chunk that this process has verified, and that cannot have changed since: only the header is read again.
    ///
    /// For a pool that verifies chunks as they come in and then serves single pages. On bytes that were never verified,
    /// decoding stays in bounds and returns errors, but may return wrong bytes.
    ///
    /// # Errors
    /// What is wrong with the header.
    pub fn reopen(encoded: &'a [u8]) -> Result<Self, Error> {
        let header = ChunkHeader::read(encoded)?;
        let (front, records) = encoded.split_at(header.records_at());
        let (map, dictionary) = front[header.map_at()..].split_at(header.dictionary_at() - header.map_at());
        Ok(Self { encoded, header, map: map.as_chunks().0, dictionary: dictionary.as_chunks().0, records })
    }

    fn check_map(&self) -> Result<(), Error> {
        let records_bytes = self.header.slack_at() - self.header.records_at();
        let mut start = 0;
        for page in self.page_indices() {
            let MapEntry { kind, end } = self.entry(page)?;
            let end = end as usize;
            if end < start || end > records_bytes || !kind.allows_record_of(end - start) {
                return Err(Error::Record { page, kind, start, end, records_bytes });
            }
            start = end;
        }
        if start != records_bytes {
            return Err(Error::RecordsEnd { end: start, records_bytes });
        }
        if self.encoded[self.header.slack_at()..] != [0; SLACK_BYTES] {
            return Err(Error::Slack);
        }
        Ok(())
    }

    fn entry(&self, page: PageIndex) -> Result<MapEntry, Error> {
        MapEntry::from_bytes(self.map[page.get()]).map_err(|kind| Error::Kind { page, kind })
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> ChunkHeader {
        self.header
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.encoded
    }

    /// The checksum stored in the header. Once verified, it names the content: a manifest can say which chunk it means.
    #[must_use]
    pub fn checksum(&self) -> u64 {
        let field = self.encoded[CHECKSUM_AT..].first_chunk().expect("reopen found a whole header");
        u64::from_le_bytes(*field)
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
        self.map.get(page.get()).and_then(|&bytes| MapEntry::from_bytes(bytes).ok()).map(|entry| entry.kind)
    }

    /// The kind of a page and its record, followed by at least [`SLACK_BYTES`] readable bytes.
    ///
    /// # Errors
    /// [`Error::Field`] if the chunk ends before the page; nothing else in a chunk that was verified.
    pub(crate) fn record(&self, page: PageIndex) -> Result<(PageKind, Record<'a>), Error> {
        if page.get() >= self.page_count() {
            let max = u32::try_from(self.page_count() - 1).expect("at most 511");
            let value = u32::try_from(page.get()).expect("at most 511");
            return Err(Error::Field { field: "page", value, min: 0, max });
        }
        let MapEntry { kind, end } = self.entry(page)?;
        let start = match page.get().checked_sub(1).and_then(PageIndex::new) {
            Some(before) => self.entry(before)?.end as usize,
            None => 0,
        };
        let end = end as usize;
        let records_bytes = self.records.len() - SLACK_BYTES;
        let wrong = Error::Record { page, kind, start, end, records_bytes };
        if end < start || !kind.allows_record_of(end - start) {
            return Err(wrong);
        }
        let with_slack = self.records.get(start..end + SLACK_BYTES).ok_or(wrong)?;
        Ok((kind, Record { with_slack }))
    }

    /// The marker of a page, to be kept in another chunk.
    ///
    /// # Errors
    /// [`Error::Field`] if the chunk ends before the page; nothing else in a chunk that was verified.
    pub fn marker(&self, page: PageIndex) -> Result<KeptRecord<'a>, Error> {
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
    /// The record.
    pub(crate) fn bytes(self) -> &'a [u8] {
        &self.with_slack[..self.with_slack.len() - SLACK_BYTES]
    }

    /// The record and [`SLACK_BYTES`] more bytes, whose value means nothing.
    pub(crate) fn with_slack(self) -> &'a [u8] {
        self.with_slack
    }
}
