//! Transcodes chunks of the pool into the form in which they are stored.

use cloner_codec::chunk::{COLD_BYTES_MAX, CodecError};
use cloner_codec::cold::{ColdEncoder, ColdOptions, transcode_to_cold};
use cloner_codec::hot::VerifiedChunk;

use crate::pool::{StoredChunk, StoredSnapshot};

use super::Error;
use super::encrypt::TAG_BYTES;

/// What one thread needs for transcoding.
pub(super) struct Transcoder {
    /// `None` if there was no memory for it; the next chunk then tries again.
    encoder: Option<ColdEncoder>,
    cold: Vec<u8>,
}

impl std::fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transcoder")
    }
}

impl Transcoder {
    /// Makes a transcoder with all the memory that it needs.
    pub(super) fn new() -> Self {
        Self {
            encoder: ColdEncoder::new(ColdOptions::default()).ok(),
            cold: Vec::with_capacity(COLD_BYTES_MAX + TAG_BYTES),
        }
    }

    /// Returns the cold form of a chunk, in memory that the next call overwrites.
    pub(super) fn cold_form(&mut self, stored: &StoredSnapshot, chunk: &StoredChunk) -> Result<&[u8], Error> {
        let name = || stored.name().to_owned();
        let Self { encoder, cold } = self;
        let encoder = match encoder {
            Some(encoder) => encoder,
            None => encoder.insert(
                ColdEncoder::new(ColdOptions::default())
                    .map_err(|source| Error::Transcode { name: name(), source })?,
            ),
        };
        let (region, index) = chunk.id().place();
        let failed = |source| match source {
            CodecError::Zstd { .. } => Error::Transcode { name: name(), source },
            source => Error::InPool { name: name(), region, index, source },
        };
        let hot = VerifiedChunk::reopen(chunk.bytes()).map_err(|wrong| failed(wrong.into()))?;
        cold.clear();
        transcode_to_cold(&hot, encoder, cold).map_err(failed)?;
        Ok(cold)
    }
}
