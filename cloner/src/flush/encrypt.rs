//! Authenticated encryption of what is flushed, because a memory snapshot holds every secret of its guest.
//!
//! XChaCha20-Poly1305, from the crate `chacha20poly1305`. Each file draws 16 random bytes, and a record's nonce is made of these
//! and the record's number, so no nonce occurs twice under a key and no counter has to be kept. Every record is bound to its file
//! and its folder: a record that was moved, exchanged or put back from an older file does not open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{AeadInPlace, KeyInit, OsRng, rand_core::RngCore};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// Number of bytes that encryption adds to a record.
pub(super) const TAG_BYTES: usize = 16;
/// Number of random bytes that all nonces of a file begin with.
pub(super) const NONCE_BYTES: usize = 16;

const KEY_BYTES: usize = 32;

/// Why a key could not be read.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key file cannot be read.
    #[error("cannot read the key file {}", path.display())]
    Read {
        /// Path of the key file.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Users other than its owner may read or write the key file.
    #[error("the key file {} has mode {mode:o}: only its owner may have access (chmod 600)", path.display())]
    Mode {
        /// Path of the key file.
        path: PathBuf,
        /// Permission bits of the file.
        mode: u32,
    },
    /// The file does not contain a key.
    #[error(
        "the key file {} holds {found} bytes: a key is {KEY_BYTES} bytes, or twice as many hexadecimal digits",
        path.display()
    )]
    Length {
        /// Path of the key file.
        path: PathBuf,
        /// Length of the file in bytes.
        found: usize,
    },
}

/// A secret key. Wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct EncryptionKey(XChaCha20Poly1305);

impl std::fmt::Debug for EncryptionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EncryptionKey(…)")
    }
}

/// A record that was changed, or encrypted with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ForgedRecord;

impl EncryptionKey {
    /// Reads a key file: 32 bytes, or 64 hexadecimal digits with or without a line end. `head -c 32 /dev/urandom` makes a key.
    ///
    /// # Errors
    /// [`KeyError::Read`]; [`KeyError::Mode`] if group or others have any access; [`KeyError::Length`] if the content is not a key.
    pub fn read(path: &Path) -> Result<Self, KeyError> {
        let path = || path.to_owned();
        let read = |source| KeyError::Read { path: path(), source };
        let mode = fs::metadata(path()).map_err(read)?.mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(KeyError::Mode { path: path(), mode });
        }
        let bytes = Zeroizing::new(fs::read(path()).map_err(read)?);
        let wrong = KeyError::Length { path: path(), found: bytes.len() };
        if let Ok(bytes) = <&[u8; KEY_BYTES]>::try_from(&bytes[..]) {
            return Ok(Self::from_bytes(bytes));
        }
        let digits = bytes.trim_ascii_end();
        let mut key = Zeroizing::new([0; KEY_BYTES]);
        if digits.len() != 2 * KEY_BYTES {
            return Err(wrong);
        }
        for (byte, pair) in key.iter_mut().zip(digits.as_chunks::<2>().0) {
            let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
            let (Some(high), Some(low)) = (digit(pair[0]), digit(pair[1])) else { return Err(wrong) };
            *byte = high << 4 | low;
        }
        Ok(Self::from_bytes(&key))
    }

    /// Makes a key from its bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(bytes.into()))
    }

    /// Encrypts `record` in place and appends its tag. The tag also covers `bound_to`.
    pub(super) fn encrypt(&self, nonce: Nonce, bound_to: &[u8], record: &mut Vec<u8>) {
        let tag = self.0.encrypt_in_place_detached(&nonce.0, bound_to, record);
        record.extend_from_slice(&tag.expect("records are far shorter than 256 GiB"));
    }

    /// Decrypts a record in place and returns how many bytes it has without its tag.
    pub(super) fn decrypt(
        &self,
        nonce: Nonce,
        bound_to: &[u8],
        record: &mut [u8],
    ) -> Result<usize, ForgedRecord> {
        let len = record.len().checked_sub(TAG_BYTES).ok_or(ForgedRecord)?;
        let (record, tag) = record.split_at_mut(len);
        let opened = self.0.decrypt_in_place_detached(&nonce.0, bound_to, record, Tag::from_slice(tag));
        opened.map(|()| len).map_err(|_| ForgedRecord)
    }
}

