//! A snapshot: the encoded, immutable, named state of a VM at one instant, held in the pool.
//!
//! The pool holds three parts of it: encoded chunks by index (chunks that were never touched are not there), the VM's
//! state in an envelope, and a manifest in another. The manifest says which chunks belong to the snapshot and what
//! their checksums are, so that a missing, exchanged or foreign chunk is noticed before anything is decoded.
//!
//! # Snapshots that refer to others
//! A snapshot may have a *parent*: PARENT and PATCH markers refer to the parent's page in the same place. It may have other
//! *dependencies*, to whose pages DUP markers may refer. The pool keeps all of them for as long as the snapshot needs them.
//!
//! Chains of references are short: a parent has no parent itself (the child of a child refers to the same parent, see
//! [`crate::save`]), and a DUP never leads to a DUP. So the longest way to a page is DUP, PATCH, DUP, page.

mod checks;
mod id;
mod manifest;
mod resolve;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use vmm::VmState;
use vmm::state::DecodeError;

pub(crate) use checks::VerifiedFlags;
pub(crate) use id::parse_id;
pub use id::{MalformedId, SnapshotId};
pub use manifest::{
    MANIFEST_LABEL, MEMORY_REGION, Manifest, ManifestError, ManifestV2, RegionKind, RegionV2, STATE_LABEL,
};
pub(crate) use resolve::ChunkResolver;

use crate::chunk_id::ChunkId;
use crate::dedup::PageTable;
use crate::layout::{self, Chunk};
use crate::pool::{self, StoredSnapshot};
use cloner_codec::chunk::{CodecError, FormatError};
use cloner_codec::hot::VerifiedChunk;

/// Why stored bytes are not a snapshot, or why a page of a snapshot cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The manifest or the VM's state is missing.
    #[error("snapshot {snapshot:?} has no {label}")]
    Missing {
        /// Name of the snapshot in the pool.
        snapshot: String,
        /// Label of the missing part.
        label: &'static str,
    },
    /// The manifest is damaged, or has a field that is not allowed.
    #[error("the snapshot's manifest is not valid")]
    Manifest(#[source] ManifestError),
    /// The VM's state is damaged.
    #[error("the snapshot's VM state is damaged")]
    State(#[source] DecodeError),
    /// The manifest and the VM state are of machines with different memory sizes.
    #[error(
        "the manifest is of a machine with {manifest_bytes} bytes of memory, the VM state of one with {state_bytes}"
    )]
    MemorySize {
        /// Bytes of memory according to the manifest.
        manifest_bytes: u64,
        /// Bytes of memory according to the VM state.
        state_bytes: u64,
    },
    /// The chunks in the pool are not those that the manifest lists, or the guest has no place for them.
    #[error(
        "the manifest lists {listed} chunks{}, the pool holds {held} and the guest has {count}",
        .last.map(|last| format!(" up to index {last}")).unwrap_or_default()
    )]
    Chunks {
        /// Number of chunks that the manifest lists.
        listed: usize,
        /// Greatest index among them; `None` if there are none.
        last: Option<u32>,
        /// Number of chunks that the pool holds.
        held: usize,
        /// Number of chunks that a guest of this size has.
        count: usize,
    },
    /// The snapshots that the pool keeps for this one are not those that the manifest names.
    #[error("snapshot {snapshot:?} depends on {wanted:?}, but the pool keeps {found:?} for it")]
    Dependencies {
        /// Name of the snapshot.
        snapshot: String,
        /// Ids that the manifest names.
        wanted: Vec<SnapshotId>,
        /// Ids of the snapshots that the pool keeps for it.
        found: Vec<SnapshotId>,
    },
    /// The parent is of a machine with another memory size, or has a parent itself.
    #[error("snapshot {parent:?} cannot be the parent of {snapshot:?}: {why}")]
    Parent {
        /// Name of the child.
        snapshot: String,
        /// Name of the parent.
        parent: String,
        /// Why the parent does not fit.
        why: &'static str,
    },
    /// The chunk in the pool is not the one that the manifest means: the pool knows it by another checksum, or its header has another.
    #[error("chunk {index} has checksum {found:#018x}, but the manifest says {expected:#018x}")]
    Exchanged {
        /// Index of the chunk.
        index: u32,
        /// Checksum according to the manifest.
        expected: u64,
        /// Checksum that the pool knows the chunk by, or that its header has.
        found: u64,
    },
    /// A chunk does not have as many pages as its place in the guest's memory.
    #[error("chunk {index} has {found} pages where the guest has {expected}")]
    PageCount {
        /// Index of the chunk.
        index: u32,
        /// Number of pages that the guest has there.
        expected: usize,
        /// Number of pages encoded in the chunk.
        found: usize,
    },
    /// A chunk is damaged.
    #[error("chunk {index} is damaged")]
    Format {
        /// Index of the chunk.
        index: u32,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A chunk cannot be decoded.
    #[error("cannot decode chunk {index}")]
    Decode {
        /// Index of the chunk.
        index: u32,
        /// Why it cannot be decoded.
        source: CodecError,
    },
    /// A page reference does not lead to a page.
    #[error("page reference {0:#x} leads to no page")]
    Reference(u64),
    /// A page reference leads to a page that is itself a reference, which is not allowed.
    #[error("page reference {0:#x} leads to another reference")]
    Chained(u64),
    /// The snapshot, or one of its pages, refers to a parent that is not there.
    #[error("the snapshot refers to a parent, but has none")]
    NoParent,
}

