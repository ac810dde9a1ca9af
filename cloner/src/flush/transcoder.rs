//! Chunks of the pool in the form in which they are stored.

use cloner_codec::cold::{COLD_BYTES_MAX, ColdEncoder, Options, transcode_to_cold};
use cloner_codec::hot::VerifiedChunk;

use crate::pool::{Chunk, Stored};

use super::Error;
use super::seal::TAG_BYTES;

/// What one thread needs for it.
pub(super) struct Transcoder {
    encoder: Result<ColdEncoder, cloner_codec::cold::Error>,
    cold: Vec<u8>,
}

impl std::fmt::Debug for Transcoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Transcoder")
    }
}

impl Transcoder {
    /// With all the memory it needs.
    pub(super) fn new() -> Self {
        Self {
            encoder: ColdEncoder::new(Options::default()),
            cold: Vec::with_capacity(COLD_BYTES_MAX + TAG_BYTES),
        }
    }

    /// The cold form of a chunk.
    pub(super) fn cold_form(&mut self, stored: &Stored, chunk: &Chunk) -> Result<&[u8], Error> {
        let name = || stored.name().to_owned();
        let Self { encoder, cold } = self;
        let encoder = match encoder {
            Ok(encoder) => encoder,
            Err(_) => {
                *encoder = ColdEncoder::new(Options::default());
                encoder.as_mut().map_err(|_| Error::Transcode {
                    name: name(),
                    source: cloner_codec::cold::Error::Zstd {
                        step: "set up compression",
                        source: std::io::ErrorKind::OutOfMemory.into(),
                    },
                })?
            }
        };
        let key = chunk.key();
        let hot = VerifiedChunk::reopen(chunk.bytes()).map_err(|wrong| Error::InPool {
            name: name(),
            key,
            source: wrong.into(),
        })?;
        cold.clear();
        transcode_to_cold(&hot, encoder, cold).map_err(|source| Error::Transcode { name: name(), source })?;
        Ok(cold)
    }
}
