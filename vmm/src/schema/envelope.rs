//! JSON text in an envelope that can be checked before anything is parsed.
//!
//! ```text
//! offset  bytes  what
//!      0      8  magic: the kind of text
//!      8      4  schema version, little-endian
//!     12      4  zero
//!     16      8  length of the text
//!     24      8  xxh3-64 of bytes 0..24 and of the text
//!     32      …  the text
//! ```
//!
//! Magic and version come first so that a foreign or newer file is named as such, the length before the checksum so
//! that a truncated file is.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

/// What kind of text an envelope holds, and in which version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schema {
    /// First eight bytes of the envelope.
    pub magic: [u8; 8],
    /// The version this build reads and writes.
    pub version: u32,
    /// What the text is, for messages.
    pub name: &'static str,
}

const HEADER_BYTES: usize = 32;
/// Sixteen vCPUs take some 300 KiB; a manifest of 64 GiB, some 2 MiB.
const MAX_TEXT_BYTES: usize = 64 << 20;

/// Why bytes are not a valid envelope for the expected schema.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The bytes are too short for the header.
    #[error("{found} bytes are fewer than the {HEADER_BYTES} of the header of a {name}")]
    Short {
        /// Name of the expected schema.
        name: &'static str,
        /// Length found, in bytes.
        found: usize,
    },
    /// The bytes are something else.
    #[error("not a {name}: it starts with {found:02x?}")]
    Magic {
        /// Name of the expected schema.
        name: &'static str,
        /// The first eight bytes found.
        found: [u8; 8],
    },
    /// The text follows another version of the schema.
    #[error("{name} of schema version {found}: this build reads version {known}")]
    Version {
        /// Name of the schema.
        name: &'static str,
        /// Version in the header.
        found: u32,
        /// Version that this build reads.
        known: u32,
    },
    /// Bytes that must be zero are not.
    #[error("the header of the {name} has {found:#x} where zero belongs")]
    Reserved {
        /// Name of the schema.
        name: &'static str,
        /// The four bytes as a number.
        found: u32,
    },
    /// The length in the header does not match.
    #[error(
        "the header of the {name} promises {promised} bytes of text, {found} follow (at most {MAX_TEXT_BYTES})"
    )]
    Length {
        /// Name of the schema.
        name: &'static str,
        /// Length of the text according to the header, in bytes.
        promised: u64,
        /// Bytes that follow the header.
        found: usize,
    },
    /// The checksum in the header does not match the content.
    #[error("the {name} is damaged: checksum {found:#018x}, expected {expected:#018x}")]
    Checksum {
        /// Name of the schema.
        name: &'static str,
        /// Checksum in the header.
        expected: u64,
        /// Checksum of the content.
        found: u64,
    },
    /// The text does not follow the schema.
    #[error("the text does not follow the schema")]
    Schema(#[from] serde_json::Error),
}

impl Schema {
    /// Puts `text` into an envelope.
    #[must_use]
    pub fn wrap(&self, text: &[u8]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_BYTES + text.len());
        bytes.extend(self.magic);
        bytes.extend(self.version.to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend((text.len() as u64).to_le_bytes());
        let checksum = checksum(&bytes, text);
        bytes.extend(checksum.to_le_bytes());
        bytes.extend(text);
        bytes
    }

    /// Checks an envelope and returns its text, which is not parsed yet.
    ///
    /// # Errors
    /// Every variant of [`Error`] except [`Error::Schema`]: what the header has at its first field that is wrong, or
    /// [`Error::Checksum`] if header or text are damaged.
    pub fn unwrap<'a>(&self, bytes: &'a [u8]) -> Result<&'a [u8], Error> {
        let name = self.name;
        let Some((header, text)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Err(Error::Short { name, found: bytes.len() });
        };
        let magic: [u8; 8] = field(header, 0);
        if magic != self.magic {
            return Err(Error::Magic { name, found: magic });
        }
        let version = u32::from_le_bytes(field(header, 8));
        if version != self.version {
            return Err(Error::Version { name, found: version, known: self.version });
        }
        let reserved = u32::from_le_bytes(field(header, 12));
        if reserved != 0 {
            return Err(Error::Reserved { name, found: reserved });
        }
        let promised = u64::from_le_bytes(field(header, 16));
        if promised != text.len() as u64 || text.len() > MAX_TEXT_BYTES {
            return Err(Error::Length { name, promised, found: text.len() });
        }
        let expected = u64::from_le_bytes(field(header, 24));
        let found = checksum(&header[..24], text);
        if found != expected {
            return Err(Error::Checksum { name, expected, found });
        }
        Ok(text)
    }
}

