//! The header of an encoded chunk: 24 bytes that describe what follows, readable without decoding anything.
//!
//! ```text
//! byte  0  4  magic          "BMC1", or "BMZ1" for the cold form
//!       4  2  version        2
//!       6  2  page_count     1..=512
//!       8  8  checksum       XXH3-64 of bytes 16.., seeded with bytes 0..8
//!      16  4  encoded_bytes  header to last byte, all of it
//!      20  2  entries        hot: entries of the dictionary, 0..=4096; cold: unique pages, 0..=page_count
//!      22  2  reserved       0
//! ```
//!
//! Numbers are little-endian. Magic and version come first, so that foreign bytes are recognized before anything is measured; the
//! checksum comes before the lengths, so that everything it covers beyond its seed is one run.

use super::{
    CHECKSUM_AT, CHUNK_PAGES, Form, FormatError, HEADER_BYTES, MAP_ENTRY_BYTES, PageMap, VERSION, checksum,
};

/// The fields of a header, with their ranges checked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkHeader {
    form: Form,
    page_count: u16,
    entries: u16,
    encoded_bytes: u32,
}

impl ChunkHeader {
    /// A header for a chunk with these parts.
    ///
    /// # Panics
    /// If a part is larger than the format allows.
    pub(crate) fn new(form: Form, page_count: usize, entries: usize, encoded_bytes: usize) -> Self {
        assert!((1..=CHUNK_PAGES).contains(&page_count), "{page_count} pages");
        assert!(entries <= form.entries_max(page_count), "{entries} {}", form.entries_name());
        assert!(encoded_bytes <= form.encoded_bytes_max(), "{encoded_bytes} bytes");
        Self {
            form,
            page_count: u16::try_from(page_count).expect("at most 512"),
            entries: u16::try_from(entries).expect("at most 4096"),
            encoded_bytes: u32::try_from(encoded_bytes).expect("a chunk has less than 4 GiB"),
        }
    }

    /// Number of pages in the chunk, 1 to 512.
    #[must_use]
    pub fn page_count(self) -> usize {
        usize::from(self.page_count)
    }

    /// Number of entries in the table after the page map. The hot form's table is its dictionary. The cold form's lists the groups,
    /// and this is the number of unique pages in them.
    #[must_use]
    pub fn entries(self) -> usize {
        usize::from(self.entries)
    }

    /// Length of the whole chunk in bytes, the header included.
    #[must_use]
    pub fn encoded_bytes(self) -> usize {
        self.encoded_bytes as usize
    }

    /// Byte at which the table starts, after header and page map.
    pub(crate) fn table_at(self) -> usize {
        HEADER_BYTES + self.page_count() * MAP_ENTRY_BYTES
    }

    /// Byte at which the first record starts, after the table.
    pub(crate) fn records_at(self) -> usize {
        self.table_at() + self.form.table_bytes(self.entries())
    }

    /// Writes the header to the first bytes of `encoded`, with a checksum of zero.
    ///
    /// # Panics
    /// If `encoded` is shorter than a header.
    pub(crate) fn write(self, encoded: &mut [u8]) {
        let Self { form, page_count, entries, encoded_bytes } = self;
        let bytes = encoded.first_chunk_mut::<HEADER_BYTES>().expect("room for a header");
        bytes.fill(0);
        bytes[0..4].copy_from_slice(&form.magic());
        bytes[4..6].copy_from_slice(&VERSION.to_le_bytes());
        bytes[6..8].copy_from_slice(&page_count.to_le_bytes());
        bytes[16..20].copy_from_slice(&encoded_bytes.to_le_bytes());
        bytes[20..22].copy_from_slice(&entries.to_le_bytes());
    }

    /// Reads the header of `encoded` and checks every field except the checksum. Map and table are then known to lie in `encoded`.
    pub(crate) fn read(form: Form, encoded: &[u8]) -> Result<Self, FormatError> {
        let actual_bytes = encoded.len();
        let head: &[u8; HEADER_BYTES] = encoded.first_chunk().ok_or(FormatError::Length {
            form,
            expected_bytes: HEADER_BYTES,
            actual_bytes,
        })?;
        let u16_at = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
        let found = [head[0], head[1], head[2], head[3]];
        if found != form.magic() {
            return Err(FormatError::Magic { form, found });
        }
        if u16_at(4) != VERSION {
            return Err(FormatError::Version { form, found: u16_at(4) });
        }
        let header = Self {
            form,
            page_count: u16_at(6),
            entries: u16_at(20),
            encoded_bytes: u32::from_le_bytes([head[16], head[17], head[18], head[19]]),
        };
        field("page_count", header.page_count.into(), 1, CHUNK_PAGES)?;
        field(form.entries_name(), header.entries.into(), 0, form.entries_max(header.page_count()))?;
        field("reserved", u16_at(22).into(), 0, 0)?;
        let least_bytes = header.records_at() + form.trailer_bytes();
        let expected_bytes = header.encoded_bytes().max(least_bytes);
        if actual_bytes != expected_bytes {
            return Err(FormatError::Length { form, expected_bytes, actual_bytes });
        }
        let least_bytes = u32::try_from(least_bytes).expect("chunks are small");
        field("encoded_bytes", header.encoded_bytes, least_bytes, form.encoded_bytes_max())?;
        Ok(header)
    }

    /// Takes the chunk that this header belongs to apart: page map, table, and the rest.
    pub(crate) fn parts(self, encoded: &[u8]) -> (PageMap<'_>, &[u8], &[u8]) {
        let (front, rest) = encoded.split_at(self.records_at());
        let (map, table) = front[HEADER_BYTES..].split_at(self.table_at() - HEADER_BYTES);
        (PageMap::new(map), table, rest)
    }
}

fn field(field: &'static str, value: u32, min: u32, max: usize) -> Result<(), FormatError> {
    let max = u32::try_from(max).expect("limits of fields are small");
    if (min..=max).contains(&value) { Ok(()) } else { Err(FormatError::Field { field, value, min, max }) }
}

/// The checksum in the header of a chunk of either form. Once the chunk is verified, it identifies the content.
///
/// # Panics
/// If `encoded` is shorter than a header.
#[must_use]
pub fn stored_checksum(encoded: &[u8]) -> u64 {
    u64::from_le_bytes(*encoded[CHECKSUM_AT..].first_chunk().expect("a header is longer"))
}

/// Checks that the checksum in the header matches the bytes.
///
/// # Panics
/// If `encoded` is shorter than a header.
pub(crate) fn check_checksum(encoded: &[u8]) -> Result<(), FormatError> {
    let (stored, computed) = (stored_checksum(encoded), checksum::of_chunk(encoded));
    if stored == computed { Ok(()) } else { Err(FormatError::Checksum { stored, computed }) }
}
