//! A cold chunk, every byte and bound of which has been checked.

use crate::chunk::{
    ChunkHeader, Form, FormatError, GROUP_END_BYTES, GROUP_PAGES, PAGE_BYTES, PageIndex, PageKind, PageMap,
    VECTOR_BYTES, check_checksum,
};
use crate::hot::ChunkStats;

use super::group::Group;

/// A checked cold chunk: the only way from its bytes to pages.
///
/// A value exists only if the checksum matched and the header, every map entry, every record's length and every group's bounds
/// and frame header are as FORMAT.md says. It borrows the bytes, so they cannot change meanwhile.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedColdChunk<'a> {
    encoded: &'a [u8],
    header: ChunkHeader,
    map: PageMap<'a>,
    group_ends: &'a [[u8; GROUP_END_BYTES]],
    records: &'a [u8],
    groups: &'a [u8],
}

/// The meaning of a page's marker, with its record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Marker<'a> {
    Untouched,
    Zero,
    Fill(&'a [u8; VECTOR_BYTES]),
    Dup(&'a [u8; VECTOR_BYTES]),
    Parent,
    Patch(&'a [u8]),
    /// A page kept in a group: the `rank`-th unique page of the chunk.
    Unique {
        rank: usize,
    },
}

impl<'a> Marker<'a> {
    pub(super) fn kind(self) -> PageKind {
        match self {
            Self::Untouched => PageKind::Untouched,
            Self::Zero => PageKind::Zero,
            Self::Fill(_) => PageKind::Fill,
            Self::Dup(_) => PageKind::Dup,
            Self::Parent => PageKind::Parent,
            Self::Patch(_) => PageKind::Patch,
            Self::Unique { .. } => PageKind::Raw,
        }
    }

    pub(super) fn record(self) -> &'a [u8] {
        match self {
            Self::Fill(record) | Self::Dup(record) => record,
            Self::Patch(record) => record,
            Self::Untouched | Self::Zero | Self::Parent | Self::Unique { .. } => &[],
        }
    }
}

impl<'a> VerifiedColdChunk<'a> {
    /// Checks a cold chunk: the checksum before anything else is trusted, then every bound.
    ///
    /// # Errors
    /// The first thing found that is not as FORMAT.md says: the header, the checksum, a map entry, a record, the number of
    /// unique pages or a group.
    pub fn verify(encoded: &'a [u8]) -> Result<Self, FormatError> {
        let header = ChunkHeader::read(Form::Cold, encoded)?;
        check_checksum(encoded)?;
        let (map, group_ends, rest) = header.parts(encoded);
        let (records, groups) = rest.split_at(map.check(Form::Cold, rest.len())?);
        let chunk = Self { encoded, header, map, group_ends: group_ends.as_chunks().0, records, groups };
        chunk.check_unique_pages()?;
        chunk.check_groups()?;
        Ok(chunk)
    }

    fn check_unique_pages(&self) -> Result<(), FormatError> {
        let header_unique_pages = self.unique_pages();
        let unique_pages = self.page_indices().filter(|&page| self.kind(page) == Some(PageKind::Raw)).count();
        if unique_pages != header_unique_pages {
            return Err(FormatError::UniquePages { unique_pages, header_unique_pages });
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), FormatError> {
        let groups_bytes = self.groups.len();
        let mut start = 0;
        for number in 0..self.groups() {
            let end = self.group_end(number);
            let wrong = FormatError::GroupBounds { group: number, start, end, groups_bytes };
            let coded = self.groups.get(start..end).ok_or(wrong)?;
            let group = Group { number, coded, page_bytes: self.group_page_bytes(number) };
            if !group.is_well_formed() {
                return Err(FormatError::GroupFrame {
                    group: number,
                    coded_bytes: coded.len(),
                    page_bytes: group.page_bytes,
                });
            }
            start = end;
        }
        if start != groups_bytes {
            return Err(FormatError::GroupsEnd { end: start, groups_bytes });
        }
        Ok(())
    }

    fn group_end(&self, number: usize) -> usize {
        u32::from_le_bytes(self.group_ends[number]) as usize
    }

    fn group_page_bytes(&self, number: usize) -> usize {
        (self.unique_pages() - number * GROUP_PAGES).min(GROUP_PAGES) * PAGE_BYTES
    }

    /// Number of pages kept in groups.
    #[must_use]
    pub fn unique_pages(&self) -> usize {
        self.header.entries()
    }

    /// Number of groups. All but the last hold [`GROUP_PAGES`] pages.
    #[must_use]
    pub fn groups(&self) -> usize {
        self.group_ends.len()
    }

    /// Counts what the chunk consists of. The bytes of RAW pages are those of the groups and of the table that locates them.
    #[must_use]
    pub fn stats(&self) -> ChunkStats {
        let mut stats = ChunkStats::default();
        stats.page_bytes = (self.page_count() * PAGE_BYTES) as u64;
        stats.encoded_bytes = self.encoded.len() as u64;
        for (_, marker) in self.markers() {
            stats.count_pages(marker.kind(), 1, marker.record().len() as u64);
        }
        let table_bytes = self.group_ends.len() * GROUP_END_BYTES;
        stats.count_pages(PageKind::Raw, 0, (table_bytes + self.groups.len()) as u64);
        stats
    }

    /// The encoded bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.encoded
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

    /// The kind of a page, RAW if it is kept in a group; `None` if the chunk ends before the page.
    #[must_use]
    pub fn kind(&self, page: PageIndex) -> Option<PageKind> {
        self.map.kind(page)
    }

    /// Every page's marker, in order.
    pub(super) fn markers(&self) -> impl Iterator<Item = (PageIndex, Marker<'a>)> + use<'a> {
        let (map, records) = (self.map, self.records);
        let mut ranks = 0..;
        self.page_indices().map(move |page| {
            let (kind, place) =
                map.record(Form::Cold, page, records.len()).expect("verify has checked every entry");
            let record = &records[place];
            let vector = || record.try_into().expect("verify allowed this record eight bytes");
            let marker = match kind {
                PageKind::Untouched => Marker::Untouched,
                PageKind::Zero => Marker::Zero,
                PageKind::Fill => Marker::Fill(vector()),
                PageKind::Dup => Marker::Dup(vector()),
                PageKind::Parent => Marker::Parent,
                PageKind::Patch => Marker::Patch(record),
                _ => Marker::Unique { rank: ranks.next().expect("it counts for ever") },
            };
            (page, marker)
        })
    }

    /// The group with this number.
    pub(super) fn group(&self, number: usize) -> Group<'a> {
        let start = number.checked_sub(1).map_or(0, |before| self.group_end(before));
        let coded = &self.groups[start..self.group_end(number)];
        Group { number, coded, page_bytes: self.group_page_bytes(number) }
    }
}
