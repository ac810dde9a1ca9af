//! Verifies each chunk when it is first used, and not again.
//!
//! An eager restore verifies everything before it decodes anything. A reader that may need only a few pages of a large snapshot
//! verifies the chunks that they lie in and the chunks that they refer to, each once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cloner_codec::hot::VerifiedChunk;

use crate::layout::{ChunkIndex, chunk_at};

use super::{Error, Snapshot};

/// Which chunks of a snapshot, and of all it depends on, have been verified.
#[derive(Debug, Default)]
pub(crate) struct VerifiedFlags(Vec<SnapshotFlags>);

#[derive(Debug)]
struct SnapshotFlags {
    /// Whose chunks they are. It is told by its place in the pool and not by its id: what is verified are bytes in memory, and a
    /// snapshot that was recovered has the same id as the one that was flushed, but bytes of its own.
    snapshot: Snapshot,
    /// One flag for each chunk, in the order of the manifest.
    verified: Box<[AtomicBool]>,
}

impl SnapshotFlags {
    fn is_of(&self, snapshot: &Snapshot) -> bool {
        Arc::ptr_eq(self.snapshot.stored(), snapshot.stored())
    }
}

impl VerifiedFlags {
    /// No chunk of the snapshot has been verified yet.
    pub(crate) fn new(snapshot: &Snapshot) -> Self {
        Self::default().for_next(snapshot)
    }

    /// The checks for another snapshot. What is already known of the snapshots that both depend on is taken over.
    pub(crate) fn for_next(mut self, snapshot: &Snapshot) -> Self {
        let mut next = Self::default();
        next.add(snapshot, &mut self.0);
        next
    }

    fn add(&mut self, snapshot: &Snapshot, known: &mut Vec<SnapshotFlags>) {
        if self.of(snapshot).is_some() {
            return;
        }
        let checked = match known.iter().position(|known| known.is_of(snapshot)) {
            Some(at) => known.swap_remove(at),
            None => {
                let verified = snapshot.manifest().chunks.iter().map(|_| AtomicBool::new(false)).collect();
                SnapshotFlags { snapshot: snapshot.clone(), verified }
            }
        };
        self.0.push(checked);
        snapshot.dependencies().iter().for_each(|dependency| self.add(dependency, known));
    }

    fn of(&self, snapshot: &Snapshot) -> Option<&SnapshotFlags> {
        self.0.iter().find(|checked| checked.is_of(snapshot))
    }

    /// Opens a chunk, and verifies it if that has not been done yet. `None` if nothing of the chunk was ever touched.
    pub(crate) fn open<'s>(
        &self,
        snapshot: &'s Snapshot,
        index: ChunkIndex,
    ) -> Result<Option<VerifiedChunk<'s>>, Error> {
        let Some(place) = snapshot.position(index.0) else { return Ok(None) };
        let flag = self.of(snapshot).map(|checked| &checked.verified[place]);
        // Relaxed: the bytes were there before the snapshot was, and nothing changes them. Two threads may both verify a chunk.
        if flag.is_some_and(|flag| flag.load(Ordering::Relaxed)) {
            return snapshot.reopen_index(index.0);
        }
        let chunk =
            chunk_at(snapshot.state().layout(), index).expect("opening has checked the greatest index");
        let verified = snapshot.verify(&chunk)?;
        if let Some(flag) = flag {
            flag.store(true, Ordering::Relaxed);
        }
        Ok(verified)
    }

    /// Which chunks of a snapshot count as verified; `None` if nothing is known of it.
    #[cfg(test)]
    pub(super) fn verified_of(&self, snapshot: &Snapshot) -> Option<Vec<bool>> {
        let verified = &self.of(snapshot)?.verified;
        Some(verified.iter().map(|flag| flag.load(Ordering::Relaxed)).collect())
    }
}