fn field<const N: usize>(header: &[u8; HEADER_BYTES], offset: usize) -> [u8; N] {
    *header[offset..].first_chunk().expect("fields lie within the header")
}

fn checksum(header: &[u8], text: &[u8]) -> u64 {
    let mut hasher = XxHash3_64::new();
    hasher.write(header);
    hasher.write(text);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCHEMA: Schema = Schema { magic: *b"CLNTEST\0", version: 7, name: "test" };

    /// An envelope whose header says something else, with the checksum mended.
    fn forged(text: &[u8], at: usize, field: &[u8]) -> Vec<u8> {
        let mut bytes = SCHEMA.wrap(text);
        bytes[at..at + field.len()].copy_from_slice(field);
        let mended = checksum(&bytes[..24], &bytes[HEADER_BYTES..]);
        bytes[24..HEADER_BYTES].copy_from_slice(&mended.to_le_bytes());
        bytes
    }

    #[test]
    fn what_was_wrapped_is_unwrapped() {
        for text in [&b""[..], b"{}", &[0xff; 1000]] {
            let bytes = SCHEMA.wrap(text);
            assert_eq!((SCHEMA.unwrap(&bytes).unwrap(), bytes.len()), (text, HEADER_BYTES + text.len()));
        }
    }

    #[test]
    fn every_field_is_checked_even_when_the_checksum_fits() {
        let refused = |at: usize, field: &[u8]| SCHEMA.unwrap(&forged(b"text", at, field)).unwrap_err();
        for at in 0..8 {
            let error = refused(at, &[SCHEMA.magic[at] ^ 1]);
            assert!(
                matches!(error, Error::Magic { name: "test", found } if found[at] != SCHEMA.magic[at]),
                "{error:?}"
            );
        }
        for version in [0_u32, 6, 8, 7 << 8, u32::MAX] {
            let error = refused(8, &version.to_le_bytes());
            assert!(matches!(error, Error::Version { found, known: 7, .. } if found == version), "{error:?}");
        }
        for reserved in [1_u32, 1 << 31, u32::MAX] {
            let error = refused(12, &reserved.to_le_bytes());
            assert!(matches!(error, Error::Reserved { found, .. } if found == reserved), "{error:?}");
        }
        for length in [0_u64, 3, 5, 4 | 1 << 32, u64::MAX] {
            let error = refused(16, &length.to_le_bytes());
            assert!(
                matches!(error, Error::Length { promised, found: 4, .. } if promised == length),
                "{error:?}"
            );
        }
    }

    #[test]
    fn any_flipped_bit_and_any_other_length_is_an_error() {
        let bytes = SCHEMA.wrap(b"some text");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            let error = SCHEMA.unwrap(&flipped).unwrap_err();
            let is_damage = matches!(error, Error::Checksum { expected, found, .. } if expected != found);
            assert_eq!(is_damage, bit / 8 >= 24, "bit {bit}: {error:?}");
        }
        for len in 0..bytes.len() {
            let error = SCHEMA.unwrap(&bytes[..len]).unwrap_err();
            match error {
                Error::Short { found, .. } => assert!(found == len && len < HEADER_BYTES),
                Error::Length { promised: 9, found, .. } => assert_eq!(found + HEADER_BYTES, len),
                other => panic!("cut at {len}: {other:?}"),
            }
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(matches!(SCHEMA.unwrap(&longer), Err(Error::Length { promised: 9, found: 10, .. })));
    }

    #[test]
    fn a_text_has_64_mib_at_most() {
        let longest = SCHEMA.wrap(&vec![b' '; MAX_TEXT_BYTES]);
        assert_eq!(SCHEMA.unwrap(&longest).unwrap().len(), 64 << 20);
        let error = SCHEMA.unwrap(&SCHEMA.wrap(&vec![b' '; MAX_TEXT_BYTES + 1])).unwrap_err();
        assert!(matches!(error, Error::Length { found, .. } if found == MAX_TEXT_BYTES + 1), "{error:?}");
    }
}
