//! The header of a cold chunk: 28 bytes that say where every part is.
//!
//! ```text
//! byte  0  4  magic          "BMZ1"
//!       4  2  version        1
//!       6  2  page_count     1..=512
//!       8  8  checksum       XXH3-64 of bytes 16.., seeded with bytes 0..8
//!      16  4  encoded_bytes  header to last group, all of it
//!      20  4  records_bytes  of all records together
//!      24  2  unique_pages   0..=page_count
//!      26  2  reserved       0
//! ```
//!
//! Numbers are little-endian. Magic, version and checksum are where the hot form has them, for the same reasons.

use crate::chunk::{CHUNK_PAGES, PAGE_BYTES};

use super::group::{GROUP_END_BYTES, GROUP_PAGES};
use super::{COLD_BYTES_MAX, Error, MAP_ENTRY_BYTES};

/// The first bytes of every cold chunk.
pub const MAGIC: [u8; 4] = *b"BMZ1";
/// The version this build writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 28;

/// The fields of a header whose ranges have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdHeader {
    page_count: u16,
    unique_pages: u16,
    records_bytes: u32,
    encoded_bytes: u32,
}

impl ColdHeader {
    /// A header for a chunk with these parts.
    ///
    /// # Panics
    /// If a part is larger than the format allows.
    pub(super) fn new(page_count: usize, unique_pages: usize) -> Self {
        assert!((1..=CHUNK_PAGES).contains(&page_count), "{page_count} pages");
        assert!(unique_pages <= page_count, "{unique_pages} unique pages of {page_count}");
        Self {
            page_count: u16::try_from(page_count).expect("at most 512"),
            unique_pages: u16::try_from(unique_pages).expect("at most 512"),
            records_bytes: 0,
            encoded_bytes: 0,
        }
    }

    /// The header once the lengths are known.
    ///
    /// # Panics
    /// If a length is larger than the format allows.
    pub(super) fn with_lengths(self, records_bytes: usize, encoded_bytes: usize) -> Self {
        assert!(records_bytes < encoded_bytes, "{records_bytes} bytes of records in {encoded_bytes}");
        assert!(encoded_bytes <= COLD_BYTES_MAX, "{encoded_bytes} bytes");
        Self {
            records_bytes: u32::try_from(records_bytes).expect("less than COLD_BYTES_MAX"),
            encoded_bytes: u32::try_from(encoded_bytes).expect("at most COLD_BYTES_MAX"),
            ..self
        }
    }

    /// Pages of the chunk.
    #[must_use]
    pub fn page_count(self) -> usize {
        usize::from(self.page_count)
    }

    /// Pages kept in groups.
    #[must_use]
    pub fn unique_pages(self) -> usize {
        usize::from(self.unique_pages)
    }

    /// Groups, all but the last of [`GROUP_PAGES`] pages.
    #[must_use]
    pub fn groups(self) -> usize {
        self.unique_pages().div_ceil(GROUP_PAGES)
    }

    /// Bytes from the first of the header to the last of the last group.
    #[must_use]
    pub fn encoded_bytes(self) -> usize {
        self.encoded_bytes as usize
    }

    /// Where the page map starts.
    #[expect(clippy::unused_self, reason = "one of four: where each part starts")]
    pub(super) fn map_at(self) -> usize {
        HEADER_BYTES
    }

    /// Where the group table starts.
    pub(super) fn table_at(self) -> usize {
        self.map_at() + self.page_count() * MAP_ENTRY_BYTES
    }

    /// Where the first record starts.
    pub(super) fn records_at(self) -> usize {
        self.table_at() + self.groups() * GROUP_END_BYTES
    }

    /// Where the last record ends and the first group starts.
    pub(super) fn groups_at(self) -> usize {
        self.records_at() + self.records_bytes as usize
    }

    /// Writes the header to the first bytes of `encoded`, its checksum still zero.
    ///
    /// # Panics
    /// If `encoded` is shorter than a header.
    pub(super) fn write(self, encoded: &mut [u8]) {
        let Self { page_count, unique_pages, records_bytes, encoded_bytes } = self;
        let bytes = encoded.first_chunk_mut::<HEADER_BYTES>().expect("room for a header");
        bytes.fill(0);
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&page_count.to_le_bytes());
        bytes[16..20].copy_from_slice(&encoded_bytes.to_le_bytes());
        bytes[20..24].copy_from_slice(&records_bytes.to_le_bytes());
        bytes[24..26].copy_from_slice(&unique_pages.to_le_bytes());
    }

    /// Reads the header of `encoded` and checks every field except the checksum. All parts then lie inside `encoded`.
    pub(super) fn read(encoded: &[u8]) -> Result<Self, Error> {
        let actual_bytes = encoded.len();
        let head: &[u8; HEADER_BYTES] =
            encoded.first_chunk().ok_or(Error::Length { expected_bytes: HEADER_BYTES, actual_bytes })?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
        let found = [head[0], head[1], head[2], head[3]];
        if found != MAGIC {
            return Err(Error::Magic { found });
        }
        if u16_at(4) != VERSION {
            return Err(Error::Version { found: u16_at(4) });
        }
        let page_count = u16_at(6);
        field("page_count", page_count.into(), 1, CHUNK_PAGES)?;
        let header = Self {
            page_count,
            unique_pages: u16_at(24),
            records_bytes: u32_at(20),
            encoded_bytes: u32_at(16),
        };
        field("unique_pages", header.unique_pages.into(), 0, header.page_count())?;
        field("records_bytes", header.records_bytes, 0, header.page_count() * PAGE_BYTES)?;
        field("reserved", u16_at(26).into(), 0, 0)?;
        let least_bytes = header.groups_at();
        let expected_bytes = header.encoded_bytes().max(least_bytes);
        if actual_bytes != expected_bytes {
            return Err(Error::Length { expected_bytes, actual_bytes });
        }
        let least_bytes = u32::try_from(least_bytes).expect("chunks are small");
        field("encoded_bytes", header.encoded_bytes, least_bytes, COLD_BYTES_MAX)?;
        Ok(header)
    }
}

fn field(field: &'static str, value: u32, min: u32, max: usize) -> Result<(), Error> {
    let max = u32::try_from(max).expect("limits of fields are small");
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Field { field, value, min, max }) }
}
