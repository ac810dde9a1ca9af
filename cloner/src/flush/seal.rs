//! Authenticated encryption of what is flushed: a memory snapshot holds every secret of its guest.
//!
//! XChaCha20-Poly1305, of the crate `chacha20poly1305`. Each file draws 16 random bytes; with a record's number they make its nonce,
//! so that no nonce occurs twice under a key without anybody keeping count. Every record is bound to its file and its folder:
//! one that was moved, exchanged or put back from an older file does not open.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use chacha20poly1305::aead::{AeadInPlace, KeyInit, OsRng, rand_core::RngCore};
use chacha20poly1305::{Tag, XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

/// Bytes that sealing adds to a record.
pub(super) const TAG_BYTES: usize = 16;
/// Random bytes of a file's nonces.
pub(super) const NONCE_BYTES: usize = 16;

const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// It cannot be read.
    #[error("cannot read the key file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others than its owner may read or write it.
    #[error("the key file {} has mode {mode:o}: only its owner may have access (chmod 600)", path.display())]
    Mode {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// It is no key.
    #[error(
        "the key file {} holds {found} bytes: a key is {KEY_BYTES} bytes, or twice as many hexadecimal digits",
        path.display()
    )]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes found.
        found: usize,
    },
}

/// A secret key. Wiped from memory when dropped, and never printed.
#[derive(Clone)]
pub struct Key(XChaCha20Poly1305);

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// A record that was changed, or sealed with another key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forged;

impl Key {
    /// Reads a key: 32 bytes, or 64 hexadecimal digits with or without a line end. `head -c 32 /dev/urandom` makes one.
    ///
    /// # Errors
    /// See [`KeyError`].
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

    /// The key with these bytes.
    #[must_use]
    pub fn from_bytes(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(XChaCha20Poly1305::new(bytes.into()))
    }

    /// Seals `record` in place and appends its tag.
    pub(super) fn seal(&self, nonce: Nonce, bound_to: &[u8], record: &mut Vec<u8>) {
        let tag = self.0.encrypt_in_place_detached(&nonce.0, bound_to, record);
        record.extend_from_slice(&tag.expect("records are far shorter than 256 GiB"));
    }

    /// Opens a sealed record in place and says how many bytes it has without its tag.
    pub(super) fn open(&self, nonce: Nonce, bound_to: &[u8], record: &mut [u8]) -> Result<usize, Forged> {
        let len = record.len().checked_sub(TAG_BYTES).ok_or(Forged)?;
        let (record, tag) = record.split_at_mut(len);
        let opened = self.0.decrypt_in_place_detached(&nonce.0, bound_to, record, Tag::from_slice(tag));
        opened.map(|()| len).map_err(|_| Forged)
    }
}

/// What makes every use of a key different.
#[derive(Clone, Copy)]
pub(super) struct Nonce(XNonce);

impl Nonce {
    /// Of one record of one file.
    pub(super) fn new(file: [u8; NONCE_BYTES], record: u64) -> Self {
        let mut nonce = XNonce::default();
        nonce[..NONCE_BYTES].copy_from_slice(&file);
        nonce[NONCE_BYTES..].copy_from_slice(&record.to_le_bytes());
        Self(nonce)
    }
}

/// Bytes nobody can have guessed and that never come again.
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
        let key = Key::from_bytes(&[7; KEY_BYTES]);
        let (nonce, file) = (|record| Nonce::new([1; NONCE_BYTES], record), b"file");
        let mut sealed = b"secret".to_vec();
        key.seal(nonce(3), file, &mut sealed);
        assert_eq!(sealed.len(), 6 + TAG_BYTES);
        let mut record = sealed.clone();
        assert_eq!(key.open(nonce(3), file, &mut record), Ok(6));
        assert_eq!(&record[..6], b"secret");
        assert_eq!(key.open(nonce(4), file, &mut sealed.clone()), Err(Forged));
        assert_eq!(key.open(nonce(3), b"elsewhere", &mut sealed.clone()), Err(Forged));
        assert_eq!(Key::from_bytes(&[8; KEY_BYTES]).open(nonce(3), file, &mut sealed.clone()), Err(Forged));
        for byte in 0..sealed.len() {
            let mut record = sealed.clone();
            record[byte] ^= 1;
            assert_eq!(key.open(nonce(3), file, &mut record), Err(Forged), "byte {byte}");
            assert_eq!(key.open(nonce(3), file, &mut sealed[..byte].to_vec()), Err(Forged), "cut at {byte}");
        }
    }

    #[test]
    fn keys_come_from_files_that_are_their_owners_alone() {
        let path = std::env::temp_dir().join(format!("cloner-key-{}", std::process::id()));
        let write = |bytes: &[u8], mode| {
            // Not even its owner may write to one of mode 0400.
            let _ = fs::remove_file(&path);
            fs::write(&path, bytes).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            Key::read(&path)
        };
        let hex = "07".repeat(KEY_BYTES) + "\n";
        let sealed = |key: &Key| {
            let mut record = vec![1, 2, 3];
            key.seal(Nonce::new([0; NONCE_BYTES], 0), b"", &mut record);
            record
        };
        assert_eq!(
            sealed(&write(&[7; KEY_BYTES], 0o600).unwrap()),
            sealed(&write(hex.as_bytes(), 0o400).unwrap())
        );
        assert!(matches!(write(&[7; KEY_BYTES], 0o640), Err(KeyError::Mode { mode: 0o640, .. })));
        for wrong in [&[7; 31][..], b"", &[b'g'; 64], &[b'a'; 63]] {
            assert!(matches!(write(wrong, 0o600), Err(KeyError::Length { .. })));
        }
        fs::remove_file(&path).unwrap();
        assert!(matches!(Key::read(&path), Err(KeyError::Read { .. })));
        assert_eq!(format!("{:?}", Key::from_bytes(&[7; KEY_BYTES])), "Key(…)");
    }
}
