//! Encodes a whole image in hot form, as a snapshot would hold it.
//!
//! It is encoded like a snapshot in [`crate::save`]: each thread has an encoder, takes the next chunk, finds duplicates of pages
//! through one table for the whole image, and encodes into scratch memory of its own. Two steps are missing here, because they are
//! part of saving and not of coding: the copy out of guest memory before, and the copy into the pool after.

use std::sync::Mutex;

use cloner_codec::chunk::{
    CHUNK_BYTES, ENCODED_BYTES_MAX, Page, PageIndex, PageKind, PageRef, Resolve, ResolveError,
    TargetContents, page_hash,
};
use cloner_codec::hot::{
    ChunkInput, ChunkStats, Dedup, Encoder, EncoderOptions, PageSet, VerifiedChunk, decode_chunk, decode_page,
};

use crate::dedup::PageTable;
use crate::layout::{ChunkIndex, PageNumber};
use crate::progress::Watch;
use crate::sync::{into_inner, lock};
use crate::walk::{Threads, Walker};

use super::{ByteRuns, Error, Image};

/// Encodes and decodes whole images, on threads that other tools may share.
#[derive(Debug)]
pub struct HotEncoder {
    walker: Walker<Worker>,
}

struct Worker {
    encoder: Encoder,
    encoded: Vec<u8>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

/// How to encode an image. The default encodes all of it, and is neither counted nor cancelled.
#[derive(Debug, Clone, Copy, Default)]
pub struct EncodeOptions<'a> {
    /// Refer to this image, of the same size, for what is equal to it.
    pub parent: Option<&'a Image>,
    /// Counts the bytes of the image that are done, and cancels.
    pub watch: Watch<'a>,
}

/// An encoded image.
#[derive(Debug)]
pub struct HotImage {
    chunks: ByteRuns,
    stats: Vec<ChunkStats>,
}

/// An encoded image whose chunks have been verified, with everything that decoding them needs.
#[derive(Clone, Debug)]
pub struct OpenImage<'a> {
    chunks: Vec<VerifiedChunk<'a>>,
    parent: Option<&'a Image>,
}

impl HotEncoder {
    /// Makes the encoder and the scratch memory of each thread.
    #[must_use]
    pub fn new(threads: &Threads) -> Self {
        let make = || Worker {
            encoder: Encoder::new(EncoderOptions::default()),
            // Not zeros, because these would be mapped lazily and touched for the first time during a measurement.
            encoded: vec![0xff; ENCODED_BYTES_MAX],
        };
        Self { walker: Walker::new(threads, make) }
    }

    /// Number of threads.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.walker.threads()
    }

    /// Encodes an image and keeps the result.
    ///
    /// # Errors
    /// [`Error::ParentSize`] if the parent has another size than the image; [`Error::Cancelled`].
    pub fn encode(&self, image: &Image, options: &EncodeOptions<'_>) -> Result<HotImage, Error> {
        let kept = Mutex::new(Vec::with_capacity(image.chunks().len()));
        self.encode_into(image, options, |index, stats, encoded| {
            let kept = &mut *lock(&kept);
            kept.push((index, stats, encoded.to_vec()));
        })?;
        let mut kept = into_inner(kept);
        kept.sort_unstable_by_key(|(index, ..)| *index);
        let (stats, chunks): (Vec<_>, Vec<_>) =
            kept.into_iter().map(|(_, stats, encoded)| (stats, encoded)).unzip();
        Ok(HotImage { chunks: ByteRuns::of(&chunks), stats })
    }

    /// Encodes an image and discards the result. Meant for timing.
    ///
    /// # Errors
    /// As for [`HotEncoder::encode`].
    pub fn encode_only(&self, image: &Image, options: &EncodeOptions<'_>) -> Result<(), Error> {
        self.encode_into(image, options, |_, _, _| {})
    }

    fn encode_into(
        &self,
        image: &Image,
        &EncodeOptions { parent, watch }: &EncodeOptions<'_>,
        keep: impl Fn(usize, ChunkStats, &[u8]) + Sync,
    ) -> Result<(), Error> {
        if let Some(parent) = parent.filter(|parent| parent.bytes().len() != image.bytes().len()) {
            let (bytes, parent_bytes) = (image.bytes().len(), parent.bytes().len());
            return Err(Error::ParentSize { bytes, parent_bytes });
        }
        let table = PageTable::new(image.page_count());
        let parents = parent.map(|parent| parent.chunks().collect::<Vec<_>>());
        let chunks: Vec<(usize, &[u8])> = image.chunks().enumerate().collect();
        self.walker.walk(&chunks, |Worker { encoder, encoded }, &(index, bytes)| {
            let mut input = ChunkInput::new(bytes, &PageSet::ALL)?;
            if let Some(parents) = &parents {
                input = input.with_parent(parents[index])?;
            }
            let chunk = ChunkIndex(u32::try_from(index).expect("an image in memory has fewer chunks"));
            encoded.clear();
            let stats =
                encoder.encode_chunk(&input, &mut Duplicates { table: &table, image, chunk }, encoded);
            keep(index, stats, encoded);
            advance(watch, bytes.len())
        })
    }

    /// Decodes an image into memory whose content is unknown, so that every page is written.
    ///
    /// Checksums are not verified again, because opening the image has verified them.
    ///
    /// # Errors
    /// [`Error::Codec`] for a chunk that cannot be decoded; [`Error::Cancelled`].
    ///
    /// # Panics
    /// If `target` is shorter than the image.
    pub fn decode(&self, image: &OpenImage<'_>, target: &mut [u8], watch: Watch<'_>) -> Result<(), Error> {
        let places: Vec<_> = image.chunks.iter().zip(target.chunks_mut(CHUNK_BYTES)).enumerate().collect();
        assert_eq!(places.len(), image.chunks.len(), "room for the image");
        self.walker.walk_owned(places, |_, (index, (chunk, place))| {
            decode_chunk(chunk, &Resolver { image, chunk: index }, TargetContents::Unknown, place)?;
            advance(watch, place.len())
        })
    }
}

