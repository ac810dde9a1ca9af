//! The bit-marker coder of guest memory.
//!
//! A chunk of up to 512 pages is decomposed twice into vectors that markers stand for. First *pages*: a page that is
//! untouched, zero, one vector repeated, kept elsewhere already, or (nearly) equal to its parent needs only its page marker.
//! The rest is decomposed into vectors inside the page, in the way that serves the page better:
//!
//! - by **word markers**: 512 aligned eight-byte vectors, each with a three-bit tag that says zero, repeat, dictionary entry,
//!   partial match or literal ([`word`]);
//! - by **byte markers**: unaligned vectors named by where their bytes last stood in the page ([`byte`]);
//! - or not at all: a page that markers would not shrink is kept as it is.
//!
//! Every chunk is one self-contained run of bytes ([`crate::chunk`], `FORMAT.md`); every page of it decodes alone.
//!
//! # Using it
//!
//! Use one [`Encoder`] per worker thread, from chunk to chunk; it allocates only when it is made. Copy guest memory to a scratch
//! chunk first: the coder takes `&[u8]`, which must never refer to memory that a guest can write.
//!
//! ```
//! use cloner_codec::chunk::{NoResolve, TargetContents};
//! use cloner_codec::hot::{ChunkInput, Encoder, EncoderOptions, NoDedup, PageSet, VerifiedChunk, decode_chunk};
//!
//! // Two pages, as copied from a guest: the second was never touched.
//! let mut pages = vec![0; 2 * 4096];
//! pages[..4096].copy_from_slice(&[0xab; 4096]);
//! let mut touched = PageSet::EMPTY;
//! touched.insert(0);
//!
//! let mut encoder = Encoder::new(EncoderOptions::default());
//! let mut encoded = Vec::new();
//! let input = ChunkInput::new(&pages, &touched)?;
//! let stats = encoder.encode_chunk(&input, &mut NoDedup, &mut encoded);
//! assert_eq!(stats.encoded_bytes, encoded.len() as u64);
//!
//! // The receiver checks the bytes once, then decodes all pages or single ones.
//! let chunk = VerifiedChunk::verify(&encoded)?;
//! let mut memory = vec![0; pages.len()];
//! decode_chunk(&chunk, &NoResolve, TargetContents::Zeroed, &mut memory)?;
//! assert_eq!(memory, pages);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Pages kept elsewhere go through two small traits: while encoding, [`Dedup`] is asked whether an equal page exists; while
//! decoding, [`Resolve`](crate::chunk::Resolve) fetches it, or the parent's page. What a
//! [`PageRef`](crate::chunk::PageRef) means is up to the caller.

mod byte;
mod chunk;
mod decode;
mod encode;
#[cfg(test)]
mod naive;
mod narrow;
mod page;
mod patch;
mod select;
mod simd;
mod stats;
mod window;
mod word;

pub(crate) use chunk::Record;
pub use chunk::{KeptRecord, VerifiedChunk};
pub use decode::{decode_chunk, decode_chunk_on, decode_page};
pub use encode::{ChunkInput, Dedup, Encoder, EncoderOptions, NoDedup};
pub use page::PageSet;
pub use select::only_kind;
pub use simd::Backend;
pub use stats::{ChunkStats, KindStats};
pub use word::WordTag;

pub(crate) use page::fill as fill_page;
pub(crate) use patch::decode as apply_patch;

#[cfg(test)]
mod tests;
