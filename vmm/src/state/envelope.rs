//! A [`VmState`] as bytes.
//!
//! ```text
//! offset  bytes  what
//!      0      8  magic "CLNVMST\0"
//!      8      4  schema version (1), little-endian
//!     12      4  zero
//!     16      8  length of the JSON text
//!     24      8  xxh3-64 of bytes 0..24 and of the text
//!     32      …  the state as JSON
//! ```
//!
//! Magic and version come first so that a foreign or newer file is named as such, the length before the checksum so
//! that a truncated file is; nothing is parsed before the checksum holds.

use xxhash_rust::xxh3::Xxh3Default;

use super::{VmState, VmStateV1};

const MAGIC: [u8; 8] = *b"CLNVMST\0";
const VERSION: u32 = 1;
const HEADER_BYTES: usize = 32;
/// Sixteen vCPUs take some 300 KiB.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// Why bytes are no VM state.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Too short for the header.
    #[error("{0} bytes are fewer than the {HEADER_BYTES} of a VM state's header")]
    Short(usize),
    /// Something else.
    #[error("not a VM state: it starts with {0:02x?}")]
    Magic([u8; 8]),
    /// Made by another version.
    #[error("VM state of schema version {0}: this build reads version {VERSION}")]
    Version(u32),
    /// Its length does not match.
    #[error("the VM state's header promises {promised} bytes of text, {found} follow")]
    Length {
        /// What the header says.
        promised: u64,
        /// What is there.
        found: usize,
    },
    /// Its content does not match.
    #[error("VM state damaged: checksum {found:#018x}, expected {expected:#018x}")]
    Checksum {
        /// What the header says.
        expected: u64,
        /// What the content gives.
        found: u64,
    },
    /// The text is not what the schema says.
    #[error("VM state does not follow the schema")]
    Schema(#[from] serde_json::Error),
    /// A field is impossible.
    #[error("VM state out of range")]
    State(#[from] super::Error),
}

impl VmState {
    /// The state as bytes.
    ///
    /// # Panics
    /// Never: the schema has no maps with keys that JSON cannot hold.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let text = serde_json::to_vec(self.get()).expect("plain structs of numbers and strings");
        let mut bytes = Vec::with_capacity(HEADER_BYTES + text.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((text.len() as u64).to_le_bytes());
        let checksum = checksum(&bytes, &text);
        bytes.extend(checksum.to_le_bytes());
        bytes.extend(text);
        bytes
    }

    /// A state from bytes, which may come from anybody.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let Some((header, text)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Error::Short(bytes.len()));
        };
        let magic: [u8; 8] = field(header, 0);
        if magic != MAGIC {
            return Err(Error::Magic(magic));
        }
        let version = u32::from_le_bytes(field(header, 8));
        if version != VERSION {
            return Err(Error::Version(version));
        }
        let promised = u64::from_le_bytes(field(header, 16));
        if promised != text.len() as u64 || text.len() > MAX_TEXT_BYTES {
            return Err(Error::Length { promised, found: text.len() });
        }
        let expected = u64::from_le_bytes(field(header, 24));
        let found = checksum(&header[..24], text);
        if found != expected {
            return Err(Error::Checksum { expected, found });
        }
        let state: VmStateV1 = serde_json::from_slice(text)?;
        Ok(Self::try_from(state)?)
    }
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], offset: usize) -> [u8; N] {
    *header[offset..].first_chunk().expect("fields lie within the header")
}

fn checksum(header: &[u8], text: &[u8]) -> u64 {
    let mut hasher = Xxh3Default::new();
    hasher.update(header);
    hasher.update(text);
    hasher.digest()
}
