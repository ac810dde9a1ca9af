//! The snapshots that a new one refers to.

use cloner_codec::chunk::{Page, PageHash, TargetContents};
use cloner_codec::hot::decode_chunk;

use crate::layout::{Chunk, PageNumber, PlaceRef};
use crate::snapshot::{self, ChunkResolver, Snapshot, SnapshotId};

use super::Error;

/// The snapshots that a new one may refer to.
pub(super) struct References {
    /// In the order in which references count them; the parent, if there is one, first.
    pub(super) dependencies: Vec<Snapshot>,
}

impl References {
    /// What a child of `parent` refers to. First comes the child's own parent, which is that of `parent` if it has one, and
    /// otherwise `parent` itself. Then come `parent` and everything else that it depends on.
    pub(super) fn of(parent: Option<&Snapshot>) -> Self {
        let mut dependencies: Vec<Snapshot> = Vec::new();
        if let Some(saved) = parent {
            let parent = saved.parent().unwrap_or(saved);
            for snapshot in [parent, saved].into_iter().chain(saved.dependencies()) {
                let known = |other: &Snapshot| other.manifest().id == snapshot.manifest().id;
                if !dependencies.iter().any(known) {
                    dependencies.push(snapshot.clone());
                }
            }
        }
        Self { dependencies }
    }

    /// Only one snapshot, which is the parent.
    pub(super) fn only(parent: &Snapshot) -> Self {
        Self { dependencies: vec![parent.clone()] }
    }

    /// The ids of the dependencies, in the same order.
    pub(super) fn ids(&self) -> Vec<SnapshotId> {
        self.dependencies.iter().map(|snapshot| snapshot.manifest().id).collect()
    }

    pub(super) fn parent(&self) -> Option<&Snapshot> {
        self.dependencies.first()
    }

    /// Decodes the parent's chunk to `out`; `false` if there is no parent, or it does not hold the chunk.
    pub(super) fn decode_parent(&self, chunk: &Chunk, out: &mut [u8]) -> Result<bool, Error> {
        let Some(parent) = self.parent() else { return Ok(false) };
        let Some(encoded) = parent.verify(chunk)? else { return Ok(false) };
        let index = chunk.index.0;
        decode_chunk(&encoded, &ChunkResolver::new(parent, chunk.index), TargetContents::Scratch, out)
            .map_err(|source| snapshot::Error::Decode { index, source })?;
        Ok(true)
    }

    /// Looks for a page with these bytes in all dependencies that can be searched by content. `other` is scratch memory.
    pub(super) fn find(&self, hash: PageHash, bytes: &Page, other: &mut Page) -> Option<PlaceRef> {
        self.dependencies.iter().enumerate().find_map(|(index, snapshot)| {
            let same = |page: PageNumber| {
                let Some((chunk, page)) = page.split() else { return false };
                ChunkResolver::new(snapshot, chunk).page(page, other).is_ok() && *other == *bytes
            };
            let page = snapshot.pages()?.find(hash, same)?;
            Some(PlaceRef { dependency: Some(index), page })
        })
    }
}
