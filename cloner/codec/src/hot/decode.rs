//! From an encoded chunk to pages: all of them, or any one.

use std::cell::Cell;

use crate::chunk::{
    CodecError, PAGE_BYTES, Page, PageIndex, PageKind, PageRef, RecordError, Resolve, TargetContents,
};
use crate::hot::{Record, VerifiedChunk};

use super::byte::{ByteDecode, ByteDecodeBoth};
use super::page::fill;
use super::simd::{Kernel, Lanes, Window};
use super::word::WordDecode;
use super::{Backend, patch};

/// Decodes all pages of a chunk into `memory`, which must be exactly as long as they are.
///
/// # Errors
/// [`CodecError::MemoryLength`] if `memory` has another length; otherwise the error of a page that cannot be decoded, and
/// `memory` may then hold anything.
pub fn decode_chunk(
    chunk: &VerifiedChunk<'_>,
    resolver: &impl Resolve,
    contents: TargetContents,
    memory: &mut [u8],
) -> Result<(), CodecError> {
    decode_chunk_on(Backend::detect(), chunk, resolver, contents, memory)
}

/// Does the same as [`decode_chunk`] on a given backend: for tests and comparisons.
///
/// # Errors
/// The same as those of [`decode_chunk`].
pub fn decode_chunk_on(
    backend: Backend,
    chunk: &VerifiedChunk<'_>,
    resolver: &impl Resolve,
    contents: TargetContents,
    memory: &mut [u8],
) -> Result<(), CodecError> {
    let (chunk_bytes, memory_bytes) = (chunk.page_count() * PAGE_BYTES, memory.len());
    if chunk_bytes != memory_bytes {
        return Err(CodecError::MemoryLength { chunk_bytes, memory_bytes });
    }
    let mut scratch = PageScratch::new();
    let mut past_caches = backend.past_caches();
    let mut write = |decoded: &Page, page: &mut Page| match contents {
        TargetContents::Zeroed | TargetContents::Unknown => past_caches.write(decoded, page),
        TargetContents::Scratch => *page = *decoded,
    };
    // Byte-marked pages are decoded two at a time. This one waits for a second.
    let mut waiting = None;
    for (index, page) in chunk.page_indices().zip(memory.as_chunks_mut().0) {
        let (kind, record) = chunk.record(index)?;
        backend.run(FetchAhead(record.bytes()));
        if contents == TargetContents::Zeroed && kind.reads_zero() {
            continue;
        }
        if kind != PageKind::ByteMarked {
            write(scratch.decode(backend, chunk, index, (kind, record), resolver)?, page);
        } else if let Some((first_index, first_record, first_page)) = waiting.take() {
            let [first, second] =
                scratch.decode_both(backend, [first_index, index], [first_record, record])?;
            write(first, first_page);
            write(second, page);
        } else {
            waiting = Some((index, record, page));
        }
    }
    if let Some((index, record, page)) = waiting {
        write(scratch.decode(backend, chunk, index, (PageKind::ByteMarked, record), resolver)?, page);
    }
    Ok(())
}

/// Decodes one page and returns its kind. The cost does not depend on how large the chunk is.
///
/// # Errors
/// If the chunk ends before the page, its record is not one that an encoder writes, or the resolver fails.
pub fn decode_page(
    chunk: &VerifiedChunk<'_>,
    index: PageIndex,
    resolver: &impl Resolve,
    page: &mut Page,
) -> Result<PageKind, CodecError> {
    let (kind, record) = chunk.record(index)?;
    // 22 KiB of scratch memory are kept for the next page. A resolver that decodes pages itself finds none there and makes its own.
    thread_local!(static SCRATCH: Cell<Option<Box<PageScratch>>> = const { Cell::new(None) });
    let mut scratch = SCRATCH.take().unwrap_or_else(|| Box::new(PageScratch::new()));
    let decoded = scratch.decode(Backend::detect(), chunk, index, (kind, record), resolver);
    let written = decoded.map(|decoded| *page = *decoded);
    SCRATCH.set(Some(scratch));
    written.map(|()| kind)
}

