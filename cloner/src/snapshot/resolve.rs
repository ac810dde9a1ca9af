//! Follows the references of a snapshot's pages.

use cloner_codec::chunk::{Page, PageIndex, PageKind, PageRef, Resolve, ResolveError};
use cloner_codec::hot::{VerifiedChunk, decode_page};

use crate::layout::{ChunkIndex, PlaceRef};

use super::{Error, Snapshot, VerifiedFlags};

/// One chunk of a snapshot, whose references are to be followed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ChunkResolver<'a> {
    snapshot: &'a Snapshot,
    chunk: ChunkIndex,
    /// Verifies each chunk when it is first used. `None` if all chunks concerned have been verified already.
    checks: Option<&'a VerifiedFlags>,
}

impl<'a> ChunkResolver<'a> {
    pub(crate) const fn new(snapshot: &'a Snapshot, chunk: ChunkIndex) -> Self {
        Self { snapshot, chunk, checks: None }
    }

    /// As [`new`](Self::new), but some of the chunks concerned may not have been verified yet.
    pub(crate) const fn checked(
        snapshot: &'a Snapshot,
        chunk: ChunkIndex,
        checks: &'a VerifiedFlags,
    ) -> Self {
        Self { snapshot, chunk, checks: Some(checks) }
    }

    /// Another chunk, of the same snapshot or of one it depends on.
    const fn other(&self, snapshot: &'a Snapshot, chunk: ChunkIndex) -> Self {
        Self { snapshot, chunk, checks: self.checks }
    }

    fn open(&self) -> Result<Option<VerifiedChunk<'a>>, Error> {
        match self.checks {
            Some(checks) => checks.open(self.snapshot, self.chunk),
            None => self.snapshot.reopen_index(self.chunk.0),
        }
    }

    /// Decodes one page of the chunk. A page that was never touched is zero.
    pub(crate) fn page(&self, page: PageIndex, out: &mut Page) -> Result<(), Error> {
        let index = self.chunk.0;
        match self.open()? {
            None => out.fill(0),
            Some(chunk) => {
                decode_page(&chunk, page, self, out).map_err(|source| Error::Decode { index, source })?;
            }
        }
        Ok(())
    }

    /// Decodes the page that a DUP marker refers to. It may not be a DUP itself, which bounds the depth whatever the bytes say.
    fn referred(&self, PageRef(bits): PageRef, out: &mut Page) -> Result<(), Error> {
        let PlaceRef { dependency, page } = PlaceRef::from_bits(bits);
        let snapshot = match dependency {
            None => self.snapshot,
            Some(index) => self.snapshot.dependencies().get(index).ok_or(Error::Reference(bits))?,
        };
        let (chunk, page) = page.split().ok_or(Error::Reference(bits))?;
        let place = self.other(snapshot, chunk);
        let kind = place.open()?.and_then(|chunk| chunk.kind(page));
        match kind {
            None => Err(Error::Reference(bits)),
            Some(PageKind::Dup) => Err(Error::Chained(bits)),
            Some(_) => place.page(page, out),
        }
    }
}

impl Resolve for ChunkResolver<'_> {
    fn dup(&self, reference: PageRef, out: &mut Page) -> Result<(), ResolveError> {
        Ok(self.referred(reference, out)?)
    }

    fn parent(&self, page: PageIndex, out: &mut Page) -> Result<(), ResolveError> {
        // A parent has no parent, which `Snapshot::with` has checked. So this happens at most once on the way to a page.
        let parent = self.snapshot.parent().ok_or(Error::NoParent)?;
        Ok(self.other(parent, self.chunk).page(page, out)?)
    }
}
