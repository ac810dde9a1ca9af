//! What can go wrong with a pool.

use std::io;
use std::path::PathBuf;

use super::ledger::Refused;
use super::remedy;
use super::{MAX_TAG_BYTES, MAX_TAGS};

/// Why a pool could not be made, or could not do what it was asked. The pool is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The capacity is zero or beyond the address space.
    #[error("a pool of {capacity_bytes} bytes cannot be made")]
    Capacity {
        /// As configured.
        capacity_bytes: usize,
    },
    /// The host has set aside too few huge pages.
    #[error(transparent)]
    TooFewHugePages(#[from] TooFewHugePages),
    /// Ordinary pages were allowed, but the host has too little memory left for them.
    #[error(
        "a pool of {wanted_bytes} bytes in ordinary pages does not fit the {available_bytes} bytes of memory this \
         host has available"
    )]
    TooLittleMemory {
        /// Capacity of the pool.
        wanted_bytes: usize,
        /// `MemAvailable` of /proc/meminfo.
        available_bytes: usize,
    },
    /// The kernel refused the arena for another reason than too few pages.
    #[error("the kernel refused {len_bytes} bytes of shared memory")]
    Map {
        /// Length of the arena.
        len_bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel had promised the memory and could not provide it, as under a `hugetlb` cgroup limit.
    #[error("the kernel promised {len_bytes} bytes of memory and could not provide them all")]
    Populate {
        /// Length of the arena.
        len_bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// One of the kernel's memory settings could not be read or written.
    #[error("{} could not be read or written", path.display())]
    Setting {
        /// The file.
        path: PathBuf,
        /// The kernel's error, or `InvalidData` for a content without the number.
        source: io::Error,
    },
    /// The kernel set fewer huge pages aside than it was asked to, for lack of contiguous memory; they were given back.
    #[error(
        "of {wanted} further huge pages of 2 MiB the kernel could set aside only {got}: memory is short or in pieces; \
         `vm.nr_hugepages` set at boot gets more"
    )]
    HugePagesRefused {
        /// Pages asked for.
        wanted: usize,
        /// Pages it would have given.
        got: usize,
    },
    /// There is no room; `free_bytes` may be enough in sum and yet lie in pieces that are all too small.
    #[error(
        "the pool is full: {wanted_bytes} bytes wanted, {free_bytes} of {capacity_bytes} free and not promised \
         elsewhere, the largest free piece has {largest_free_bytes}"
    )]
    Full {
        /// What was asked for, rounded up to the pool's granule.
        wanted_bytes: usize,
        /// Free, less what is promised to other reservations.
        free_bytes: usize,
        /// Size of the pool.
        capacity_bytes: usize,
        /// The longest contiguous free range.
        largest_free_bytes: usize,
    },
    /// Not a name for a snapshot.
    #[error("{name:?} is no snapshot name: 1 to 64 of the characters A-Z a-z 0-9 . _ - and no dot in front")]
    InvalidName {
        /// As given.
        name: String,
    },
    /// A snapshot has the name already, or another reservation has claimed it.
    #[error("the snapshot name {name:?} is taken")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// A tag has no key, is too long, or holds control characters.
    #[error(
        "the tag {key:?} or its value is empty, longer than {MAX_TAG_BYTES} bytes or has control characters"
    )]
    InvalidTag {
        /// Its key.
        key: String,
    },
    /// Too many tags.
    #[error("{tags} tags: a snapshot has at most {MAX_TAGS}")]
    TooManyTags {
        /// As given.
        tags: usize,
    },
    /// More would be unflushed than the battery protects, or there is no mains power.
    #[error("not admitted")]
    Refused(#[from] Refused),
    /// No sealed snapshot has the name.
    #[error("there is no snapshot named {name:?}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// The reservation holds a chunk with this key already.
    #[error("the snapshot holds a chunk {key} already")]
    ChunkTaken {
        /// The chunk's key.
        key: u64,
    },
    /// The reservation holds a blob with this label already.
    #[error("the snapshot holds a blob labelled {label:?} already")]
    BlobTaken {
        /// The blob's label.
        label: String,
    },
}

impl Error {
    pub(super) fn setting(path: impl Into<PathBuf>, source: io::Error) -> Self {
        Self::Setting { path: path.into(), source }
    }
}

/// A shortage of huge pages, and the way out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} huge pages of 2 MiB are needed, {available} of the host's {total} are free; as root, {} sets enough aside",
    self.remedy()
)]
pub struct TooFewHugePages {
    /// Pages the pool, or the guests, take.
    pub wanted: usize,
    /// Pages that are not in use and not promised.
    pub available: usize,
    /// Pages the host has set aside in all.
    pub total: usize,
}

impl TooFewHugePages {
    /// The command that sets enough aside, in backquotes.
    #[must_use]
    pub fn remedy(&self) -> String {
        remedy::command(self.total + self.wanted.saturating_sub(self.available))
    }
}
