//! A cold chunk whose every byte and bound has been checked.

use crate::chunk::{PAGE_BYTES, PageIndex, PageKind, VECTOR_BYTES, chunk_checksum};
use crate::hot::ChunkStats;

use super::Error;
use super::group::{GROUP_END_BYTES, GROUP_PAGES, Group};
use super::header::ColdHeader;
use super::map::{MAP_ENTRY_BYTES, MapEntry};

/// A cold chunk: the only way from its bytes to pages.
///
/// A value exists only if the checksum fitted and the header, every map entry, every record's length and every group's bounds
/// and frame header are as FORMAT.md says. It borrows the bytes, so they cannot change under it.
#[derive(Clone, Copy, Debug)]
pub struct VerifiedColdChunk<'a> {
    encoded: &'a [u8],
    header: ColdHeader,
    map: &'a [[u8; MAP_ENTRY_BYTES]],
    group_ends: &'a [[u8; GROUP_END_BYTES]],
    records: &'a [u8],
    groups: &'a [u8],
}

/// What a page's marker says, with its record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Marker<'a> {
    Untouched,
    Zero,
    Fill(&'a [u8; VECTOR_BYTES]),
    Dup(&'a [u8; VECTOR_BYTES]),
    Parent,
    Patch(&'a [u8]),
    /// The `rank`-th unique page of the chunk.
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
    /// Checks a cold chunk: the checksum before anything else is believed, then every bound.
    ///
    /// # Errors
    /// The first thing found that is not as FORMAT.md says.
    pub fn verify(encoded: &'a [u8]) -> Result<Self, Error> {
        let header = ColdHeader::read(encoded)?;
        let (seed, rest) = encoded.split_first_chunk().expect("a header was read");
        let (stored, hashed) = rest.split_first_chunk().expect("a header was read");
        let (stored, computed) = (u64::from_le_bytes(*stored), chunk_checksum(*seed, hashed));
        if stored != computed {
            return Err(Error::Checksum { stored, computed });
        }
        let (front, groups) = encoded.split_at(header.groups_at());
        let (front, records) = front.split_at(header.records_at());
        let (front, group_ends) = front.split_at(header.table_at());
        let (map, group_ends) = (front[header.map_at()..].as_chunks().0, group_ends.as_chunks().0);
        let chunk = Self { encoded, header, map, group_ends, records, groups };
        chunk.check_map()?;
        chunk.check_groups()?;
        Ok(chunk)
    }

    fn check_map(&self) -> Result<(), Error> {
        let (mut records_bytes, mut unique_pages) = (0, 0);
        for (page, &entry) in self.page_indices().zip(self.map) {
            let entry = MapEntry::from_bytes(entry).map_err(|kind| Error::Kind { page, kind })?;
            let MapEntry { kind, record_bytes } = entry;
            if !entry.is_allowed() {
                return Err(Error::Record { page, kind, record_bytes });
            }
            records_bytes += record_bytes;
            unique_pages += usize::from(kind == PageKind::Raw);
        }
        if records_bytes != self.records.len() || unique_pages != self.header.unique_pages() {
            return Err(Error::Map {
                records_bytes,
                header_records_bytes: self.records.len(),
                unique_pages,
                header_unique_pages: self.header.unique_pages(),
            });
        }
        Ok(())
    }

    fn check_groups(&self) -> Result<(), Error> {
        let groups_bytes = self.groups.len();
        let mut start = 0;
        for number in 0..self.header.groups() {
            let end = self.group_end(number);
            let wrong = Error::GroupBounds { group: number, start, end, groups_bytes };
            let coded = self.groups.get(start..end).ok_or(wrong)?;
            let group = Group { number, coded, page_bytes: self.group_page_bytes(number) };
            if !group.is_well_formed() {
                return Err(Error::GroupFrame {
                    group: number,
                    coded_bytes: coded.len(),
                    page_bytes: group.page_bytes,
                });
            }
            start = end;
        }
        if start != groups_bytes {
            return Err(Error::GroupsEnd { end: start, groups_bytes });
        }
        Ok(())
    }

    fn group_end(&self, number: usize) -> usize {
        u32::from_le_bytes(self.group_ends[number]) as usize
    }

    fn group_page_bytes(&self, number: usize) -> usize {
        (self.header.unique_pages() - number * GROUP_PAGES).min(GROUP_PAGES) * PAGE_BYTES
    }

    /// The header.
    #[must_use]
    pub fn header(&self) -> ColdHeader {
        self.header
    }

    /// What it is made of. The bytes of RAW pages are those of the groups, and of the table that finds these.
    #[must_use]
    pub fn stats(&self) -> ChunkStats {
        let mut stats = ChunkStats::default();
        stats.page_bytes = (self.page_count() * PAGE_BYTES) as u64;
        stats.encoded_bytes = self.encoded.len() as u64;
        for (_, marker) in self.markers() {
            stats.count_pages(marker.kind(), 1, marker.record().len() as u64);
        }
        let table_bytes = self.header.records_at() - self.header.table_at();
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

    /// The kind of a page, RAW if it is kept in a group; `None` if the chunk ends before it.
    #[must_use]
    pub fn kind(&self, page: PageIndex) -> Option<PageKind> {
        self.map.get(page.get()).map(|&entry| entry_of(entry).kind)
    }

    /// Every page's marker, in order.
    pub(super) fn markers(&self) -> impl Iterator<Item = (PageIndex, Marker<'a>)> + use<'a> {
        let mut rest = self.records;
        let mut ranks = 0..;
        self.page_indices().zip(self.map).map(move |(page, &entry)| {
            let MapEntry { kind, record_bytes } = entry_of(entry);
            let (record, after) = rest.split_at(record_bytes);
            rest = after;
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

    /// One group.
    pub(super) fn group(&self, number: usize) -> Group<'a> {
        let start = number.checked_sub(1).map_or(0, |before| self.group_end(before));
        let coded = &self.groups[start..self.group_end(number)];
        Group { number, coded, page_bytes: self.group_page_bytes(number) }
    }
}

fn entry_of(entry: [u8; MAP_ENTRY_BYTES]) -> MapEntry {
    MapEntry::from_bytes(entry).expect("verify has read every entry")
}
