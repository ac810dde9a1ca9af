//! Chunks in cold form: a whole image, as it would be flushed or sent, or some of its pages.
//!
//! Cold chunks are made from hot ones, which is what a pool holds, and decoded to memory. Pages that occur twice are copied last,
//! from where they have been decoded: to get each from its group, the whole group would have to be decompressed again.

use std::cell::RefCell;

use cloner_codec::chunk::{
    COLD_BYTES_MAX, PAGE_BYTES, Page, PageIndex, PageKind, PageRef, Resolve, ResolveError, TargetContents,
};
use cloner_codec::cold::{
    ColdDecoder, ColdEncoder, ColdOptions, VerifiedColdChunk, decode_chunk, transcode_to_cold,
};
use cloner_codec::hot::VerifiedChunk;

use cloner::progress::Watch;

use super::{ByteRuns, Error, advance, buffer};

/// Writes and reads cold chunks.
pub(crate) struct ColdCoder {
    encoder: ColdEncoder,
    decoder: ColdDecoder,
    encoded: Vec<u8>,
}

impl ColdCoder {
    /// Makes a coder with its scratch memory.
    ///
    /// # Errors
    /// [`Error::Codec`] if zstd does not have the level.
    pub(crate) fn new(options: ColdOptions) -> Result<Self, Error> {
        let encoded = buffer::touched(COLD_BYTES_MAX);
        Ok(Self { encoder: ColdEncoder::new(options)?, decoder: ColdDecoder::new()?, encoded })
    }

    /// Makes hot chunks cold and keeps the result.
    ///
    /// # Errors
    /// [`Error::Codec`] if a chunk cannot be transcoded, or [`Error::Cancelled`].
    pub(crate) fn encode(
        &mut self,
        chunks: &[VerifiedChunk<'_>],
        watch: Watch<'_>,
    ) -> Result<ByteRuns, Error> {
        let mut kept = Vec::with_capacity(chunks.len());
        self.encode_into(chunks, watch, |chunk| kept.push(chunk.to_vec()))?;
        Ok(ByteRuns::of(&kept))
    }

    /// Makes hot chunks cold and drops the result: this is what is timed.
    ///
    /// # Errors
    /// The same as those of [`ColdCoder::encode`].
    pub(crate) fn encode_only(
        &mut self,
        chunks: &[VerifiedChunk<'_>],
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        self.encode_into(chunks, watch, |_| {})
    }

    fn encode_into(
        &mut self,
        chunks: &[VerifiedChunk<'_>],
        watch: Watch<'_>,
        mut keep: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        for chunk in chunks {
            self.encoded.clear();
            transcode_to_cold(chunk, &mut self.encoder, &mut self.encoded)?;
            keep(&self.encoded);
            advance(watch, chunk.page_count() * PAGE_BYTES)?;
        }
        Ok(())
    }

    /// Decodes chunks one after another to memory whose content is unknown, so that every page is written. If their pages refer to
    /// others, the chunks must be those of a whole image.
    ///
    /// Checksums are not verified again: [`VerifiedColdChunk::verify`] has done so.
    ///
    /// # Errors
    /// The error of the first chunk that cannot be decoded, or [`Error::Cancelled`].
    ///
    /// # Panics
    /// If `target` is shorter than what the chunks decode to, or a page refers to one outside `target`.
    pub(crate) fn decode(
        &mut self,
        chunks: &[VerifiedColdChunk<'_>],
        target: &mut [u8],
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let later = DeferredReferences::default();
        let mut rest = &mut *target;
        for chunk in chunks {
            let (place, after) = rest.split_at_mut(chunk.page_count() * PAGE_BYTES);
            decode_chunk(chunk, &mut self.decoder, &later, TargetContents::Unknown, place)?;
            advance(watch, place.len())?;
            rest = after;
        }
        let kinds = chunks.iter().flat_map(|chunk| chunk.page_indices().map(|page| chunk.kind(page)));
        let duplicates = kinds.enumerate().filter(|(_, kind)| *kind == Some(PageKind::Dup));
        for ((page, _), PageRef(original)) in duplicates.zip(later.0.into_inner()) {
            let original = usize::try_from(original).expect("a page of an image in memory") * PAGE_BYTES;
            target.copy_within(original..original + PAGE_BYTES, page * PAGE_BYTES);
        }
        Ok(())
    }
}

/// Records references instead of following them.
#[derive(Default)]
struct DeferredReferences(RefCell<Vec<PageRef>>);

impl Resolve for DeferredReferences {
    fn dup(&self, reference: PageRef, _out: &mut Page) -> Result<(), ResolveError> {
        self.0.borrow_mut().push(reference);
        Ok(())
    }

    fn parent(&self, page: PageIndex, _out: &mut Page) -> Result<(), ResolveError> {
        Err(format!("page {page} refers to a parent, but there is none").into())
    }
}

impl std::fmt::Debug for ColdCoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ColdCoder")
    }
}
