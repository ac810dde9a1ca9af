//! From an encoded chunk to pages: all of them, or any one.

use crate::format::{PAGE_BYTES, Page, PageIndex, PageKind, VerifiedChunk};

use super::byte::ByteDecode;
use super::page::fill;
use super::simd::Window;
use super::word::WordDecode;
use super::{Backend, Error, RecordError, patch};

/// A page kept outside the chunk, as the encoder's [`Dedup`](super::Dedup) named it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRef(pub u64);

/// Why a resolver has no page to give.
pub type ResolveError = Box<dyn std::error::Error + Send + Sync>;

/// Fetches pages that a chunk refers to and does not hold.
pub trait Resolve {
    /// Writes the page with this reference.
    ///
    /// # Errors
    /// If there is none; `out` may then hold anything.
    fn dup(&self, reference: PageRef, out: &mut Page) -> Result<(), ResolveError>;

    /// Writes the page of the parent snapshot that has the place of `page`.
    ///
    /// # Errors
    /// If there is none; `out` may then hold anything.
    fn parent(&self, page: PageIndex, out: &mut Page) -> Result<(), ResolveError>;
}

/// Resolves nothing: for chunks encoded without parent and with [`NoDedup`](super::NoDedup).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoResolve;

#[derive(Debug, thiserror::Error)]
#[error("the chunk was to be decoded without the pages it refers to")]
struct Unresolved;

impl Resolve for NoResolve {
    fn dup(&self, _reference: PageRef, _out: &mut Page) -> Result<(), ResolveError> {
        Err(Unresolved.into())
    }

    fn parent(&self, _page: PageIndex, _out: &mut Page) -> Result<(), ResolveError> {
        Err(Unresolved.into())
    }
}

/// What the memory to decode into holds. First touch of a fresh page costs more than decoding one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fresh {
    /// All zero already, as a new mapping is: untouched and zero pages are not written, and so never populated.
    Zeroed,
    /// Anything: every page is written.
    Unknown,
}

/// Decodes all pages of a chunk into `memory`, which must be exactly as long as they are.
///
/// # Errors
/// The first page that cannot be decoded; pages before it are written.
pub fn decode_chunk(
    chunk: &VerifiedChunk<'_>,
    resolver: &impl Resolve,
    fresh: Fresh,
    memory: &mut [u8],
) -> Result<(), Error> {
    decode_chunk_on(Backend::detect(), chunk, resolver, fresh, memory)
}

/// [`decode_chunk`] on a given backend: for tests and comparisons.
///
/// # Errors
/// Those of [`decode_chunk`].
pub fn decode_chunk_on(
    backend: Backend,
    chunk: &VerifiedChunk<'_>,
    resolver: &impl Resolve,
    fresh: Fresh,
    memory: &mut [u8],
) -> Result<(), Error> {
    let (chunk_bytes, memory_bytes) = (chunk.page_count() * PAGE_BYTES, memory.len());
    if chunk_bytes != memory_bytes {
        return Err(Error::MemoryLength { chunk_bytes, memory_bytes });
    }
    let mut window = None;
    for (index, page) in chunk.page_indices().zip(memory.as_chunks_mut().0) {
        if fresh == Fresh::Zeroed && chunk.kind(index).is_some_and(PageKind::reads_zero) {
            continue;
        }
        decode_page_on(backend, chunk, index, resolver, &mut window, page)?;
    }
    Ok(())
}

/// Decodes one page and says what it was. Costs no more for the chunk being large.
///
/// # Errors
/// If the chunk ends before the page, its record is not one an encoder writes, or the resolver fails.
pub fn decode_page(
    chunk: &VerifiedChunk<'_>,
    index: PageIndex,
    resolver: &impl Resolve,
    page: &mut Page,
) -> Result<PageKind, Error> {
    decode_page_on(Backend::detect(), chunk, index, resolver, &mut None, page)
}

fn decode_page_on(
    backend: Backend,
    chunk: &VerifiedChunk<'_>,
    index: PageIndex,
    resolver: &impl Resolve,
    window: &mut Option<Window>,
    page: &mut Page,
) -> Result<PageKind, Error> {
    let (kind, record) = chunk.record(index)?;
    let bytes = record.bytes();
    let resolved =
        |result: Result<(), _>| result.map_err(|source| Error::Resolve { page: index, kind, source });
    let decoded = match kind {
        PageKind::Untouched | PageKind::Zero => {
            page.fill(0);
            Ok(())
        }
        PageKind::Fill => number(bytes).map(|vector| fill(vector, page)),
        PageKind::Dup => match number(bytes) {
            Ok(reference) => return resolved(resolver.dup(PageRef(reference), page)).map(|()| kind),
            Err(wrong) => Err(wrong),
        },
        PageKind::Parent => return resolved(resolver.parent(index, page)).map(|()| kind),
        PageKind::Patch => {
            resolved(resolver.parent(index, page))?;
            patch::decode(bytes, page)
        }
        PageKind::WordMarked => {
            backend.run(WordDecode { record: bytes, dictionary: chunk.dictionary(), page })
        }
        PageKind::ByteMarked => {
            let window = window.get_or_insert_with(Window::new);
            backend.run(ByteDecode { record, window, page })
        }
        PageKind::Raw => raw(bytes).map(|bytes| page.copy_from_slice(bytes)),
    };
    decoded.map(|()| kind).map_err(|source| Error::Record { page: index, kind, source })
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