/// An opened snapshot: its parts are there, and its manifest and state are valid.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stored: Arc<StoredSnapshot>,
    manifest: Manifest,
    state: VmState,
    dependencies: Vec<Snapshot>,
    /// Finds pages by content. `None` unless this process made the snapshot.
    pages: Option<PageTable>,
}

impl Snapshot {
    /// Opens a snapshot that the pool holds, and the snapshots that it depends on. Chunks are not verified here but when they are
    /// used, see [`Snapshot::verify`].
    ///
    /// # Errors
    /// [`Error::Missing`], [`Error::Manifest`] or [`Error::State`] if a part is missing or damaged. [`Error::MemorySize`],
    /// [`Error::Chunks`], [`Error::Exchanged`], [`Error::Dependencies`], [`Error::Parent`] or [`Error::NoParent`] if the parts do not
    /// belong together.
    pub fn open(stored: Arc<StoredSnapshot>) -> Result<Self, Error> {
        let dependencies = stored
            .dependencies()
            .iter()
            .map(|stored| Self::open(Arc::clone(stored)))
            .collect::<Result<_, _>>()?;
        Self::with(stored, dependencies, None)
    }

    pub(crate) fn with(
        stored: Arc<StoredSnapshot>,
        dependencies: Vec<Self>,
        pages: Option<PageTable>,
    ) -> Result<Self, Error> {
        let part = |label| {
            stored.blob(label).ok_or_else(|| Error::Missing { snapshot: stored.name().to_owned(), label })
        };
        let manifest = Manifest::from_bytes(part(MANIFEST_LABEL)?).map_err(Error::Manifest)?;
        let state = VmState::from_bytes(part(STATE_LABEL)?).map_err(Error::State)?;
        check_chunks(&stored, &manifest, &state)?;
        check_dependencies(&stored, &manifest, &dependencies)?;
        Ok(Self(Arc::new(Inner { stored, manifest, state, dependencies, pages })))
    }

    /// The name in the pool.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.stored.name()
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &ManifestV2 {
        self.0.manifest.get()
    }

    /// The state of the VM without its memory.
    #[must_use]
    pub fn state(&self) -> &VmState {
        &self.0.state
    }

    /// Bytes that the snapshot occupies in the pool, without the snapshots it depends on.
    #[must_use]
    pub fn occupied_bytes(&self) -> usize {
        self.0.stored.occupied_bytes()
    }

    /// The snapshots that its chunks refer to; the parent, if there is one, first.
    #[must_use]
    pub fn dependencies(&self) -> &[Self] {
        &self.0.dependencies
    }

    /// The snapshot to whose pages PARENT and PATCH markers refer.
    #[must_use]
    pub fn parent(&self) -> Option<&Self> {
        self.0.dependencies.first().filter(|_| self.0.manifest.get().has_parent)
    }

    /// Checks that this can be the parent of the snapshot named `child`, of a guest with `memory_bytes` bytes of memory.
    pub(crate) fn check_as_parent_of(&self, child: &str, memory_bytes: u64) -> Result<(), Error> {
        let unfit =
            |why| Err(Error::Parent { snapshot: child.to_owned(), parent: self.name().to_owned(), why });
        if self.0.manifest.memory_bytes() != memory_bytes {
            return unfit("it is of a guest with a different memory size");
        }
        if self.manifest().has_parent { unfit("it has a parent itself") } else { Ok(()) }
    }

