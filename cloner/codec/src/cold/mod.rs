//! The cold form of encoded chunks, for snapshots that are flushed, sent or stored: smaller than the hot form, slower to read.
//!
//! Page markers stay as they are in the hot form, so every reference keeps its meaning. The unique pages, which the hot form
//! codes by word and byte markers, are kept as raw bytes in *groups* of at most sixteen, and each group is one zstd frame:
//! markers inside the frames would only hide from zstd what it finds better itself.
//!
//! ```text
//! ┌──────────┬────────────────────┬────────────────────┬────────────────────────┬───────────────────┐
//! │ header   │ page map           │ group table        │ records                │ groups            │
//! │ 24 bytes │ 4 bytes per page   │ 4 bytes per group  │ of FILL, DUP and PATCH │ one frame each    │
//! └──────────┴────────────────────┴────────────────────┴────────────────────────┴───────────────────┘
//! ```
//!
//! A reader of one page reads the front, which is small, and decompresses one group, which is at most 64 KiB. Every bound is
//! checked once, by [`VerifiedColdChunk::verify`]; the decompressed size of a group is known before zstd sees it.
//!
//! # Using it
//!
//! One [`ColdEncoder`] and one [`ColdDecoder`] per thread, reused from chunk to chunk.
//!
//! ```
//! use cloner_codec::chunk::{NoResolve, TargetContents};
//! use cloner_codec::hot::{self, ChunkInput, NoDedup, PageSet, VerifiedChunk};
//! use cloner_codec::cold::{self, ColdDecoder, ColdEncoder, VerifiedColdChunk};
//!
//! let pages: Vec<u8> = (0..40_000_u32).flat_map(u32::to_le_bytes).take(16 * 4096).collect();
//! let mut encoder = hot::Encoder::new(hot::EncoderOptions::default());
//! let mut hot = Vec::new();
//! encoder.encode_chunk(&ChunkInput::new(&pages, &PageSet::ALL)?, &mut NoDedup, &mut hot);
//!
//! let mut cold = Vec::new();
//! let mut cold_encoder = ColdEncoder::new(cold::ColdOptions { level: 1 })?;
//! let stats = cold::transcode_to_cold(&VerifiedChunk::verify(&hot)?, &mut cold_encoder, &mut cold)?;
//! assert_eq!(stats.encoded_bytes, cold.len() as u64);
//!
//! // The receiver can decode it as it is, or make it hot again.
//! let chunk = VerifiedColdChunk::verify(&cold)?;
//! let mut decoder = ColdDecoder::new()?;
//! let mut memory = vec![0; pages.len()];
//! cold::decode_chunk(&chunk, &mut decoder, &NoResolve, TargetContents::Zeroed, &mut memory)?;
//! assert_eq!(memory, pages);
//!
//! let mut hot_again = Vec::new();
//! cold::transcode_to_hot(&chunk, &mut decoder, &mut encoder, &mut hot_again)?;
//! assert_eq!(hot_again, hot);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod chunk;
mod decode;
mod group;
mod stats;
mod to_cold;
mod to_hot;

pub use chunk::VerifiedColdChunk;
pub use decode::{ColdDecoder, decode_chunk, decode_page};
pub use stats::ColdStats;
pub use to_cold::{ColdEncoder, ColdOptions, LEVEL_MAX, LEVEL_MIN, transcode_to_cold};
pub use to_hot::transcode_to_hot;

#[cfg(test)]
mod tests;
