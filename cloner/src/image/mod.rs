//! The memory of a guest as one file, page after page, and what a snapshot would make of it.
//!
//! ```text
//! Image ─► HotEncoder ─► HotImage ─► OpenImage ─► HotEncoder ─► the same bytes
//! ```

pub mod buffer;
mod encode;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cloner_codec::chunk::{CHUNK_BYTES, CodecError, FormatError, PAGE_BYTES, Page};

use crate::layout::PageNumber;
use crate::walk::StartError;

pub use buffer::Stored;
pub use encode::{HotEncoder, HotImage, OpenImage};

/// Why an image cannot be read, encoded or decoded.
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
    /// A file is not a memory image.
    #[error(
        "{} is not a memory image: {bytes} bytes are not one or more whole pages of {PAGE_BYTES}",
        path.display()
    )]
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
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// What was encoded is damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// Threads cannot be started.
    #[error("threads")]
    Threads(#[from] StartError),
    /// The caller asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// A memory image. Every page of it counts as touched.
#[derive(Clone, Debug)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Reads an image.
    ///
    /// # Errors
    /// If the file cannot be read, or is not one or more whole pages.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let wrong = |bytes: u64| Error::Size { path: path.to_owned(), bytes };
        // Before reading: a wrong file may be a very large one. What has no length, such as a pipe, is read to its end.
        let expected = metadata.is_file().then_some(metadata.len());
        if let Some(bytes) = expected.filter(|&bytes| !is_image_size(bytes)) {
            return Err(wrong(bytes));
        }
        let capacity =
            usize::try_from(expected.unwrap_or(0)).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
        let mut bytes = buffer::try_with_capacity(capacity).map_err(|error| failed(error.into()))?;
        (&file).read_to_end(&mut bytes).map_err(failed)?;
        let read = bytes.len() as u64;
        Self::from_bytes(bytes).ok_or_else(|| wrong(read))
    }

    /// The image with these bytes; `None` if they are not one or more whole pages.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        is_image_size(bytes.len() as u64).then_some(Self { bytes })
    }

    /// All bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of pages.
    #[must_use]
    pub fn page_count(&self) -> usize {
        self.bytes.len() / PAGE_BYTES
    }

    /// The chunks, the last of which may be shorter.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes.chunks(CHUNK_BYTES)
    }

    /// A page by its number. Only the last chunk can be short, so page numbers have no holes.
    #[must_use]
    pub fn page(&self, PageNumber(number): PageNumber) -> Option<&Page> {
        self.bytes.as_chunks().0.get(usize::try_from(number).ok()?)
    }
}

fn is_image_size(bytes: u64) -> bool {
    bytes > 0 && bytes.is_multiple_of(PAGE_BYTES as u64)
}
