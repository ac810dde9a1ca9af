//! The host's 2 MiB pages: how many there are, and setting more of them aside.
//!
//! Huge pages must be set aside before they can be used. A pool never does that by itself, since it takes memory away
//! from everything else on the host. The operator does it, or the program, when it is told to, with [`reserve`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use vmm::memory::HUGE_PAGE_SIZE;

pub use super::remedy::SETTING;
use super::room::host_available_bytes;
use super::{Error, TooFewHugePages};

/// The host's 2 MiB pages at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HugePages {
    /// Number of pages, whether in use or free.
    pub total: usize,
    /// Number of pages that are not in use; some of them may be promised to a mapping that has not touched them yet.
    pub free: usize,
    /// Number of free pages that are promised to a mapping.
    pub promised: usize,
    /// Number of pages made on demand beyond those set aside, and given back after use.
    pub surplus: usize,
}

impl HugePages {
    /// Asks the kernel. For a kernel without 2 MiB pages, all numbers are zero.
    ///
    /// # Errors
    /// [`Error::Setting`] if one of the kernel's files cannot be read or does not contain a number.
    pub fn read() -> Result<Self, Error> {
        let folder = Path::new(SETTING).parent().expect("the setting is a file in a folder");
        if !folder.exists() {
            return Ok(Self::default());
        }
        let count = |file| read_count(&folder.join(file));
        Ok(Self {
            total: count("nr_hugepages")?,
            free: count("free_hugepages")?,
            promised: count("resv_hugepages")?,
            surplus: count("surplus_hugepages")?,
        })
    }

    /// Number of pages that a new pool could have.
    #[must_use]
    pub const fn available(&self) -> usize {
        self.free.saturating_sub(self.promised)
    }

    /// The shortage for a pool that needs `wanted` pages.
    pub(super) const fn too_few(&self, wanted: usize) -> TooFewHugePages {
        TooFewHugePages { wanted, available: self.available(), total: self.total }
    }

    /// Number of pages set aside permanently, which is the number that writing the setting changes.
    const fn set_aside(&self) -> usize {
        self.total.saturating_sub(self.surplus)
    }
}

/// Number of pages set aside by this process and not given back yet. Changed only under the lock on the setting.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Huge pages set aside by this process; dropping it gives them back to the host.
///
/// Pages still in use at that time go back when their user is done. A process that dies without dropping this leaves them
/// set aside, unless it calls [`give_back_for_ever`] first.
#[derive(Debug)]
#[must_use = "dropping it gives the pages back"]
pub struct ReservedHugePages {
    pages: usize,
}

/// Sets `pages` huge pages aside in addition to those that the host already has.
///
/// Reservations of several processes add up: each is made and undone as a difference, under a lock on the setting.
///
/// # Errors
/// [`Error::Setting`], usually for lack of permission; [`Error::HugePagesRefused`] if memory is short or fragmented.
pub fn reserve(pages: usize) -> Result<ReservedHugePages, Error> {
    // First, so that a process without permission learns that, however little memory there is.
    open_setting()?;
    // The host sets them aside: no control group of this process is charged for that.
    let possible = host_available_bytes()? / HUGE_PAGE_SIZE;
    if pages > possible {
        // The kernel would try, and would squeeze everything else on the host out of memory before giving up.
        return Err(Error::HugePagesRefused { wanted: pages, got: possible });
    }
    let _lock = lock_setting()?;
    let before = HugePages::read()?.set_aside();
    write_setting(before + pages)?;
    let failure = match HugePages::read() {
        Ok(now) => match now.set_aside().saturating_sub(before) {
            got if got < pages => Error::HugePagesRefused { wanted: pages, got },
            _ => {
                HELD.fetch_add(pages, Ordering::Relaxed);
                return Ok(ReservedHugePages { pages });
            }
        },
        Err(error) => error,
    };
    // All or nothing: the pages that were set aside go back.
    write_setting(before)?;
    Err(failure)
}

/// Sets aside the huge pages that are missing for `wanted` of them to be free; `None` if enough are free already.
///
/// # Errors
/// [`Error::TooFewHugePages`], which names the command that sets them aside, if this process lacks the permission;
/// [`Error::HugePagesRefused`] if memory is short or fragmented; [`Error::Setting`] if the kernel's numbers cannot be read.
pub fn reserve_missing(wanted: usize) -> Result<Option<ReservedHugePages>, Error> {
    let host = HugePages::read()?;
    let missing = wanted.saturating_sub(host.available());
    if missing == 0 {
        return Ok(None);
    }
    match reserve(missing) {
        Ok(reserved) => Ok(Some(reserved)),
        // In a container, the setting is on a read-only file system instead of being denied by a permission.
        Err(Error::Setting { source, .. })
            if matches!(
                source.kind(),
                io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem
            ) =>
        {
            Err(host.too_few(wanted).into())
        }
        Err(error) => Err(error),
    }
}

/// Gives back whatever [`ReservedHugePages`]s hold, and keeps this process from setting more aside: for one that is about to end
/// without dropping them.
///
/// # Errors
/// [`Error::Setting`] if the setting cannot be locked, read or written. The pages then stay set aside.
pub fn give_back_for_ever() -> Result<(), Error> {
    let lock = match lock_setting() {
        // A kernel without huge pages: none were set aside, and none will be.
        Err(Error::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock?,
    };
    // Never unlocked again: another thread may be about to reserve, or to drop what is given back here.
    std::mem::forget(lock);
    match HELD.swap(0, Ordering::Relaxed) {
        0 => Ok(()),
        held => write_setting(HugePages::read()?.set_aside().saturating_sub(held)),
    }
}

impl ReservedHugePages {
    /// Number of 2 MiB pages that were set aside.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages
    }
}

impl Drop for ReservedHugePages {
    fn drop(&mut self) {
        let give_back = || {
            let _lock = lock_setting()?;
            HELD.fetch_sub(self.pages, Ordering::Relaxed);
            write_setting(HugePages::read()?.set_aside().saturating_sub(self.pages))
        };
        // This fails only if the setting, which was writable before, no longer is. A destructor has no way to report it.
        let _: Result<(), Error> = give_back();
    }
}

/// Takes an advisory lock against other processes, held until the file is dropped.
fn lock_setting() -> Result<File, Error> {
    let lock = || {
        let file = File::open(SETTING)?;
        file.lock()?;
        Ok(file)
    };
    lock().map_err(|source| Error::setting(SETTING, source))
}

fn write_setting(pages: usize) -> Result<(), Error> {
    let written = open_setting()?.write_all(pages.to_string().as_bytes());
    written.map_err(|source| Error::setting(SETTING, source))
}

fn open_setting() -> Result<File, Error> {
    OpenOptions::new().write(true).open(SETTING).map_err(|source| Error::setting(SETTING, source))
}

fn read_count(path: &Path) -> Result<usize, Error> {
    let parse = |text: String| text.trim().parse().map_err(|_| io::ErrorKind::InvalidData.into());
    fs::read_to_string(path).and_then(parse).map_err(|source| Error::setting(path, source))
}
