//! What decoding needs besides the chunk: pages kept elsewhere, and memory to write to.

use super::{Page, PageIndex};

/// A page kept outside the chunk, as the encoder's [`Dedup`](crate::hot::Dedup) named it.
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

/// Resolves nothing: for chunks encoded without parent and with [`NoDedup`](crate::hot::NoDedup).
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

/// What the memory to decode into holds beforehand, and what becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TargetContents {
    /// All zero already, as a new mapping is: untouched and zero pages are not written, and so never populated. First touch of
    /// a fresh page costs more than decoding one.
    Zeroed,
    /// Anything: every page is written.
    Unknown,
    /// Anything, and it will be read at once: every page is written, and stays in the caches. Otherwise pages are written past
    /// them, since a chunk of guest memory would only push out what is needed next.
    Scratch,
}
