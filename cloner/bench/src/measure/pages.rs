//! Selects pages of an image: the unique ones, or those of one kind.

use cloner_codec::chunk::{ENCODED_BYTES_MAX, NoResolve, PAGE_BYTES, PageIndex, PageKind, TargetContents};
use cloner_codec::hot::{ChunkInput, Encoder, NoDedup, PageSet, VerifiedChunk, decode_chunk, only_kind};

use cloner::progress::Watch;

use super::{ByteRuns, Error, Image, OpenImage, advance, buffer};

/// Selected pages of an image, one after another, in groups: the pages of one chunk form a group.
#[derive(Clone, Debug)]
pub(crate) struct SelectedPages {
    bytes: Vec<u8>,
    /// Number of pages in each group; no group is empty.
    groups: Vec<usize>,
}

impl SelectedPages {
    /// Selects the pages whose kinds are wanted.
    #[must_use]
    pub(crate) fn select(image: &Image, opened: &OpenImage<'_>, wanted: impl Fn(PageKind) -> bool) -> Self {
        let selected = |chunk: &VerifiedChunk<'_>| -> Vec<usize> {
            let wanted = |page: &PageIndex| chunk.kind(*page).is_some_and(&wanted);
            chunk.page_indices().filter(wanted).map(PageIndex::get).collect()
        };
        let selected: Vec<Vec<usize>> = opened.chunks().iter().map(selected).collect();
        let mut bytes = buffer::with_capacity(selected.iter().map(Vec::len).sum::<usize>() * PAGE_BYTES);
        for (selected, chunk) in selected.iter().zip(image.chunks()) {
            let pages = selected.iter().map(|page| &chunk[page * PAGE_BYTES..][..PAGE_BYTES]);
            pages.for_each(|page| bytes.extend_from_slice(page));
        }
        let groups = selected.iter().map(Vec::len).filter(|&pages| pages > 0).collect();
        Self { bytes, groups }
    }

    /// The bytes of the pages.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Number of pages.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        self.bytes.len() / PAGE_BYTES
    }

    /// For each page, the number of its chunk and its place there, in what [`SelectedPages::encode`] makes.
    #[must_use]
    pub(crate) fn places(&self) -> Vec<(usize, usize)> {
        let places = |(group, &pages): (usize, &usize)| (0..pages).map(move |page| (group, page));
        self.groups.iter().enumerate().flat_map(places).collect()
    }

    /// Encodes each group as a chunk of its own, which is passed to `keep`.
    ///
    /// Page markers play no part: the pages are known to be unique, so no page markers are looked for.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if the user asked to stop.
    pub(crate) fn encode(
        &self,
        encoder: &mut Encoder,
        scratch: &mut Vec<u8>,
        watch: Watch<'_>,
        mut keep: impl FnMut(&[u8]),
    ) -> Result<(), Error> {
        for group in self.groups() {
            scratch.clear();
            encoder.encode_chunk(&ChunkInput::new(group, &PageSet::ALL)?, &mut NoDedup, scratch);
            keep(scratch);
            advance(watch, group.len())?;
        }
        Ok(())
    }

    /// Scratch memory for [`SelectedPages::encode`].
    #[must_use]
    pub(crate) fn scratch() -> Vec<u8> {
        buffer::touched(ENCODED_BYTES_MAX)
    }

    fn groups(&self) -> impl Iterator<Item = &[u8]> {
        self.groups.iter().scan(&self.bytes[..], |rest, pages| {
            let (group, after) = rest.split_at(pages * PAGE_BYTES);
            *rest = after;
            Some(group)
        })
    }
}

/// The same chunks with only the pages of one kind: records and dictionaries stay as they are, the other pages are left out.
///
/// This shows how fast and how small pages of that kind are *in their own chunk*: encoded anew without their neighbours they
/// would get another dictionary.
#[must_use]
pub(crate) fn only(chunks: &[VerifiedChunk<'_>], kind: PageKind) -> ByteRuns {
    let filtered: Vec<Vec<u8>> = chunks.iter().filter_map(|chunk| only_kind(chunk, kind)).collect();
    ByteRuns::of(&filtered)
}

/// Decodes chunks that need no resolver, one after another.
///
/// # Errors
/// The error of the first chunk that cannot be decoded, or [`Error::Cancelled`].
///
/// # Panics
/// If `target` is shorter than what the chunks decode to.
pub(crate) fn decode(chunks: &[VerifiedChunk<'_>], target: &mut [u8], watch: Watch<'_>) -> Result<(), Error> {
    let mut rest = target;
    for chunk in chunks {
        let (place, after) = rest.split_at_mut(chunk.page_count() * PAGE_BYTES);
        decode_chunk(chunk, &NoResolve, TargetContents::Unknown, place)?;
        advance(watch, place.len())?;
        rest = after;
    }
    Ok(())
}