/// A number that makes every use of a key different.
#[derive(Clone, Copy)]
pub(super) struct Nonce(XNonce);

impl Nonce {
    /// The nonce of one record of one file.
    pub(super) fn new(file: [u8; NONCE_BYTES], record: u64) -> Self {
        let mut nonce = XNonce::default();
        nonce[..NONCE_BYTES].copy_from_slice(&file);
        nonce[NONCE_BYTES..].copy_from_slice(&record.to_le_bytes());
        Self(nonce)
    }
}

/// Random bytes that cannot be guessed and do not repeat.
pub(super) fn random_bytes() -> [u8; NONCE_BYTES] {
    let mut bytes = [0; NONCE_BYTES];
    OsRng.fill_bytes(&mut bytes);
    bytes
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn what_was_sealed_opens_where_it_belongs_and_nowhere_else() {
        let key = EncryptionKey::from_bytes(&[7; KEY_BYTES]);
        let (nonce, file) = (|record| Nonce::new([1; NONCE_BYTES], record), b"file");
        let mut encrypted = b"secret".to_vec();
        key.encrypt(nonce(3), file, &mut encrypted);
        assert_eq!(encrypted.len(), 6 + TAG_BYTES);
        let mut record = encrypted.clone();
        assert_eq!(key.decrypt(nonce(3), file, &mut record), Ok(6));
        assert_eq!(&record[..6], b"secret");
        assert_eq!(key.decrypt(nonce(4), file, &mut encrypted.clone()), Err(ForgedRecord));
        assert_eq!(key.decrypt(nonce(3), b"elsewhere", &mut encrypted.clone()), Err(ForgedRecord));
        assert_eq!(
            EncryptionKey::from_bytes(&[8; KEY_BYTES]).decrypt(nonce(3), file, &mut encrypted.clone()),
            Err(ForgedRecord)
        );
        for byte in 0..encrypted.len() {
            let mut record = encrypted.clone();
            record[byte] ^= 1;
            assert_eq!(key.decrypt(nonce(3), file, &mut record), Err(ForgedRecord), "byte {byte}");
            assert_eq!(
                key.decrypt(nonce(3), file, &mut encrypted[..byte].to_vec()),
                Err(ForgedRecord),
                "cut at {byte}"
            );
        }
    }

    #[test]
    fn keys_come_from_files_that_are_their_owners_alone() {
        let path = std::env::temp_dir().join(format!("cloner-key-{}", std::process::id()));
        let write = |bytes: &[u8], mode| {
            // Removed first, because not even its owner may write to a file of mode 0400.
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            EncryptionKey::read(&path)
        };
        let hex = "07".repeat(KEY_BYTES) + "\n";
        let encrypted = |key: &EncryptionKey| {
            let mut record = vec![1, 2, 3];
            key.encrypt(Nonce::new([0; NONCE_BYTES], 0), b"", &mut record);
            record
        };
        assert_eq!(
            encrypted(&write(&[7; KEY_BYTES], 0o600).unwrap()),
            encrypted(&write(hex.as_bytes(), 0o400).unwrap())
        );
        assert!(matches!(write(&[7; KEY_BYTES], 0o640), Err(KeyError::Mode { mode: 0o640, .. })));
        for wrong in [&[7; 31][..], b"", &[b'g'; 64], &[b'a'; 63]] {
            assert!(matches!(write(wrong, 0o600), Err(KeyError::Length { .. })));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(EncryptionKey::read(&path), Err(KeyError::Read { .. })));
        assert_eq!(format!("{:?}", EncryptionKey::from_bytes(&[7; KEY_BYTES])), "EncryptionKey(…)");
    }
}
