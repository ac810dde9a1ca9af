//! All ways to get memory from a snapshot.

use vmm::memory::{Backing, PageSize};

use super::lazy::SnapshotSource;
use super::template::{self, Template};
use super::{eager, lazy};
use crate::progress::Watch;
use crate::snapshot::Snapshot;
use crate::walk::{Threads, Walker};

/// Makes memory from snapshots, in any of three ways.
#[derive(Debug)]
pub struct Restorer {
    walker: Walker<()>,
}

impl Restorer {
    /// A restorer that decodes on these threads, which other tools may share.
    #[must_use]
    pub fn new(threads: &Threads) -> Self {
        Self { walker: Walker::new(threads, || ()) }
    }

    /// Makes memory and decodes all of the snapshot into it. Pages that the source never touched stay untouched. `watch` counts the
    /// bytes decoded.
    ///
    /// # Errors
    /// [`Snapshot`](eager::Error::Snapshot) if a chunk is damaged: every chunk is verified before any is decoded.
    /// [`Memory`](eager::Error::Memory) if the host cannot provide the memory, [`NotSole`](eager::Error::NotSole) if `backing` is
    /// shared with others, [`Cancelled`](eager::Error::Cancelled).
    pub fn eager(
        &self,
        snapshot: &Snapshot,
        backing: Backing,
        watch: Watch<'_>,
    ) -> Result<eager::Restored, eager::Error> {
        eager::restore(&self.walker, snapshot, backing, watch)
    }

    /// Makes memory into which the pages of the snapshot arrive as they are needed. Returns when the working set, if there is one,
    /// has arrived. The memory has threads of its own, so this never waits for the restorer's.
    ///
    /// # Errors
    /// [`NotOwn`](lazy::Error::NotOwn) or [`Granule`](lazy::Error::Granule) if `backing` or `options` do not fit,
    /// [`Userfault`](lazy::Error::Userfault) if this host does not allow it, [`MemoryLost`](lazy::Error::Lost) if a page of the
    /// working set cannot be brought, and otherwise the resource that the host refused. Memory and threads are gone then.
    pub fn lazy(
        &self,
        snapshot: &Snapshot,
        backing: Backing,
        options: &lazy::LazyOptions,
    ) -> Result<lazy::Restored, lazy::Error> {
        lazy::memory_from(Box::new(SnapshotSource::new(snapshot)), backing, options)
    }

    /// Decodes the snapshot into a template, whose forks share its pages. This takes as long as an eager restore, and while it lasts
    /// needs memory for two copies. `watch` counts the bytes decoded.
    ///
    /// # Errors
    /// [`Decode`](template::Error::Decode) if the snapshot cannot be decoded or the caller cancels, [`File`](template::Error::File)
    /// if the memfds cannot be made or written.
    pub fn template(&self, snapshot: &Snapshot, watch: Watch<'_>) -> Result<Template, template::Error> {
        let decoded = self.eager(snapshot, Backing::Private(PageSize::Transparent), watch)?.memory;
        Template::seal(&decoded, snapshot.state())
    }
}