/// Fetches the records of pages to come while one is decoded. They lie one after the other, but each is read as several
/// streams at once, which processors do not predict.
struct FetchAhead<'a>(&'a [u8]);

impl FetchAhead<'_> {
    /// About eight records, which fit in the second-level cache.
    const BYTES: usize = 16 << 10;
}

impl Kernel for FetchAhead<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) {
        lanes.fetch_ahead(self.0, Self::BYTES);
    }
}

/// Where pages are put together: memory that stays in the first-level cache, unlike the place the pages go to.
#[repr(align(64))]
struct PageScratch {
    page: Page,
    /// Allocated for the first pages that need them.
    windows: [Option<Window>; 2],
}

impl PageScratch {
    fn new() -> Self {
        Self { page: [0; PAGE_BYTES], windows: [None, None] }
    }

    /// Returns the page, wherever it is: in the scratch memory or in the chunk.
    fn decode<'a>(
        &'a mut self,
        backend: Backend,
        chunk: &VerifiedChunk<'a>,
        index: PageIndex,
        (kind, record): (PageKind, Record<'a>),
        resolver: &impl Resolve,
    ) -> Result<&'a Page, CodecError> {
        static ZERO: Page = [0; PAGE_BYTES];
        let Self { page, windows: [window, _] } = self;
        let bytes = record.bytes();
        let resolved = |result: Result<(), _>| {
            result.map_err(|source| CodecError::Resolve { page: index, kind, source })
        };
        let decoded = match kind {
            PageKind::Untouched | PageKind::Zero => return Ok(&ZERO),
            PageKind::Fill => number(bytes).map(|vector| fill(vector, page)),
            PageKind::Dup => match number(bytes) {
                Ok(reference) => Ok(resolved(resolver.dup(PageRef(reference), page))?),
                Err(wrong) => Err(wrong),
            },
            PageKind::Parent => Ok(resolved(resolver.parent(index, page))?),
            PageKind::Patch => {
                resolved(resolver.parent(index, page))?;
                patch::decode(bytes, page)
            }
            PageKind::WordMarked => {
                backend.run(WordDecode { record: bytes, dictionary: chunk.dictionary(), page })
            }
            PageKind::ByteMarked => {
                let window = window.get_or_insert_with(Window::new);
                match backend.run(ByteDecode { record, window }) {
                    Ok(page) => return Ok(page),
                    Err(wrong) => Err(wrong),
                }
            }
            PageKind::Raw => match raw(bytes) {
                Ok(page) => return Ok(page),
                Err(wrong) => Err(wrong),
            },
        };
        match decoded {
            Ok(()) => Ok(page),
            Err(source) => Err(CodecError::Record { page: index, kind, source }),
        }
    }

    /// Decodes two byte-marked pages at once, which takes less time than one after the other.
    fn decode_both<'a>(
        &'a mut self,
        backend: Backend,
        pages: [PageIndex; 2],
        records: [Record<'a>; 2],
    ) -> Result<[&'a Page; 2], CodecError> {
        let windows = self.windows.each_mut().map(|window| window.get_or_insert_with(Window::new));
        let decoded = backend.run(ByteDecodeBoth { records, windows });
        decoded.map_err(|(which, source)| CodecError::Record {
            page: pages[which],
            kind: PageKind::ByteMarked,
            source,
        })
    }
}

fn number(record: &[u8]) -> Result<u64, RecordError> {
    let wrong = RecordError::Length { needed_bytes: 8, record_bytes: record.len() };
    record.try_into().map(u64::from_le_bytes).map_err(|_| wrong)
}

fn raw(record: &[u8]) -> Result<&Page, RecordError> {
    record
        .try_into()
        .map_err(|_| RecordError::Length { needed_bytes: PAGE_BYTES, record_bytes: record.len() })
}
