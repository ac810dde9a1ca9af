//! What decoding needs besides the chunk: pages kept elsewhere, and memory to write to.

use super::{Page, PageIndex};

/// A page kept outside the chunk, under the name that the encoder's [`Dedup`](crate::hot::Dedup) gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageRef(pub u64);

/// Why a resolver could not provide a page.
pub type ResolveError = Box<dyn std::error::Error + Send + Sync>;

/// Fetches the pages that a chunk refers to but does not hold.
pub trait Resolve {
    /// Writes the page with this reference to `out`.
    ///
    /// # Errors
    /// If there is no such page, or it could not be fetched; `out` may then hold anything.
    fn dup(&self, reference: PageRef, out: &mut Page) -> Result<(), ResolveError>;

    /// Writes the page at the place of `page` in the parent snapshot to `out`.
    ///
    /// # Errors
    /// If there is no such page, or it could not be fetched; `out` may then hold anything.
    fn parent(&self, page: PageIndex, out: &mut Page) -> Result<(), ResolveError>;
}

/// Resolves nothing: for chunks encoded without a parent and with [`NoDedup`](crate::hot::NoDedup).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoResolve;

#[derive(Debug, thiserror::Error)]
#[error("the chunk refers to pages elsewhere, but is decoded without them")]
struct Unresolved;

impl Resolve for NoResolve {
    fn dup(&self, _reference: PageRef, _out: &mut Page) -> Result<(), ResolveError> {
        Err(Unresolved.into())
    }

    fn parent(&self, _page: PageIndex, _out: &mut Page) -> Result<(), ResolveError> {
        Err(Unresolved.into())
    }
}

/// What the memory to decode into holds beforehand, and what it will be used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetContents {
    /// All zero already, like a new mapping: untouched and zero pages are not written, and so never populated. The first touch of
    /// a fresh page costs more than decoding one.
    Zeroed,
    /// Anything: every page is written.
    Unknown,
    /// Anything, and it will be read at once: every page is written and stays in the caches. Otherwise pages are written past
    /// the caches, since a chunk of guest memory would only push out what is needed next.
    Scratch,
}
