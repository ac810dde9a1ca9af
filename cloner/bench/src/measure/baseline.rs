//! The baselines: lz4 and zstd on the same pages, block by block.

use cloner_codec::chunk::{CHUNK_BYTES, GROUP_BYTES};

use crate::sys::lz4;
use cloner::progress::Watch;

use super::{ByteRuns, Error, advance, buffer};

/// A general-purpose compressor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    /// The C library lz4: `LZ4_compress_default` and `LZ4_decompress_safe`.
    Lz4,
    /// The C library zstd at this level. Its contexts are made once, as anyone who cares about speed would do.
    Zstd {
        /// The compression level.
        level: i32,
    },
}

/// A compressor and the size of the blocks it gets, each of which decodes alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Baseline {
    /// The compressor.
    pub(crate) method: Method,
    /// Bytes of a block, a power of two from a page to a chunk.
    pub(crate) block_bytes: usize,
}

impl Baseline {
    /// lz4 on single pages, which everything is compared with.
    pub(crate) const LZ4_PAGE: Self = Self { method: Method::Lz4, block_bytes: 4 << 10 };

    /// zstd on blocks as large as the groups of cold chunks, to compare those with.
    pub(crate) const ZSTD_GROUP: Self = Self { method: Method::Zstd { level: 1 }, block_bytes: GROUP_BYTES };

    /// All baselines that are measured.
    pub(crate) const ALL: [Self; 4] = [
        Self::LZ4_PAGE,
        Self { method: Method::Zstd { level: 1 }, block_bytes: 4 << 10 },
        Self::ZSTD_GROUP,
        Self { method: Method::Zstd { level: 1 }, block_bytes: 2 << 20 },
    ];

    /// The name in JSON, such as `lz4_4k`.
    #[must_use]
    pub(crate) fn key(self) -> String {
        let (unit, letter) = self.block();
        match self.method {
            Method::Lz4 => format!("lz4_{unit}{letter}"),
            Method::Zstd { level } => format!("zstd{level}_{unit}{letter}"),
        }
    }

    /// Whether the blocks are single pages, so that pages can be decoded alone.
    #[must_use]
    pub(crate) fn decodes_pages(self) -> bool {
        self.block_bytes == cloner_codec::chunk::PAGE_BYTES
    }

    fn block(self) -> (usize, char) {
        if self.block_bytes >= 1 << 20 {
            (self.block_bytes >> 20, 'm')
        } else {
            (self.block_bytes >> 10, 'k')
        }
    }
}

impl std::fmt::Display for Baseline {
    /// The name for people, such as `lz4, 4 KiB`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, letter) = self.block();
        let name = match self.method {
            Method::Lz4 => format!("lz4, {unit} {}iB", letter.to_ascii_uppercase()),
            Method::Zstd { level } => format!("zstd -{level}, {unit} {}iB", letter.to_ascii_uppercase()),
        };
        f.pad(&name)
    }
}

/// Encodes and decodes blocks.
pub(crate) struct BlockCoder {
    baseline: Baseline,
    state: CoderState,
    /// The compressed blocks of one chunk's worth of bytes: as much scratch memory as the hot form's encoder has.
    scratch: Vec<u8>,
    ends: Vec<usize>,
}

enum CoderState {
    Lz4,
    Zstd { compressor: zstd::bulk::Compressor<'static>, decompressor: zstd::bulk::Decompressor<'static> },
}

/// Encoded blocks, and the size that they decode to.
#[derive(Clone, Debug)]
pub(crate) struct Blocks {
    blocks: ByteRuns,
}

impl Blocks {
    /// Bytes of all blocks and nothing else: where each lies must be known from elsewhere.
    #[must_use]
    pub(crate) fn bytes(&self) -> u64 {
        self.blocks.bytes()
    }
}

