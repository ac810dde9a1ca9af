//! The first block of a flushed file: which folder and snapshot it belongs to, and where its index lies.
//!
//! ```text
//! byte  0   8  magic         "CLNFLSH\0"
//!       8   4  version       1
//!      12   4  encrypted     0, or 1 if records and index are encrypted
//!      16  16  folder        the folder's own number
//!      32  16  snapshot      the snapshot's own number
//!      48  16  nonce         of the encrypted records; else 0
//!      64   8  index_at      where the index starts: the records lie between the header and there
//!      72   8  index_bytes   as stored
//!      80   8  file_bytes    of the whole file
//!      88   8  checksum      XXH3-64 of the block with this field 0
//!      96  ..  zero, to 4096
//! ```
//!
//! It is written last, and only then is the file made durable: a file with a valid header has everything that follows it. Numbers
//! are little-endian.

use twox_hash::XxHash3_64;

use super::encrypt::NONCE_BYTES;
use super::files::BLOCK_BYTES;

const MAGIC: [u8; 8] = *b"CLNFLSH\0";
const VERSION: u32 = 1;
const CHECKSUM_AT: usize = 88;
const USED_BYTES: usize = 96;

/// Length of the part of the header that every encrypted record is bound to.
pub(super) const IDENTITY_BYTES: usize = 64;
/// Length of the part of the header that the encrypted index is bound to.
pub(super) const BOUND_BYTES: usize = CHECKSUM_AT;

/// Why a block is not the header of a flushed file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The file is shorter than a header.
    #[error("{found} bytes are fewer than the {BLOCK_BYTES} of a header")]
    Short {
        /// Length of the file in bytes.
        found: u64,
    },
    /// The block does not begin with the magic number, so the file is something else.
    #[error("not a flushed snapshot: it starts with {found:02x?}")]
    Magic {
        /// The first bytes of the file.
        found: [u8; 8],
    },
    /// The file was made by another version of this program.
    #[error("format version {found}: this build reads version {VERSION}")]
    Version {
        /// Version that the header gives.
        found: u32,
    },
    /// The block was changed, or not all of it was written.
    #[error("header damaged: checksum {found:#018x}, expected {expected:#018x}")]
    Checksum {
        /// Checksum that the header gives.
        expected: u64,
        /// Checksum of the header's bytes.
        found: u64,
    },
    /// A field has a value that no writer gives it.
    #[error("header field {field} is {value}")]
    Field {
        /// Name of the field.
        field: &'static str,
        /// Value that the header gives it.
        value: u64,
    },
    /// The file is longer or shorter than its header says.
    #[error("the file has {found} bytes, but its header says {expected}")]
    Length {
        /// Length in bytes that the header gives.
        expected: u64,
        /// Length of the file in bytes.
        found: u64,
    },
}

/// The fields of a valid header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Header {
    /// `Some` if records and index are encrypted.
    pub(super) nonce: Option<[u8; NONCE_BYTES]>,
    pub(super) folder: u128,
    pub(super) snapshot: u128,
    pub(super) index_at: u64,
    pub(super) index_bytes: u64,
    pub(super) file_bytes: u64,
}

impl Header {
    /// The block with this header, checksum included.
    pub(super) fn to_block(self) -> [u8; BLOCK_BYTES] {
        let Self { nonce, folder, snapshot, index_at, index_bytes, file_bytes } = self;
        let mut block = [0; BLOCK_BYTES];
        let mut at = 0;
        let mut put = |bytes: &[u8]| {
            block[at..at + bytes.len()].copy_from_slice(bytes);
            at += bytes.len();
        };
        put(&MAGIC);
        put(&VERSION.to_le_bytes());
        put(&u32::from(nonce.is_some()).to_le_bytes());
        put(&folder.to_le_bytes());
        put(&snapshot.to_le_bytes());
        put(&nonce.unwrap_or_default());
        put(&index_at.to_le_bytes());
        put(&index_bytes.to_le_bytes());
        put(&file_bytes.to_le_bytes());
        let checksum = XxHash3_64::oneshot(&block);
        block[CHECKSUM_AT..USED_BYTES].copy_from_slice(&checksum.to_le_bytes());
        block
    }

