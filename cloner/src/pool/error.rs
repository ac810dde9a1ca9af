//! What can go wrong with a pool.

use std::io;
use std::path::PathBuf;

use crate::chunk_id::ChunkId;

use super::ledger::Refusal;
use super::remedy;
use super::{MAX_TAG_BYTES, MAX_TAGS};

/// Why a pool could not be made, or could not do what it was asked to. The pool is as it was before the call.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The capacity is zero or beyond the address space.
    #[error("a pool of {capacity_bytes} bytes cannot be made")]
    Capacity {
        /// The capacity that was configured, in bytes.
        capacity_bytes: usize,
    },
    /// The host has set aside too few huge pages.
    #[error(transparent)]
    TooFewHugePages(#[from] TooFewHugePages),
    /// Ordinary pages were allowed, but the host has too little memory left for them.
    #[error(
        "a pool of {wanted_bytes} bytes in ordinary pages does not fit into the {available_bytes} bytes of memory that \
         this host has available"
    )]
    TooLittleMemory {
        /// Capacity of the pool, in bytes.
        wanted_bytes: usize,
        /// `MemAvailable` of /proc/meminfo, in bytes.
        available_bytes: usize,
    },
    /// The kernel refused the arena for a reason other than too few pages.
    #[error("the kernel refused {len_bytes} bytes of shared memory")]
    Map {
        /// Length of the arena in bytes.
        len_bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// The kernel had promised the memory but could not provide it, as happens under a `hugetlb` cgroup limit.
    #[error("the kernel promised {len_bytes} bytes of memory but could not provide all of them")]
    Populate {
        /// Length of the arena in bytes.
        len_bytes: usize,
        /// The kernel's error.
        source: io::Error,
    },
    /// One of the kernel's memory settings could not be read or written.
    #[error("cannot read or write {}", path.display())]
    Setting {
        /// The file that the kernel shows the setting in.
        path: PathBuf,
        /// The kernel's error, or `InvalidData` if the file does not contain the number.
        source: io::Error,
    },
    /// The kernel set aside fewer huge pages than it was asked for, for lack of contiguous memory. They were given back.
    #[error(
        "the kernel could set aside only {got} of {wanted} further huge pages of 2 MiB: memory is short or fragmented; \
         `vm.nr_hugepages` set at boot gets more"
    )]
    HugePagesRefused {
        /// Number of pages that were asked for.
        wanted: usize,
        /// Number of pages that the kernel could have given.
        got: usize,
    },
    /// There is no room. `free_bytes` may be enough in sum and yet lie in pieces that are all too small.
    #[error(
        "the pool is full: {wanted_bytes} bytes wanted, {free_bytes} of {capacity_bytes} free and not promised \
         elsewhere, the largest free piece has {largest_free_bytes}"
    )]
    Full {
        /// Bytes asked for, rounded up to the pool's granule.
        wanted_bytes: usize,
        /// Free bytes, less those that are promised to other reservations.
        free_bytes: usize,
        /// Size of the pool in bytes.
        capacity_bytes: usize,
        /// Length in bytes of the longest contiguous free range.
        largest_free_bytes: usize,
    },
    /// The text cannot be the name of a snapshot.
    #[error(
        "{name:?} is not a valid snapshot name: it needs 1 to 64 of the characters A-Z a-z 0-9 . _ - and must not begin \
         with a dot"
    )]
    InvalidName {
        /// The name that was given.
        name: String,
    },
    /// A snapshot already has the name, or another reservation has claimed it.
    #[error("the snapshot name {name:?} is taken")]
    NameTaken {
        /// The name that was asked for.
        name: String,
    },
    /// A tag's key is empty, or the key or the value is too long or contains control characters.
    #[error(
        "the key of the tag {key:?} is empty, or its key or value is longer than {MAX_TAG_BYTES} bytes or contains \
         control characters"
    )]
    InvalidTag {
        /// Key of the tag.
        key: String,
    },
    /// A snapshot was given too many tags.
    #[error("{tags} tags are too many: a snapshot can have at most {MAX_TAGS}")]
    TooManyTags {
        /// Number of tags that were given.
        tags: usize,
    },
    /// More would be unflushed than the battery protects, or there is no mains power.
    #[error("not admitted")]
    Refused(#[from] Refusal),
    /// No published snapshot has the name.
    #[error("there is no snapshot named {name:?}")]
    NotFound {
        /// The name that was looked for.
        name: String,
    },
    /// The reservation already holds a chunk with this region and index.
    #[error("the snapshot already has a chunk at {id}")]
    ChunkTaken {
        /// The chunk that was refused.
        id: ChunkId,
    },
    /// The reservation already holds a blob with this label.
    #[error("the snapshot already holds a blob labelled {label:?}")]
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

/// A shortage of huge pages, with the command that ends it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{wanted} huge pages of 2 MiB are needed, {available} of the host's {total} are free; as root, {} sets enough aside",
    self.remedy()
)]
pub struct TooFewHugePages {
    /// Number of 2 MiB pages that the pool, or the guests, take.
    pub wanted: usize,
    /// Number of the host's 2 MiB pages that are neither in use nor promised.
    pub available: usize,
    /// Number of 2 MiB pages that the host has set aside in all.
    pub total: usize,
}

impl TooFewHugePages {
    /// The command that sets enough pages aside, in backquotes.
    #[must_use]
    pub fn remedy(&self) -> String {
        remedy::command(self.total + self.wanted.saturating_sub(self.available))
    }
}
