//! The few file operations that flushing and recovering need.
//!
//! They are traits, so that a test can stand between the writer and the disk: it can fail any operation, tear any write, and lose
//! whatever was not synced. The crash argument in [`super::writer`] rests on what every implementation promises:
//!
//! 1. After [`WriteFile::sync`] has returned, the file's bytes and length survive anything.
//! 2. [`Files::rename`] is atomic: afterwards, and after a crash, the file has either the one name or the other.
//! 3. After [`Files::sync_folder`] has returned, all renames, creations and removals before it survive anything.
//!
//! Nothing else is promised: data that was not synced may be there completely, in part, in any order, or not at all.

#[cfg(test)]
pub(crate) mod faulty;
mod real;
#[cfg(test)]
pub(super) mod tests;

use std::fmt::Debug;
use std::io;

pub use real::RealFiles;

/// Offsets, lengths and memory of large writes are multiples of this, so that they can bypass the page cache.
pub const BLOCK_BYTES: usize = 4096;

/// One folder of files. It has no subfolders.
pub trait Files: Debug + Send + Sync {
    /// Where the folder is, for messages.
    fn place(&self) -> String;

    /// Names of the files, and their lengths in bytes.
    ///
    /// # Errors
    /// The operating system's reason for not listing the folder.
    fn list(&self) -> io::Result<Vec<(String, u64)>>;

    /// Creates a file and allocates `bytes` bytes for it: writing them cannot fail for lack of space.
    ///
    /// # Errors
    /// `AlreadyExists` if there is a file with this name; `StorageFull` if there is no space, and then no file is left; or another
    /// reason of the operating system's.
    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn WriteFile>>;

    /// Opens an existing file for reading.
    ///
    /// # Errors
    /// `NotFound` if there is none, or another reason of the operating system's.
    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>>;

    /// Gives the file `from` the name `to`. A file that had this name is gone.
    ///
    /// # Errors
    /// `NotFound` if there is no file `from`, or another reason of the operating system's.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// `NotFound` if there is none, or another reason of the operating system's.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Makes all creations, renames and removals durable.
    ///
    /// # Errors
    /// The operating system's reason. It is then unknown which of them are durable.
    fn sync_folder(&self) -> io::Result<()>;
}

/// A file being written.
pub trait WriteFile: Debug + Send + Sync {
    /// Writes some of `bytes` and returns how many, as `pwrite` does.
    ///
    /// # Errors
    /// The operating system's reason for not writing; `Interrupted` means that the call may be repeated.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize>;

    /// Shortens or extends the file to `bytes` bytes.
    ///
    /// # Errors
    /// The operating system's reason for not changing the length.
    fn set_len(&self, bytes: u64) -> io::Result<()>;

    /// Makes bytes and length durable.
    ///
    /// # Errors
    /// The operating system's reason. It is then unknown what is durable, and a second sync does not tell: it may succeed although
    /// data was lost, as `fsync` may.
    fn sync(&self) -> io::Result<()>;
}

/// A file being read.
pub trait ReadFile: Debug + Send + Sync {
    /// Length of the file in bytes.
    fn len_bytes(&self) -> u64;

    /// Reads some bytes into `out` and returns how many, as `pread` does; zero at the end of the file.
    ///
    /// # Errors
    /// The operating system's reason for not reading; `Interrupted` means that the call may be repeated.
    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize>;
}

/// Writes all of `bytes` at `offset`, a multiple of [`BLOCK_BYTES`], in as many writes as that takes.
///
/// # Errors
/// As for [`WriteFile::write_at`], except that interrupted writes are repeated; `WriteZero` if less than a block is taken at a
/// time.
pub fn write_all_at(file: &dyn WriteFile, mut offset: u64, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let written = match file.write_at(offset, bytes) {
            Ok(written) => written,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        // After a short write, the rest goes out again from the start of its block: a direct write must begin at one.
        let whole = if written == bytes.len() { written } else { written / BLOCK_BYTES * BLOCK_BYTES };
        if whole == 0 {
            return Err(io::ErrorKind::WriteZero.into());
        }
        offset += whole as u64;
        bytes = &bytes[whole..];
    }
    Ok(())
}

/// Fills `out` from the bytes at `offset`.
///
/// # Errors
/// As for [`ReadFile::read_at`], except that interrupted reads are repeated; `UnexpectedEof` if the file ends before `out` is full.
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
