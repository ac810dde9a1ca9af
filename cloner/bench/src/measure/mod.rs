//! Measures the coder on memory images: what kinds of pages they have, how small these get, and how fast.
//!
//! ```text
//! Image ─► HotEncoder ─► HotImage ─► Pages (the unique ones, the word-marked ones) ─► Baseline (lz4, zstd)
//!             │              │ ╲             ╱     │                                      │
//!             │              │   ColdCoder         │                                      │
//!             └──────────────┴──── passes of ──────┴────────── Rounds, PageRounds ────────┘
//! ```
//!
//! A pass is one encoding or decoding of everything it is about. [`Rounds`] runs all passes once per round, so that other work of
//! the machine affects all of them alike, and takes medians. Speeds are of one such run and mean something only when compared
//! with each other.
//!
//! All pages come from, and all decoding goes to, memory that has been touched and is asked to be in huge pages, as guest memory
//! is. If an image is larger than the caches, every byte is read from and written to memory.

mod baseline;
mod cold;
mod page_rounds;
mod pages;
mod rounds;

use std::io;

use cloner::image::buffer;
use cloner::progress::Watch;
use cloner::walk::StartError;
use cloner_codec::chunk::{CodecError, FormatError};
use serde::Serialize;

pub(crate) use baseline::{Baseline, BlockCoder, Blocks};
pub(crate) use cloner::image::{ByteRuns, EncodeOptions, HotEncoder, Image, OpenImage};
pub(crate) use cloner_cli::numbers::{PageCounts, gigabytes_per_second, median, percentile, quotient};
pub(crate) use cold::ColdCoder;
pub(crate) use page_rounds::{PagePassId, PageRounds};
pub(crate) use pages::{SelectedPages, decode, only};
pub(crate) use rounds::{PassId, Rounds};

/// Why something could not be measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An image cannot be read or encoded.
    #[error(transparent)]
    Image(#[from] cloner::image::Error),
    /// The threads that encode cannot be started.
    #[error("cannot prepare the encoder")]
    Threads(#[from] StartError),
    /// A chunk does not encode, or what was encoded does not decode.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What was encoded is damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// A baseline does not encode or decode a block.
    #[error("{0} does not give back what it was given")]
    Baseline(Baseline),
    /// A baseline cannot be set up.
    #[error("cannot set up {name}")]
    Setup {
        /// The baseline.
        name: Baseline,
        /// The compressor's reason.
        source: io::Error,
    },
    /// Decoded bytes differ from what was encoded.
    #[error("{what}: page {page} differs from what was encoded")]
    NotEqual {
        /// Name of the pass.
        what: String,
        /// Number of the first wrong page among those of the pass.
        page: usize,
    },
    /// The user asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// How long it takes to decode one page, in microseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct PageTimes {
    /// Half of the pages take no longer.
    pub(crate) p50: f64,
    /// 99 of 100 pages take no longer.
    pub(crate) p99: f64,
}

/// Counts bytes as done; fails if the user asked to stop.
fn advance(watch: Watch<'_>, bytes: usize) -> Result<(), Error> {
    watch.add(bytes as u64);
    if watch.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}

impl From<Error> for cloner_cli::Error {
    fn from(error: Error) -> Self {
        Self::Other(Box::new(error))
    }
}

#[cfg(test)]
mod tests;
