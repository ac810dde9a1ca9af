//! From a cold chunk to pages: all of them, or any one.

use zstd::bulk::Decompressor;

use crate::chunk::{
    CHUNK_PAGES, CodecError, FormatError, GROUP_BYTES, GROUP_PAGES, PAGE_BYTES, Page, PageIndex, PageKind,
    PageRef, Resolve, ResolveError, TargetContents,
};
use crate::hot::{apply_patch, fill_page};

use super::VerifiedColdChunk;
use super::chunk::Marker;
use super::group::Group;

/// Decodes cold chunks, one after another. Keep one per thread: it holds zstd's context and the scratch memory.
pub struct ColdDecoder {
    pub(super) groups: GroupDecoder,
    /// The unique pages of a chunk on its way to the hot form; allocated when the first chunk is made hot.
    pub(super) chunk: Vec<u8>,
}

pub(super) struct GroupDecoder {
    context: Decompressor<'static>,
    /// The pages of a group that cannot be decompressed in place.
    pages: Box<[u8]>,
}

impl ColdDecoder {
    /// Makes a decoder with its scratch memory.
    ///
    /// # Errors
    /// [`CodecError::Zstd`] if there is not enough memory for zstd's context.
    pub fn new() -> Result<Self, CodecError> {
        let context = Decompressor::new()
            .map_err(|source| CodecError::Zstd { step: "set up decompression", source })?;
        let groups = GroupDecoder { context, pages: vec![0; GROUP_BYTES].into() };
        Ok(Self { groups, chunk: Vec::new() })
    }
}

impl GroupDecoder {
    /// Writes the unique pages of a chunk to their places in `pages`, and nothing else.
    pub(super) fn decode_chunk(
        &mut self,
        chunk: &VerifiedColdChunk<'_>,
        pages: &mut [Page],
    ) -> Result<(), CodecError> {
        let mut places = [0; CHUNK_PAGES];
        for (page, marker) in chunk.markers() {
            if let Marker::Unique { rank } = marker {
                places[rank] = page.get();
            }
        }
        let places = &places[..chunk.unique_pages()];
        for (number, places) in places.chunks(GROUP_PAGES).enumerate() {
            self.decode_to(chunk.group(number), places, pages)?;
        }
        Ok(())
    }

    /// Writes a group's pages to their places: directly where those adjoin, otherwise by way of the scratch memory.
    fn decode_to(
        &mut self,
        group: Group<'_>,
        places: &[usize],
        pages: &mut [Page],
    ) -> Result<(), CodecError> {
        let (first, last) = (places[0], places[places.len() - 1]);
        if last - first + 1 == places.len() {
            return decompress(&mut self.context, group, pages[first..=last].as_flattened_mut());
        }
        for (&place, page) in places.iter().zip(self.decode(group)?) {
            pages[place] = *page;
        }
        Ok(())
    }

    /// Returns a group's pages.
    fn decode<'a>(&'a mut self, group: Group<'a>) -> Result<&'a [Page], CodecError> {
        if let Some(stored) = group.stored() {
            return Ok(stored.as_chunks().0);
        }
        let pages = &mut self.pages[..group.page_bytes];
        decompress(&mut self.context, group, pages)?;
        Ok(pages.as_chunks().0)
    }
}

fn decompress(context: &mut Decompressor<'_>, group: Group<'_>, pages: &mut [u8]) -> Result<(), CodecError> {
    if let Some(stored) = group.stored() {
        pages.copy_from_slice(stored);
        return Ok(());
    }
    let Group { number, coded, page_bytes } = group;
    let actual_bytes = context
        .decompress_to_buffer(coded, pages)
        .map_err(|source| CodecError::GroupContent { group: number, source })?;
    if actual_bytes != page_bytes {
        return Err(CodecError::GroupLength { group: number, page_bytes, actual_bytes });
    }
    Ok(())
}

/// Decodes all pages of a chunk into `memory`, which must be exactly as long as they are.
///
/// # Errors
/// [`CodecError::MemoryLength`] if `memory` has another length; otherwise the first page or group that cannot be decoded, and
/// `memory` may then hold anything.
pub fn decode_chunk(
    chunk: &VerifiedColdChunk<'_>,
    decoder: &mut ColdDecoder,
    resolver: &impl Resolve,
    contents: TargetContents,
    memory: &mut [u8],
) -> Result<(), CodecError> {
    let (chunk_bytes, memory_bytes) = (chunk.page_count() * PAGE_BYTES, memory.len());
    if chunk_bytes != memory_bytes {
        return Err(CodecError::MemoryLength { chunk_bytes, memory_bytes });
    }
    let pages = memory.as_chunks_mut().0;
    for ((index, marker), page) in chunk.markers().zip(&mut *pages) {
        if contents == TargetContents::Zeroed && marker.kind().reads_zero() {
            continue;
        }
        decode_marker(index, marker, resolver, page)?;
    }
    decoder.groups.decode_chunk(chunk, pages)
}

/// Decodes one page and returns its kind, RAW if it was kept in a group. Decompresses at most one group.
///
/// # Errors
/// If the chunk ends before the page, its group or record is not one that an encoder writes, or the resolver fails.
pub fn decode_page(
    chunk: &VerifiedColdChunk<'_>,
    index: PageIndex,
    decoder: &mut ColdDecoder,
    resolver: &impl Resolve,
    page: &mut Page,
) -> Result<PageKind, CodecError> {
    let beyond = FormatError::Page { page: index, page_count: chunk.page_count() };
    let (_, marker) = chunk.markers().nth(index.get()).ok_or(CodecError::Format(beyond))?;
    if let Marker::Unique { rank } = marker {
        let group = decoder.groups.decode(chunk.group(rank / GROUP_PAGES))?;
        *page = group[rank % GROUP_PAGES];
    }
    decode_marker(index, marker, resolver, page)?;
    Ok(marker.kind())
}

/// Writes a page that is not kept in a group.
fn decode_marker(
    index: PageIndex,
    marker: Marker<'_>,
    resolver: &impl Resolve,
    page: &mut Page,
) -> Result<(), CodecError> {
    let resolved = |result: Result<(), ResolveError>| {
        result.map_err(|source| CodecError::Resolve { page: index, kind: marker.kind(), source })
    };
    match marker {
        Marker::Untouched | Marker::Zero => page.fill(0),
        Marker::Fill(vector) => fill_page(u64::from_le_bytes(*vector), page),
        Marker::Dup(reference) => resolved(resolver.dup(PageRef(u64::from_le_bytes(*reference)), page))?,
        Marker::Parent => resolved(resolver.parent(index, page))?,
        Marker::Patch(record) => {
            resolved(resolver.parent(index, page))?;
            apply_patch(record, page).map_err(|source| CodecError::Record {
                page: index,
                kind: PageKind::Patch,
                source,
            })?;
        }
        Marker::Unique { .. } => {}
    }
    Ok(())
}
