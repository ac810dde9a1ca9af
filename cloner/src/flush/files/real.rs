//! A folder in a file system of this host.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, OFlags, fallocate};

use super::{Files, ReadFile, WriteFile};

/// A folder whose files are read and written past the page cache, if its file system allows that.
#[derive(Debug)]
pub struct RealFiles {
    path: PathBuf,
    direct: bool,
    /// Held while this lives: one process at a time works in a folder.
    lock: File,
}

impl Drop for RealFiles {
    fn drop(&mut self) {
        // Closing the file does not do it: a child that was forked meanwhile, to hold memory still, has the same open file for
        // a moment, and the lock would stay as long as that.
        let unlocked = self.lock.unlock();
        if let Err(error) = unlocked {
            tracing::warn!(folder = %self.path.display(), %error, "cannot unlock the folder before it is closed");
        }
    }
}

const LOCK_FILE: &str = ".lock";

impl RealFiles {
    /// Opens the folder at `path` for this process alone. Makes the folder if there is none.
    ///
    /// # Errors
    /// `WouldBlock` if another process has the folder open; otherwise the operating system's reason for not making, locking or
    /// opening it.
    pub fn open(path: &Path) -> io::Result<Self> {
        fs::create_dir_all(path)?;
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(path.join(LOCK_FILE))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
            fs::TryLockError::Error(error) => error,
        })?;
        let direct = supports_direct(&path.join(LOCK_FILE))?;
        Ok(Self { path: path.to_owned(), direct, lock })
    }

    /// Whether files are read and written past the page cache. If not, flushing is slower and needs memory.
    #[must_use]
    pub const fn is_direct(&self) -> bool {
        self.direct
    }

    /// Path of the folder, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn flags(&self) -> i32 {
        if self.direct { direct_flag() } else { 0 }
    }
}

fn direct_flag() -> i32 {
    OFlags::DIRECT.bits().cast_signed()
}

fn supports_direct(file: &Path) -> io::Result<bool> {
    match OpenOptions::new().read(true).custom_flags(direct_flag()).open(file) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(false),
        Err(error) => Err(error),
    }
}

impl Files for RealFiles {
    fn place(&self) -> String {
        self.path.display().to_string()
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut files = Vec::new();
        for entry in fs::read_dir(&self.path)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if name != LOCK_FILE {
                files.push((name, entry.metadata()?.len()));
            }
        }
        Ok(files)
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn WriteFile>> {
        let path = self.path.join(name);
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).custom_flags(self.flags()).open(&path)?;
        let allocated = if bytes == 0 { Ok(()) } else { fallocate(&file, FallocateFlags::empty(), 0, bytes) };
        match allocated {
            // File systems that cannot allocate in advance report a lack of space while writing.
            Ok(()) | Err(rustix::io::Errno::OPNOTSUPP) => Ok(Box::new(RealFile { file, len_bytes: 0 })),
            Err(error) => {
                fs::remove_file(&path)?;
                Err(error.into())
            }
        }
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(self.flags()).open(self.path.join(name))?;
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(Box::new(RealFile { file, len_bytes: metadata.len() }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path.join(from), self.path.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.path.join(name))
    }

    fn sync_folder(&self) -> io::Result<()> {
        File::open(&self.path)?.sync_all()
    }
}

#[derive(Debug)]
struct RealFile {
    file: File,
    /// Length at the time when it was opened.
    len_bytes: u64,
}

impl WriteFile for RealFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_at(bytes, offset)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

impl ReadFile for RealFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.file.read_at(out, offset)
    }
}
