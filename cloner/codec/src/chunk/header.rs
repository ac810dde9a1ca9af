//! The chunk header: 24 bytes that say what follows, readable without decoding anything.
//!
//! ```text
//! byte  0  4  magic                "BMC1"
//!       4  2  version              1
//!       6  2  page_count           1..=512
//!       8  8  checksum             XXH3-64 of bytes 16.., seeded with bytes 0..8
//!      16  4  encoded_bytes        header to slack, all of it
//!      20  2  dictionary_entries   0..=4096
//!      22  2  reserved             0
//! ```
//!
//! Numbers are little-endian. Magic and version come first so that foreign bytes are named before they are measured; the
//! checksum comes before the lengths so that everything it covers beyond its seed is one run.

use super::map::MAP_ENTRY_BYTES;
use super::{CHUNK_PAGES, DICTIONARY_ENTRY_BYTES, DICTIONARY_MAX, ENCODED_BYTES_MAX, Error, SLACK_BYTES};

/// The first bytes of every encoded chunk.
pub const MAGIC: [u8; 4] = *b"BMC1";
/// The version this build writes, and the only one it reads.
pub const VERSION: u16 = 1;
/// Bytes of the header.
pub const HEADER_BYTES: usize = 24;

pub(crate) const CHECKSUM_AT: usize = 8;
pub(crate) const HASHED_FROM: usize = 16;

/// The fields of a header whose ranges have been checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    page_count: u16,
    dictionary_entries: u16,
    encoded_bytes: u32,
}

impl ChunkHeader {
    /// A header for a chunk with these parts.
    ///
    /// # Panics
    /// If a part is larger than the format allows.
    pub(crate) fn new(page_count: usize, dictionary_entries: usize, encoded_bytes: usize) -> Self {
        assert!((1..=CHUNK_PAGES).contains(&page_count), "{page_count} pages");
        assert!(dictionary_entries <= DICTIONARY_MAX, "{dictionary_entries} dictionary entries");
        assert!(encoded_bytes <= ENCODED_BYTES_MAX, "{encoded_bytes} bytes");
        Self {
            page_count: u16::try_from(page_count).expect("at most 512"),
            dictionary_entries: u16::try_from(dictionary_entries).expect("at most 4096"),
            encoded_bytes: u32::try_from(encoded_bytes).expect("at most ENCODED_BYTES_MAX"),
        }
    }

    /// Pages of the chunk.
    #[must_use]
    pub fn page_count(self) -> usize {
        usize::from(self.page_count)
    }

    /// Entries of the dictionary.
    #[must_use]
    pub fn dictionary_entries(self) -> usize {
        usize::from(self.dictionary_entries)
    }

    /// Bytes from the first of the header to the last of the slack.
    #[must_use]
    pub fn encoded_bytes(self) -> usize {
        self.encoded_bytes as usize
    }

    /// Where the page map starts.
    #[expect(clippy::unused_self, reason = "one of four: where each part starts")]
    pub(crate) fn map_at(self) -> usize {
        HEADER_BYTES
    }

    /// Where the dictionary starts.
    pub(crate) fn dictionary_at(self) -> usize {
        self.map_at() + self.page_count() * MAP_ENTRY_BYTES
    }

    /// Where the first record starts.
    pub(crate) fn records_at(self) -> usize {
        self.dictionary_at() + self.dictionary_entries() * DICTIONARY_ENTRY_BYTES
    }

    /// Where the slack starts and the last record ends.
    pub(crate) fn slack_at(self) -> usize {
        self.encoded_bytes() - SLACK_BYTES
    }

    /// Writes the header to the first bytes of `encoded`, its checksum still zero.
    ///
    /// # Panics
    /// If `encoded` is shorter than a header.
    pub(crate) fn write(self, encoded: &mut [u8]) {
        let Self { page_count, dictionary_entries, encoded_bytes } = self;
        let bytes = encoded.first_chunk_mut::<HEADER_BYTES>().expect("room for a header");
        bytes.fill(0);
        bytes[0..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&page_count.to_le_bytes());
        bytes[16..20].copy_from_slice(&encoded_bytes.to_le_bytes());
        bytes[20..22].copy_from_slice(&dictionary_entries.to_le_bytes());
    }

    /// Reads the header of `encoded` and checks every field except the checksum.
    pub(crate) fn read(encoded: &[u8]) -> Result<Self, Error> {
        let actual_bytes = encoded.len();
        let head: &[u8; HEADER_BYTES] =
            encoded.first_chunk().ok_or(Error::Length { expected_bytes: HEADER_BYTES, actual_bytes })?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let found = [head[0], head[1], head[2], head[3]];
        if found != MAGIC {
            return Err(Error::Magic { found });
        }
        if u16_at(4) != VERSION {
            return Err(Error::Version { found: u16_at(4) });
        }
        let header = Self {
            page_count: u16_at(6),
            dictionary_entries: u16_at(20),
            encoded_bytes: u32::from_le_bytes([head[16], head[17], head[18], head[19]]),
        };
        field("page_count", header.page_count.into(), 1, CHUNK_PAGES)?;
        field("dictionary_entries", header.dictionary_entries.into(), 0, DICTIONARY_MAX)?;
        field("reserved", u16_at(22).into(), 0, 0)?;
        let least_bytes = header.records_at() + SLACK_BYTES;
        let expected_bytes = header.encoded_bytes().max(least_bytes);
        if actual_bytes != expected_bytes {
            return Err(Error::Length { expected_bytes, actual_bytes });
        }
        let least_bytes = u32::try_from(least_bytes).expect("chunks are small");
        field("encoded_bytes", header.encoded_bytes, least_bytes, ENCODED_BYTES_MAX)?;
        Ok(header)
    }
}

fn field(field: &'static str, value: u32, min: u32, max: usize) -> Result<(), Error> {
    let max = u32::try_from(max).expect("limits of fields are small");
    if (min..=max).contains(&value) { Ok(()) } else { Err(Error::Field { field, value, min, max }) }
}