    pub(crate) fn stored(&self) -> &Arc<StoredSnapshot> {
        &self.0.stored
    }

    pub(crate) fn pages(&self) -> Option<&PageTable> {
        self.0.pages.as_ref()
    }

    /// Checks everything about a chunk: its checksum, every bound, and that it is the one that the manifest means.
    ///
    /// `None` if nothing of the chunk was ever touched.
    ///
    /// # Errors
    /// [`Error::Format`] if the chunk is damaged, [`Error::Exchanged`] if it is not the one that the manifest means,
    /// [`Error::PageCount`] if it does not have as many pages as its place in memory.
    pub fn verify(&self, chunk: &Chunk) -> Result<Option<VerifiedChunk<'_>>, Error> {
        let index = chunk.index.0;
        let Some(at) = self.position(index) else { return Ok(None) };
        let expected = self.manifest().chunks[at].checksum;
        let verified = VerifiedChunk::verify(self.0.stored.chunks()[at].bytes())
            .map_err(|source| Error::Format { index, source })?;
        if verified.checksum() != expected {
            return Err(Error::Exchanged { index, expected, found: verified.checksum() });
        }
        if verified.page_count() != chunk.pages {
            return Err(Error::PageCount { index, expected: chunk.pages, found: verified.page_count() });
        }
        Ok(Some(verified))
    }

    /// Opens a chunk that was verified before, without verifying it again. `None` if nothing of the chunk was ever touched.
    ///
    /// # Errors
    /// [`Error::Format`] if the chunk's header is not valid.
    pub fn reopen(&self, chunk: &Chunk) -> Result<Option<VerifiedChunk<'_>>, Error> {
        self.reopen_index(chunk.index.0)
    }

    /// Where in the manifest, and in the pool's list, the chunk of guest memory with this index is. `None` if nothing of the chunk was
    /// ever touched.
    fn position(&self, index: u32) -> Option<usize> {
        self.manifest().chunks.binary_search_by_key(&(MEMORY_REGION, index), ChunkId::place).ok()
    }

    fn reopen_index(&self, index: u32) -> Result<Option<VerifiedChunk<'_>>, Error> {
        let encoded = self.0.stored.chunk(MEMORY_REGION, index);
        encoded.map(VerifiedChunk::reopen).transpose().map_err(|source| Error::Format { index, source })
    }
}

fn check_chunks(stored: &StoredSnapshot, manifest: &Manifest, state: &VmState) -> Result<(), Error> {
    let (manifest_bytes, state_bytes) = (manifest.memory_bytes(), state.get().memory_bytes);
    if manifest_bytes != state_bytes {
        return Err(Error::MemorySize { manifest_bytes, state_bytes });
    }
    let count = layout::chunks(state.layout()).len();
    let listed = &manifest.get().chunks;
    let held = || stored.chunks().iter().map(pool::StoredChunk::id);
    let last = listed.iter().map(|chunk| chunk.index).max();
    let is_beyond = last.is_some_and(|last| last as usize >= count);
    // The pool's side ascends, so equal sequences are equal sets without repetition.
    if is_beyond || !listed.iter().map(ChunkId::place).eq(held().map(|id| id.place())) {
        return Err(Error::Chunks { listed: listed.len(), last, held: stored.chunks().len(), count });
    }
    match listed.iter().zip(held()).find(|(listed, held)| listed.checksum != held.checksum) {
        None => Ok(()),
        Some((listed, held)) => {
            Err(Error::Exchanged { index: listed.index, expected: listed.checksum, found: held.checksum })
        }
    }
}

fn check_dependencies(stored: &StoredSnapshot, manifest: &Manifest, found: &[Snapshot]) -> Result<(), Error> {
    let ManifestV2 { dependencies, has_parent, .. } = manifest.get();
    if !dependencies.iter().eq(found.iter().map(|found| &found.manifest().id)) {
        return Err(Error::Dependencies {
            snapshot: stored.name().to_owned(),
            wanted: dependencies.clone(),
            found: found.iter().map(|found| found.manifest().id).collect(),
        });
    }
    if !has_parent {
        return Ok(());
    }
    let parent = found.first().ok_or(Error::NoParent)?;
    parent.check_as_parent_of(stored.name(), manifest.memory_bytes())
}
