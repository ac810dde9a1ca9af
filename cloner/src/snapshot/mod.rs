//! A snapshot: the encoded, immutable, named state of a VM at one instant, held in the pool.
//!
//! In the pool it is three things: encoded chunks by number (chunks that were never touched are not there), the VM's
//! state in an envelope, and a manifest in another. The manifest says which chunks belong to the snapshot and what
//! their checksums are, so that a missing, exchanged or foreign chunk is noticed before anything is decoded.
//!
//! # Snapshots that refer to others
//! A snapshot may have a *parent*, to whose page in the same place PARENT and PATCH markers refer, and other
//! *dependencies*, to whose pages DUP markers may refer. All of them are kept by the pool for as long as it needs them.
//!
//! References are never long: a parent has no parent itself (the child of a child refers to the same parent, see
//! [`crate::save`]), and a DUP never leads to a DUP. So the longest way to a page is DUP, PATCH, DUP, page.

mod checks;
mod manifest;
mod resolve;

use std::sync::Arc;

use vmm::VmState;
use vmm::schema::envelope;
use vmm::state::DecodeError;

pub(crate) use checks::Checks;
pub use manifest::{ChunkEntryV1, MANIFEST_LABEL, ManifestV1, STATE_LABEL, SnapshotId};
pub(crate) use resolve::InChunk;

use crate::dedup::PageTable;
use crate::layout::{self, Chunk};
use crate::pool::{self, Stored};
use cloner_codec::chunk::{CodecError, FormatError};
use cloner_codec::hot::VerifiedChunk;

/// Why stored bytes are not a snapshot, or a page of it cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A part is missing.
    #[error("snapshot {snapshot:?} has no {label}")]
    Missing {
        /// Its name.
        snapshot: String,
        /// Which part.
        label: &'static str,
    },
    /// The manifest is damaged.
    #[error("manifest")]
    Manifest(#[source] envelope::Error),
    /// The VM's state is damaged.
    #[error("VM state")]
    State(#[source] DecodeError),
    /// Manifest and VM state are of different machines.
    #[error("the manifest is of {manifest_bytes} bytes of memory, the VM state of {state_bytes}")]
    MemorySize {
        /// The manifest's.
        manifest_bytes: u64,
        /// The state's.
        state_bytes: u64,
    },
    /// Chunks are missing, or there are others.
    #[error(
        "the manifest lists {listed} chunks up to number {last}, the pool holds {held} and the guest has {count}"
    )]
    Chunks {
        /// Chunks of the manifest.
        listed: usize,
        /// Greatest index among them.
        last: u32,
        /// Chunks held.
        held: usize,
        /// Chunks a guest of this size has.
        count: usize,
    },
    /// The snapshots it depends on are not those the manifest names.
    #[error("snapshot {snapshot:?} depends on {wanted:?}, with it are {found:?}")]
    Dependencies {
        /// Its name.
        snapshot: String,
        /// What the manifest names.
        wanted: Vec<SnapshotId>,
        /// What the pool keeps for it.
        found: Vec<SnapshotId>,
    },
    /// Its parent is of another machine, or has a parent itself.
    #[error("snapshot {parent:?} cannot be the parent of {snapshot:?}: {why}")]
    Parent {
        /// The child's name.
        snapshot: String,
        /// The parent's name.
        parent: String,
        /// What does not fit.
        why: &'static str,
    },
    /// Another chunk is in the place of one.
    #[error("chunk {index} has checksum {found:#018x}, the manifest says {expected:#018x}")]
    Exchanged {
        /// Its number.
        index: u32,
        /// The manifest's.
        expected: u64,
        /// The chunk's.
        found: u64,
    },
    /// A chunk covers another number of pages than its place has.
    #[error("chunk {index} has {found} pages where the guest has {expected}")]
    Pages {
        /// Its number.
        index: u32,
        /// Pages of the guest there.
        expected: usize,
        /// Pages encoded.
        found: usize,
    },
    /// A chunk is damaged.
    #[error("chunk {index}")]
    Format {
        /// Its number.
        index: u32,
        /// What is wrong with it.
        source: FormatError,
    },
    /// A chunk cannot be decoded.
    #[error("chunk {index}")]
    Decode {
        /// Its number.
        index: u32,
        /// Why.
        source: CodecError,
    },
    /// A reference leads nowhere.
    #[error("page reference {0:#x} leads to no page")]
    Reference(u64),
    /// A reference leads to a page that is a reference.
    #[error("page reference {0:#x} leads to another reference")]
    Chained(u64),
    /// A page refers to a parent that is not there.
    #[error("a page refers to a parent, and the snapshot has none")]
    NoParent,
}

/// An opened snapshot: its parts are there, and its manifest and state hold.
#[derive(Debug, Clone)]
pub struct Snapshot(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    stored: Arc<Stored>,
    manifest: ManifestV1,
    state: VmState,
    dependencies: Vec<Snapshot>,
    /// Finds pages by content; there if this process made the snapshot.
    pages: Option<PageTable>,
}

