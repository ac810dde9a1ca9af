//! The memory of a guest as one file, page after page, and its encoding as a snapshot would have it.
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

pub use buffer::ByteRuns;
pub use encode::{EncodeOptions, HotEncoder, HotImage, OpenImage};

/// Why an image cannot be read, encoded or decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The image cannot be read.
    #[error("cannot read the image {}", path.display())]
    Read {
        /// Path of the image.
        path: PathBuf,
        /// The operating system's reason.
        source: io::Error,
    },
    /// The file is not a memory image.
    #[error(
        "{} is not a memory image: {bytes} bytes are not one or more whole pages of {PAGE_BYTES}",
        path.display()
    )]
    Size {
        /// Path of the file.
        path: PathBuf,
        /// Length of the file in bytes.
        bytes: u64,
    },
    /// The parent has another size, so it cannot be the memory of the same guest.
    #[error("the parent has {parent_bytes} bytes, the image {bytes}: both must be memory of the same size")]
    ParentSize {
        /// Size of the image in bytes.
        bytes: usize,
        /// Size of the parent in bytes.
        parent_bytes: usize,
    },
    /// A chunk could not be encoded, or an encoded chunk could not be decoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// An encoded chunk is damaged.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// A memory image. Every page of it counts as touched.
#[derive(Clone, Debug)]
pub struct Image {
    bytes: Vec<u8>,
}

impl Image {
    /// Reads an image from a file.
    ///
    /// # Errors
    /// [`Error::Read`] if the file cannot be read or memory for it is lacking; [`Error::Size`] if it is not one or more whole
    /// pages.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let failed = |source| Error::Read { path: path.to_owned(), source };
        let file = File::open(path).map_err(failed)?;
        let metadata = file.metadata().map_err(failed)?;
        if metadata.is_dir() {
            return Err(failed(io::ErrorKind::IsADirectory.into()));
        }
        let wrong = |bytes: u64| Error::Size { path: path.to_owned(), bytes };
        // The length is checked before reading, because a wrong file may be very large. A file without a length, such as a pipe, is
        // read to its end.
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

    /// Makes an image of these bytes; `None` if they are not one or more whole pages.
    #[must_use]
    pub fn from_bytes(bytes: Vec<u8>) -> Option<Self> {
        is_image_size(bytes.len() as u64).then_some(Self { bytes })
    }

    /// The image's bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of 4 KiB pages.
    #[must_use]
    pub fn page_count(&self) -> usize {
        self.bytes.len() / PAGE_BYTES
    }

    /// The chunks of 2 MiB. The last one may be shorter.
    pub fn chunks(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        self.bytes.chunks(CHUNK_BYTES)
    }

    /// The page with this number, if there is one. Only the last chunk can be short, so page numbers have no holes.
    #[must_use]
    pub fn page(&self, PageNumber(number): PageNumber) -> Option<&Page> {
        self.bytes.as_chunks().0.get(usize::try_from(number).ok()?)
    }
}

fn is_image_size(bytes: u64) -> bool {
    bytes > 0 && bytes.is_multiple_of(PAGE_BYTES as u64)
}

#[cfg(test)]
mod tests;
