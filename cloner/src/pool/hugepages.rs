//! The host's 2 MiB pages: how many there are, and setting more of them aside.
//!
//! Huge pages must be set aside before they can be used. A pool never does that by itself, since it takes memory away
//! from everything else on the host: the operator does, or the program when told to, with [`reserve`].

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use vmm::memory::HUGE_PAGE_SIZE;

pub use super::remedy::SETTING;
use super::{Error, TooFewHugePages, available_bytes};

/// The host's 2 MiB pages at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct HugePages {
    /// All there are.
    pub total: usize,
    /// In nobody's use; some of them may be promised to a mapping that has not touched them yet.
    pub free: usize,
    /// Free, but promised.
    pub promised: usize,
    /// Made on demand beyond the number set aside, and given back after use.
    pub surplus: usize,
}

impl HugePages {
    /// Asks the kernel. A kernel without 2 MiB pages has none of them.
    ///
    /// # Errors
    /// [`Error::Setting`].
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

    /// Pages a new pool could have.
    #[must_use]
    pub const fn available(&self) -> usize {
        self.free.saturating_sub(self.promised)
    }

    /// The shortage, where so many are wanted.
    pub(super) const fn too_few(&self, wanted: usize) -> TooFewHugePages {
        TooFewHugePages { wanted, available: self.available(), total: self.total }
    }

    /// Pages set aside for good, which is what writing the setting changes.
    const fn set_aside(&self) -> usize {
        self.total.saturating_sub(self.surplus)
    }
}

/// Pages set aside by this process and not given back. Changed only under the lock on the setting.
static HELD: AtomicUsize = AtomicUsize::new(0);

/// Huge pages set aside by this process; dropping it gives them back to the host.
///
/// Pages still in use by then go back when their user is done. A process that dies without a drop leaves them set aside,
/// unless it comes to call [`give_back_for_ever`].
#[derive(Debug)]
#[must_use = "dropping it gives the pages back"]
pub struct Reserved {
    pages: usize,
}

/// Sets `pages` huge pages aside on top of those the host has already.
///
/// Reservations of several processes add up: each is made and undone as a difference, under a lock on the setting.
///
/// # Errors
/// [`Error::Setting`], usually for want of permission; [`Error::HugePagesRefused`] when memory is short or fragmented.
pub fn reserve(pages: usize) -> Result<Reserved, Error> {
    // Whoever may not is told so, however little memory there is.
    open_setting()?;
    let possible = available_bytes()? / HUGE_PAGE_SIZE;
    if pages > possible {
        // The kernel would try, and squeeze everything else on the host out of memory before it gave up.
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
                return Ok(Reserved { pages });
            }
        },
        Err(error) => error,
    };
    // All or none: what was set aside goes back.
    write_setting(before)?;
    Err(failure)
}

/// Sets aside as many huge pages as are missing for `wanted` of them to be free; `None` if enough are.
///
/// # Errors
/// [`Error::TooFewHugePages`], which says how to set them aside, if this process may not;
/// [`Error::HugePagesRefused`] when memory is short or fragmented; [`Error::Setting`].
pub fn reserve_missing(wanted: usize) -> Result<Option<Reserved>, Error> {
    let host = HugePages::read()?;
    let missing = wanted.saturating_sub(host.available());
    if missing == 0 {
        return Ok(None);
    }
    match reserve(missing) {
        Ok(reserved) => Ok(Some(reserved)),
        // The second is what containers have instead of a permission.
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

/// Gives back whatever [`Reserved`]s hold, and keeps this process from setting more aside: for one that is about to end
/// without dropping them.
///
/// # Errors
/// [`Error::Setting`].
pub fn give_back_for_ever() -> Result<(), Error> {
    let lock = match lock_setting() {
        // A kernel without huge pages: there were none, and there will be none.
        Err(Error::Setting { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(()),
        lock => lock?,
    };
    // Not to be unlocked again: another thread may be about to reserve, or to drop what is given back here.
    std::mem::forget(lock);
    match HELD.swap(0, Ordering::Relaxed) {
        0 => Ok(()),
        held => write_setting(HugePages::read()?.set_aside().saturating_sub(held)),
    }
}

impl Reserved {
    /// How many.
    #[must_use]
    pub const fn pages(&self) -> usize {
        self.pages
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        let give_back = || {
            let _lock = lock_setting()?;
            HELD.fetch_sub(self.pages, Ordering::Relaxed);
            write_setting(HugePages::read()?.set_aside().saturating_sub(self.pages))
        };
        // The only failure is that the setting, writable before, no longer is; nobody is left to be told.
        let _: Result<(), Error> = give_back();
    }
}

/// An advisory lock between processes, held until dropped.
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