impl Snapshot {
    /// Opens what the pool holds, and what that depends on. Every chunk is verified when it is used, see
    /// [`Snapshot::verify`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(stored: Arc<Stored>) -> Result<Self, Error> {
        let dependencies = stored
            .dependencies()
            .iter()
            .map(|stored| Self::open(Arc::clone(stored)))
            .collect::<Result<_, _>>()?;
        Self::with(stored, dependencies, None)
    }

    pub(crate) fn with(
        stored: Arc<Stored>,
        dependencies: Vec<Self>,
        pages: Option<PageTable>,
    ) -> Result<Self, Error> {
        let part = |label| {
            stored.blob(label).ok_or_else(|| Error::Missing { snapshot: stored.name().to_owned(), label })
        };
        let manifest = ManifestV1::from_bytes(part(MANIFEST_LABEL)?).map_err(Error::Manifest)?;
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
    pub fn manifest(&self) -> &ManifestV1 {
        &self.0.manifest
    }

    /// The VM's state, apart from memory.
    #[must_use]
    pub fn state(&self) -> &VmState {
        &self.0.state
    }

    /// Bytes of the pool it occupies, without what it depends on.
    #[must_use]
    pub fn occupied_bytes(&self) -> usize {
        self.0.stored.occupied_bytes()
    }

    /// What its chunks refer to.
    #[must_use]
    pub fn dependencies(&self) -> &[Self] {
        &self.0.dependencies
    }

    /// The snapshot whose pages PARENT and PATCH markers refer to.
    #[must_use]
    pub fn parent(&self) -> Option<&Self> {
        self.0.dependencies.first().filter(|_| self.0.manifest.has_parent)
    }

    pub(crate) fn stored(&self) -> &Arc<Stored> {
        &self.0.stored
    }

    pub(crate) fn pages(&self) -> Option<&PageTable> {
        self.0.pages.as_ref()
    }

    /// Checks everything about a chunk: its checksum, every bound, and that it is the one the manifest means.
    ///
    /// `None` if nothing of the chunk was ever touched.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn verify(&self, chunk: &Chunk) -> Result<Option<VerifiedChunk<'_>>, Error> {
        let index = chunk.index.0;
        let Ok(at) = self.0.manifest.chunks.binary_search_by_key(&index, |entry| entry.index) else {
            return Ok(None);
        };
        let expected = self.0.manifest.chunks[at].checksum;
        let verified = VerifiedChunk::verify(self.0.stored.chunks()[at].bytes())
            .map_err(|source| Error::Format { index, source })?;
        if verified.checksum() != expected {
            return Err(Error::Exchanged { index, expected, found: verified.checksum() });
        }
        if verified.page_count() != chunk.pages {
            return Err(Error::Pages { index, expected: chunk.pages, found: verified.page_count() });
        }
        Ok(Some(verified))
    }

    /// A chunk that was verified before, without doing so again. `None` if nothing of it was ever touched.
    ///
    /// # Errors
    /// What is wrong with its header.
    pub fn reopen(&self, chunk: &Chunk) -> Result<Option<VerifiedChunk<'_>>, Error> {
        self.reopen_index(chunk.index.0)
    }

    fn reopen_index(&self, index: u32) -> Result<Option<VerifiedChunk<'_>>, Error> {
        let encoded = self.0.stored.chunk(u64::from(index));
        encoded.map(VerifiedChunk::reopen).transpose().map_err(|source| Error::Format { index, source })
    }
}

fn check_chunks(stored: &Stored, manifest: &ManifestV1, state: &VmState) -> Result<(), Error> {
    let (manifest_bytes, state_bytes) = (manifest.memory_bytes, state.get().memory_bytes);
    if manifest_bytes != state_bytes {
        return Err(Error::MemorySize { manifest_bytes, state_bytes });
    }
    let count = layout::chunks(state.layout()).len();
    let listed = || manifest.chunks.iter().map(|entry| u64::from(entry.index));
    let last = manifest.chunks.iter().map(|entry| entry.index).max().unwrap_or(0);
    // Ascending on both sides, so equal sequences are equal sets without repetition.
    if !listed().eq(stored.chunks().iter().map(pool::Chunk::key)) || last as usize >= count {
        return Err(Error::Chunks {
            listed: manifest.chunks.len(),
            last,
            held: stored.chunks().len(),
            count,
        });
    }
    Ok(())
}

fn check_dependencies(stored: &Stored, manifest: &ManifestV1, found: &[Snapshot]) -> Result<(), Error> {
    let snapshot = || stored.name().to_owned();
    if !manifest.dependencies.iter().eq(found.iter().map(|found| &found.manifest().id)) {
        return Err(Error::Dependencies {
            snapshot: snapshot(),
            wanted: manifest.dependencies.clone(),
            found: found.iter().map(|found| found.manifest().id.clone()).collect(),
        });
    }
    if !manifest.has_parent {
        return Ok(());
    }
    let Some(parent) = found.first() else { return Err(Error::NoParent) };
    let unfit = |why| Error::Parent { snapshot: snapshot(), parent: parent.name().to_owned(), why };
    if parent.manifest().memory_bytes != manifest.memory_bytes {
        return Err(unfit("it is of a guest with another memory size"));
    }
    if parent.manifest().has_parent { Err(unfit("it has a parent itself")) } else { Ok(()) }
}
