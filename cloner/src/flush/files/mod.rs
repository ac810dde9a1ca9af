//! The few file operations that flushing and recovering need.
//!
//! A trait, so that a test can stand between the writer and the disk: fail any operation, tear any write, lose whatever was
//! not synced. What an implementation promises is what the crash argument in [`super::writer`] rests on:
//!
//! 1. After [`WriteFile::sync`] returned, the file's bytes and length survive anything.
//! 2. [`Files::rename`] is atomic: afterwards, and after a crash, the file has the one name or the other.
//! 3. After [`Files::sync_folder`] returned, all renames, creations and removals before it survive anything.
//!
//! Nothing else is promised: what was not synced may be there, in part, in any order, or not at all.

#[cfg(test)]
pub(crate) mod faulty;
mod real;

use std::fmt::Debug;
use std::io;

pub use real::RealFiles;

/// Offsets, lengths and memory of large writes are multiples of this, so that they can bypass the page cache.
pub const BLOCK_BYTES: usize = 4096;

/// One folder. There are no folders in it.
pub trait Files: Debug + Send + Sync {
    /// Where it is, for messages.
    fn place(&self) -> String;

    /// Names and lengths of the files.
    ///
    /// # Errors
    /// The operating system's, here and below.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// A new file, of which `bytes` bytes are allocated: writing them cannot fail for lack of space.
    ///
    /// # Errors
    /// `AlreadyExists`; `StorageFull`, and then nothing is left of it.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn WriteFile>>;

    /// An existing file.
    ///
    /// # Errors
    /// `NotFound` and others.
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>>;

    /// Gives the file `from` the name `to`; a file that had it is gone.
    ///
    /// # Errors
    /// The operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// The operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals durable.
    ///
    /// # Errors
    /// The operating system's. What is durable is then unknown.
    fn sync_folder(&self) -> io::Result<()>;
}

/// A file being written.
pub trait WriteFile: Debug + Send + Sync {
    /// Writes some of `bytes` and says how many, as `pwrite` does.
    ///
    /// # Errors
    /// The operating system's.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Cuts or extends the file.
    ///
    /// # Errors
    /// The operating system's.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes bytes and length durable.
    ///
    /// # Errors
    /// The operating system's. What is durable is then unknown, and stays so: see `fsync` and errors.
    fn sync(&self) -> io::Result<()>;
}

/// A file being read.
pub trait ReadFile: Debug + Send + Sync {
    /// Its length.
    fn len_bytes(&self) -> u64;

    /// Reads some bytes into `out` and says how many, as `pread` does; zero at the end.
    ///
    /// # Errors
    /// The operating system's.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
}

/// Writes all of `bytes`, which lie at a multiple of [`BLOCK_BYTES`], whatever a single write takes.
///
/// # Errors
/// The operating system's; `WriteZero` if nothing is taken any more.
pub fn write_all_at(file: &dyn WriteFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = match file.write_at(offset, bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // What a short write leaves goes out again from the start of its block: a direct write begins at one.
        let whole = if written == bytes.len() { written } else { written / BLOCK_BYTES * BLOCK_BYTES };
        if whole == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += whole as u64;
        bytes = &bytes[whole..];
    }
    Ok(())
}

/// Fills `out`.
///
/// # Errors
/// The operating system's; `UnexpectedEof` if the file ends before.
pub fn read_exact_at(file: &dyn ReadFile, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
    while !out.is_empty() {
        match file.read_at(offset, out) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => {
                offset += read as u64;
                out = &mut out[read..];
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
