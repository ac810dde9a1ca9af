//! What can be inspected, and how chunks with their figures come out of it.
//!
//! The report knows chunks only. A source to come, such as a folder that holds a snapshot, is one more variant of [`Source`] and
//! one more arm in each of its functions.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::super::clone::threads;
use super::super::interrupt;
use super::super::progress::{self, Spinner};
use crate::codec::{self, ChunkStats};
use crate::cold::{self, COLD_BYTES_MAX, VerifiedColdChunk};
use crate::format::{self, ENCODED_BYTES_MAX, VerifiedChunk};
use crate::measure::{self, HotEncoder, Image};

/// Why something cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub(in super::super) enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} starts as a chunk and has {bytes} bytes, a chunk at most {max_bytes}", path.display())]
    Large { path: PathBuf, bytes: u64, max_bytes: usize },
    #[error("{} is no whole chunk", path.display())]
    Hot { path: PathBuf, source: codec::Error },
    #[error("{} is no whole cold chunk", path.display())]
    Cold { path: PathBuf, source: cold::Error },
    #[error(transparent)]
    Image(#[from] measure::Error),
}

/// A file whose content has been read.
#[derive(Debug)]
pub(super) enum Source {
    /// The memory of a guest as it is.
    Image(Image),
    /// An encoded chunk.
    Hot(Vec<u8>),
    /// A chunk in cold form.
    Cold(Vec<u8>),
}

/// What a source turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum What {
    Image,
    HotChunk,
    ColdChunk,
}

impl What {
    /// What it is, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::HotChunk | Self::ColdChunk => "chunk",
        }
    }

    /// The form that the figures are of.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Image | Self::HotChunk => "hot form",
            Self::ColdChunk => "cold form",
        }
    }

    /// Bytes of an entry of the page map in this form.
    pub(super) fn map_entry_bytes(self) -> usize {
        match self {
            Self::Image | Self::HotChunk => format::MAP_ENTRY_BYTES,
            Self::ColdChunk => cold::MAP_ENTRY_BYTES,
        }
    }
}

impl Source {
    /// Reads a file. Its first bytes say what it is; without a chunk's magic, it is an image.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let _spinner = Spinner::new(format!("reading {}", path.display()));
        match magic(path) {
            Some(format::MAGIC) => Ok(Self::Hot(read_chunk(path, ENCODED_BYTES_MAX)?)),
            Some(cold::MAGIC) => Ok(Self::Cold(read_chunk(path, COLD_BYTES_MAX)?)),
            // What cannot be read is an image that cannot be read.
            _ => Ok(Self::Image(Image::read(path)?)),
        }
    }

    pub(super) fn what(&self) -> What {
        match self {
            Self::Image(_) => What::Image,
            Self::Hot(_) => What::HotChunk,
            Self::Cold(_) => What::ColdChunk,
        }
    }

    /// The figures of every chunk. An image is encoded for them, a chunk is checked. `path` is for messages.
    pub(super) fn chunks(&self, path: &Path) -> Result<Vec<ChunkStats>, Error> {
        match self {
            Self::Image(image) => Ok(encoded(image)?),
            Self::Hot(bytes) => {
                let wrong = |source| Error::Hot { path: path.to_owned(), source };
                let chunk = VerifiedChunk::verify(bytes).map_err(|error| wrong(error.into()))?;
                Ok(vec![ChunkStats::of(&chunk).map_err(wrong)?])
            }
            Self::Cold(bytes) => {
                let wrong = |source| Error::Cold { path: path.to_owned(), source };
                Ok(vec![VerifiedColdChunk::verify(bytes).map_err(wrong)?.stats()])
            }
        }
    }
}

/// The first bytes of a file; `None` if it is none, or shorter. A pipe is left alone: its bytes can be read once.
fn magic(path: &Path) -> Option<[u8; 4]> {
    let metadata = fs::metadata(path).ok()?;
    let mut bytes = [0; 4];
    metadata.is_file().then_some(())?;
    File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn read_chunk(path: &Path, max_bytes: usize) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let bytes = fs::metadata(path).map_err(failed)?.len();
    if bytes > max_bytes as u64 {
        return Err(Error::Large { path: path.to_owned(), bytes, max_bytes });
    }
    fs::read(path).map_err(failed)
}

fn encoded(image: &Image) -> Result<Vec<ChunkStats>, measure::Error> {
    let encoder = HotEncoder::new(threads())?;
    let progress = interrupt::progress();
    progress.start(image.bytes().len() as u64);
    let hot = progress::bar("encoding", &progress, || encoder.encode(image, None, &progress))?;
    Ok(hot.chunk_stats().to_vec())
}