    /// Reads the header of a file of `len_bytes` bytes that starts with `block`. All offsets and lengths in it then lie inside the
    /// file.
    pub(super) fn from_block(block: &[u8; BLOCK_BYTES], len_bytes: u64) -> Result<Self, HeaderError> {
        let u32_at = |at: usize| u32::from_le_bytes(*block[at..].first_chunk().expect("inside the block"));
        let u64_at = |at: usize| u64::from_le_bytes(*block[at..].first_chunk().expect("inside the block"));
        let u128_at = |at: usize| u128::from_le_bytes(*block[at..].first_chunk().expect("inside the block"));
        let found = *block.first_chunk().expect("inside the block");
        if found != MAGIC {
            return Err(HeaderError::Magic { found });
        }
        if u32_at(8) != VERSION {
            return Err(HeaderError::Version { found: u32_at(8) });
        }
        let mut unsummed = *block;
        unsummed[CHECKSUM_AT..USED_BYTES].fill(0);
        let (expected, found) = (u64_at(CHECKSUM_AT), XxHash3_64::oneshot(&unsummed));
        if expected != found {
            return Err(HeaderError::Checksum { expected, found });
        }
        let encrypted = match u32_at(12) {
            0 => false,
            1 => true,
            value => return Err(HeaderError::Field { field: "encrypted", value: value.into() }),
        };
        let header = Self {
            nonce: encrypted.then(|| u128_at(48).to_le_bytes()),
            folder: u128_at(16),
            snapshot: u128_at(32),
            index_at: u64_at(64),
            index_bytes: u64_at(72),
            file_bytes: u64_at(80),
        };
        let Self { index_at, index_bytes, file_bytes, .. } = header;
        if file_bytes != len_bytes {
            return Err(HeaderError::Length { expected: file_bytes, found: len_bytes });
        }
        if index_at < BLOCK_BYTES as u64 || index_at > file_bytes {
            return Err(HeaderError::Field { field: "index_at", value: index_at });
        }
        if index_bytes > file_bytes - index_at {
            return Err(HeaderError::Field { field: "index_bytes", value: index_bytes });
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_come_back_and_every_flipped_bit_is_noticed() {
        let header = Header {
            nonce: Some([9; NONCE_BYTES]),
            folder: 1 << 100,
            snapshot: 2,
            index_at: 4096,
            index_bytes: 100,
            file_bytes: 8192,
        };
        for header in [header, Header { nonce: None, ..header }] {
            let block = header.to_block();
            assert_eq!(Header::from_block(&block, 8192), Ok(header));
            assert!(matches!(Header::from_block(&block, 8191), Err(HeaderError::Length { .. })));
            for bit in 0..BLOCK_BYTES * 8 {
                let mut block = block;
                block[bit / 8] ^= 1 << (bit % 8);
                assert!(Header::from_block(&block, 8192).is_err(), "bit {bit}");
            }
        }
        for (index_at, index_bytes) in [(4095, 0), (8193, 0), (4096, 4097), (u64::MAX, u64::MAX)] {
            let block = Header { index_at, index_bytes, ..header }.to_block();
            assert!(matches!(Header::from_block(&block, 8192), Err(HeaderError::Field { .. })));
        }
    }

    /// A header of a file of three blocks.
    const GOOD: Header =
        Header { nonce: None, folder: 3, snapshot: 2, index_at: 4096, index_bytes: 100, file_bytes: 12288 };

    /// The header that this block has once its checksum fits again.
    fn mended(change: impl FnOnce(&mut [u8; BLOCK_BYTES])) -> Result<Header, HeaderError> {
        let mut block = GOOD.to_block();
        change(&mut block);
        block[CHECKSUM_AT..USED_BYTES].fill(0);
        let checksum = XxHash3_64::oneshot(&block);
        block[CHECKSUM_AT..USED_BYTES].copy_from_slice(&checksum.to_le_bytes());
        Header::from_block(&block, 12288)
    }

    #[test]
    fn index_and_lengths_lie_within_the_file() {
        for (index_at, index_bytes) in [(4096, 0), (4096, 8192), (4097, 8191), (12287, 1), (12288, 0)] {
            let header = Header { index_at, index_bytes, ..GOOD };
            assert_eq!(Header::from_block(&header.to_block(), 12288), Ok(header));
        }
        for (index_at, index_bytes, field) in [
            (0, 100, "index_at"),
            (4095, 100, "index_at"),
            (12289, 0, "index_at"),
            (u64::MAX, 100, "index_at"),
            (4096, 8193, "index_bytes"),
            (12288, 1, "index_bytes"),
            (4096, u64::MAX - 4095, "index_bytes"),
            (4096, u64::MAX, "index_bytes"),
        ] {
            let header = Header { index_at, index_bytes, ..GOOD };
            let value = if field == "index_at" { index_at } else { index_bytes };
            let wrong = HeaderError::Field { field, value };
            assert_eq!(Header::from_block(&header.to_block(), 12288), Err(wrong));
        }
        for file_bytes in [0, 4096, 12287, 12289, u64::MAX] {
            let header = Header { file_bytes, ..GOOD };
            let wrong = HeaderError::Length { expected: file_bytes, found: 12288 };
            assert_eq!(Header::from_block(&header.to_block(), 12288), Err(wrong));
        }
    }

    #[test]
    fn every_field_is_checked_even_when_the_checksum_fits() {
        assert_eq!(mended(|_| ()), Ok(GOOD));
        for at in 0..8 {
            let error = mended(|block| block[at] ^= 1).unwrap_err();
            assert!(matches!(error, HeaderError::Magic { .. }), "byte {at}: {error:?}");
        }
        for version in [0, 2, u32::MAX] {
            let error = mended(|block| block[8..12].copy_from_slice(&version.to_le_bytes()));
            assert_eq!(error, Err(HeaderError::Version { found: version }));
        }
        for value in [2, 256, u32::MAX] {
            let error = mended(|block| block[12..16].copy_from_slice(&value.to_le_bytes()));
            assert_eq!(error, Err(HeaderError::Field { field: "encrypted", value: value.into() }));
        }
        let nonce = [5; NONCE_BYTES];
        let encrypted = mended(|block| {
            block[12] = 1;
            block[48..64].copy_from_slice(&nonce);
        });
        assert_eq!(encrypted, Ok(Header { nonce: Some(nonce), ..GOOD }));
    }
}
