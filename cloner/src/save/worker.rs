//! The encoder and the scratch memory of one thread that encodes.

use cloner_codec::chunk::{CHUNK_BYTES, ENCODED_BYTES_MAX, PAGE_BYTES, Page};
use cloner_codec::hot::{Encoder, EncoderOptions};

/// The encoder and the scratch memory of one thread.
pub(super) struct Worker {
    pub(super) encoder: Encoder,
    /// The chunk's pages, copied out of guest memory.
    pub(super) pages: Vec<u8>,
    pub(super) encoded: Vec<u8>,
    /// The parent's chunk, decoded.
    pub(super) parent: Vec<u8>,
    /// A page to compare another with.
    pub(super) other: Box<Page>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

impl Worker {
    /// Makes a worker whose scratch memory has been touched already.
    pub(super) fn new() -> Self {
        // Not zeros: those would be mapped lazily, and so touched for the first time while a source stands still.
        let touched = |len| vec![0xff; len];
        let mut encoded = touched(ENCODED_BYTES_MAX);
        encoded.clear();
        Self {
            encoder: Encoder::new(EncoderOptions::default()),
            pages: touched(CHUNK_BYTES),
            encoded,
            parent: touched(CHUNK_BYTES),
            other: Box::new([0; PAGE_BYTES]),
        }
    }
}