impl BlockCoder {
    /// Sets up a compressor.
    ///
    /// # Errors
    /// If zstd refuses the level.
    pub(crate) fn new(baseline: Baseline) -> Result<Self, Error> {
        let failed = |source| Error::Setup { name: baseline, source };
        let (state, bound) = match baseline.method {
            Method::Lz4 => (CoderState::Lz4, lz4::compress_bound(baseline.block_bytes)),
            Method::Zstd { level } => {
                let compressor = zstd::bulk::Compressor::new(level).map_err(failed)?;
                let decompressor = zstd::bulk::Decompressor::new().map_err(failed)?;
                let state = CoderState::Zstd { compressor, decompressor };
                (state, zstd::zstd_safe::compress_bound(baseline.block_bytes))
            }
        };
        Ok(Self { baseline, state, scratch: buffer::touched(CHUNK_BYTES + bound), ends: Vec::new() })
    }

    /// Encodes `bytes` and keeps the result.
    ///
    /// # Errors
    /// [`Error::Baseline`] if the compressor fails, or [`Error::Cancelled`].
    pub(crate) fn encode(&mut self, bytes: &[u8], watch: Watch<'_>) -> Result<Blocks, Error> {
        let mut blocks = ByteRuns::with_capacity(bytes.len());
        self.encode_into(bytes, watch, |block| blocks.push(block))?;
        Ok(Blocks { blocks })
    }

    /// Encodes `bytes` and drops the result: this is what is timed.
    ///
    /// # Errors
    /// The same as those of [`BlockCoder::encode`].
    pub(crate) fn encode_only(&mut self, bytes: &[u8], watch: Watch<'_>) -> Result<(), Error> {
        self.encode_into(bytes, watch, |_| {})
    }

    fn encode_into(
        &mut self,
        bytes: &[u8],
        watch: Watch<'_>,
        mut keep: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        for span in bytes.chunks(CHUNK_BYTES) {
            self.ends.clear();
            let mut end = 0;
            for block in span.chunks(self.baseline.block_bytes) {
                end += self.encode_block(block, end)?;
                self.ends.push(end);
            }
            let mut start = 0;
            for &end in &self.ends {
                keep(&self.scratch[start..end]);
                start = end;
            }
            advance(watch, span.len())?;
        }
        Ok(())
    }

    /// Compresses a block to position `at` of the scratch memory. A block that does not shrink is kept as it is, as any store
    /// would do.
    fn encode_block(&mut self, block: &[u8], at: usize) -> Result<usize, Error> {
        let out = &mut self.scratch[at..];
        let written = match &mut self.state {
            CoderState::Lz4 => lz4::compress(block, out),
            CoderState::Zstd { compressor, .. } => compressor.compress_to_buffer(block, out).ok(),
        };
        match written.ok_or(Error::Baseline(self.baseline))? {
            written if written < block.len() => Ok(written),
            _ => {
                out[..block.len()].copy_from_slice(block);
                Ok(block.len())
            }
        }
    }

    /// Decodes all blocks to `target`, which must be as long as what was encoded.
    ///
    /// # Errors
    /// [`Error::Baseline`] if a block does not decode, or [`Error::Cancelled`].
    pub(crate) fn decode(
        &mut self,
        blocks: &Blocks,
        target: &mut [u8],
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let each_span = CHUNK_BYTES / self.baseline.block_bytes;
        for (span_index, span) in target.chunks_mut(CHUNK_BYTES).enumerate() {
            for (index, place) in span.chunks_mut(self.baseline.block_bytes).enumerate() {
                self.decode_block(blocks, span_index * each_span + index, place)?;
            }
            advance(watch, span.len())?;
        }
        Ok(())
    }

    /// Decodes one block.
    ///
    /// # Errors
    /// [`Error::Baseline`] if the block does not decode.
    pub(crate) fn decode_block(
        &mut self,
        blocks: &Blocks,
        block: usize,
        place: &mut [u8],
    ) -> Result<(), Error> {
        let encoded = blocks.blocks.get(block);
        if encoded.len() == place.len() {
            place.copy_from_slice(encoded);
            return Ok(());
        }
        let expected = place.len();
        let written = match &mut self.state {
            CoderState::Lz4 => lz4::decompress(encoded, place),
            CoderState::Zstd { decompressor, .. } => decompressor.decompress_to_buffer(encoded, place).ok(),
        };
        if written == Some(expected) { Ok(()) } else { Err(Error::Baseline(self.baseline)) }
    }
}

impl std::fmt::Debug for BlockCoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BlockCoder").field("baseline", &self.baseline).finish_non_exhaustive()
    }
}
