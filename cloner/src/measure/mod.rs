//! Measuring the coder on memory images: what pages are made of, how small they get and how fast.
//!
//! ```text
//! Image ─► HotEncoder ─► HotImage ─► Pages (the unique ones, the word-marked ones) ─► Baseline (lz4, zstd)
//!             │              │ ╲             ╱     │                                      │
//!             │              │   ColdCoder         │                                      │
//!             └──────────────┴──── passes of ──────┴────────── Rounds, PageRounds ────────┘
//! ```
//!
//! A pass is one encoding or decoding of everything it is about. [`Rounds`] runs all passes once per round, so that what else
//! the machine does hits all of them alike, and takes medians. Speeds are of one such run and mean something only beside each
//! other.
//!
//! All pages come from, and all decoding goes to, memory that has been touched and is asked to be in huge pages, as a guest's
//! is. Where an image is larger than the caches, every byte is read from and written to memory.

mod baseline;
mod cold;
mod hot;
mod image;
mod memory;
mod numbers;
mod page_rounds;
mod pages;
mod rounds;

use std::io;
use std::path::PathBuf;

use cloner_codec::chunk::{CodecError, FormatError, PAGE_BYTES};

use crate::walk::{Progress, StartError};

pub use baseline::{Baseline, BlockCoder, Blocks, Method};
pub use cold::ColdCoder;
pub use hot::{HotEncoder, HotImage, OpenImage};
pub use image::Image;
pub use memory::Stored;
pub(crate) use numbers::percentile;
pub use numbers::{PageCounts, PageTimes, gigabytes_per_second, median, quotient};
pub use page_rounds::{PagePassId, PageRounds};
pub use pages::{Pages, decode, only};
pub use rounds::{PassId, Rounds};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An image cannot be read.
    #[error("cannot read the image {}", path.display())]
    Read {
        /// Its path.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is no memory image.
    #[error("{} is no memory image: {bytes} bytes are not one or more whole pages of {PAGE_BYTES}", path.display())]
    Size {
        /// Its path.
        path: PathBuf,
        /// Its length.
        bytes: u64,
    },
    /// A parent is not of the same guest.
    #[error("the parent has {parent_bytes} bytes, the image {bytes}: both must be memory of the same size")]
    ParentSize {
        /// Bytes of the image.
        bytes: usize,
        /// Bytes of the parent.
        parent_bytes: usize,
    },
    /// A chunk does not encode, or what was encoded does not decode.
    #[error("the coder")]
    Codec(#[from] CodecError),
    /// What was encoded is damaged.
    #[error("the coder")]
    Format(#[from] FormatError),
    /// A baseline fails.
    #[error("{0} does not give back what it was given")]
    Baseline(Baseline),
    /// A baseline cannot be set up.
    #[error("cannot set up {name}")]
    Setup {
        /// Its name.
        name: Baseline,
        /// What it says.
        source: io::Error,
    },
    /// Decoded bytes are not what was encoded.
    #[error("{what}: page {page} is not what was encoded")]
    NotEqual {
        /// The pass.
        what: String,
        /// The first wrong page among those of the pass.
        page: usize,
    },
    /// Threads cannot be started.
    #[error("threads")]
    Threads(#[from] StartError),
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// Counts bytes done; an error if somebody asked to stop.
fn advance(progress: &Progress, bytes: usize) -> Result<(), Error> {
    progress.add(bytes as u64);
    if progress.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

#[cfg(test)]
pub(crate) mod tests;