/// Tells the encoder whether an equal page is kept already.
struct Duplicates<'a> {
    table: &'a PageTable,
    image: &'a Image,
    chunk: ChunkIndex,
}

impl Dedup for Duplicates<'_> {
    fn find(&mut self, page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let number = PageNumber::new(self.chunk, page);
        let same = |candidate| self.image.page(candidate) == Some(bytes);
        self.table.find_or_insert(page_hash(bytes), number, same).map(|found| PageRef(found.0))
    }
}

impl HotImage {
    /// Number of bytes of all chunks together: headers, maps, dictionaries, records and slack.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.chunks.bytes()
    }

    /// How each chunk was encoded, by chunk number.
    #[must_use]
    pub fn chunk_stats(&self) -> &[ChunkStats] {
        &self.stats
    }

    /// How the chunks were encoded, summed over all of them.
    #[must_use]
    pub fn stats(&self) -> ChunkStats {
        self.stats.iter().fold(ChunkStats::default(), |mut sum, &stats| {
            sum += stats;
            sum
        })
    }

    /// Verifies every chunk of an image that has no parent.
    ///
    /// # Errors
    /// [`Error::Format`] for the first damaged chunk.
    pub fn open(&self) -> Result<OpenImage<'_>, Error> {
        let chunks = self.chunks.iter().map(VerifiedChunk::verify).collect::<Result<_, _>>()?;
        Ok(OpenImage { chunks, parent: None })
    }

    /// Verifies every chunk of an image whose pages refer to those of `parent`.
    ///
    /// # Errors
    /// Those of [`open`](Self::open).
    pub fn open_with_parent<'a>(&'a self, parent: &'a Image) -> Result<OpenImage<'a>, Error> {
        Ok(OpenImage { parent: Some(parent), ..self.open()? })
    }
}

impl<'a> OpenImage<'a> {
    /// The verified chunks.
    #[must_use]
    pub fn chunks(&self) -> &[VerifiedChunk<'a>] {
        &self.chunks
    }
}

/// Fetches the pages that one chunk refers to.
struct Resolver<'a> {
    image: &'a OpenImage<'a>,
    chunk: usize,
}

impl Resolve for Resolver<'_> {
    fn dup(&self, PageRef(reference): PageRef, out: &mut Page) -> Result<(), ResolveError> {
        let nowhere = || format!("page reference {reference:#x} leads nowhere");
        let (ChunkIndex(index), page) = PageNumber(reference).split().ok_or_else(nowhere)?;
        let chunk = self.image.chunks.get(index as usize).ok_or_else(nowhere)?;
        match chunk.kind(page) {
            // The first page with a content is never a duplicate itself, so this recursion ends. It may be a patch of the
            // parent's page.
            Some(PageKind::Dup) | None => Err(nowhere().into()),
            Some(_) => {
                let resolver = Resolver { image: self.image, chunk: index as usize };
                Ok(decode_page(chunk, page, &resolver, out).map(|_| ())?)
            }
        }
    }

    fn parent(&self, page: PageIndex, out: &mut Page) -> Result<(), ResolveError> {
        let chunk = ChunkIndex(u32::try_from(self.chunk)?);
        let number = PageNumber::new(chunk, page);
        let parent = self.image.parent.and_then(|parent| parent.page(number));
        *out = *parent.ok_or_else(|| format!("there is no page {} in a parent", number.0))?;
        Ok(())
    }
}

/// Counts processed bytes. Fails if the operation was cancelled.
fn advance(watch: Watch<'_>, bytes: usize) -> Result<(), Error> {
    watch.add(bytes as u64);
    if watch.is_cancelled() { Err(Error::Cancelled) } else { Ok(()) }
}
