//! Where missing pages come from.

use std::fmt;

use cloner_codec::chunk::{Page, PageIndex};
use vmm::memory::Layout;

use crate::layout::{Chunk, ChunkIndex, chunk_at};
use crate::snapshot::{ChunkResolver, Snapshot, VerifiedFlags};

/// Why a source cannot provide a page.
pub type SourceError = Box<dyn std::error::Error + Send + Sync>;

/// Has the pages of a guest's memory, and provides them one at a time, to any thread.
pub trait PageSource: fmt::Debug + Send + Sync {
    /// Where the memory lies in the guest's physical address space.
    fn layout(&self) -> Layout;

    /// The chunks that hold anything, by ascending index. All others are zero.
    fn chunks(&self) -> Vec<Chunk>;

    /// Writes a page of one of these chunks to `out`.
    ///
    /// # Errors
    /// Why the page cannot be provided. `out` may hold anything then. The page is not asked for again.
    fn page(&self, chunk: &Chunk, page: PageIndex, out: &mut Page) -> Result<(), SourceError>;
}

/// A snapshot in the pool. Its chunks are verified when they are first used.
#[derive(Debug)]
pub(in crate::restore) struct SnapshotSource {
    snapshot: Snapshot,
    checks: VerifiedFlags,
}

impl SnapshotSource {
    pub(in crate::restore) fn new(snapshot: &Snapshot) -> Self {
        Self { snapshot: snapshot.clone(), checks: VerifiedFlags::new(snapshot) }
    }
}

impl PageSource for SnapshotSource {
    fn layout(&self) -> Layout {
        self.snapshot.state().layout()
    }

    fn chunks(&self) -> Vec<Chunk> {
        let layout = self.layout();
        let listed = self.snapshot.manifest().chunks.iter();
        // Opening the snapshot has checked the greatest index.
        listed.filter_map(|id| chunk_at(layout, ChunkIndex(id.index))).collect()
    }

    fn page(&self, chunk: &Chunk, page: PageIndex, out: &mut Page) -> Result<(), SourceError> {
        Ok(ChunkResolver::checked(&self.snapshot, chunk.index, &self.checks).page(page, out)?)
    }
}
