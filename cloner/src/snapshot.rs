//! A snapshot: the encoded, immutable, named state of a VM at one instant, held in the pool.
//!
//! In the pool it is three things: encoded chunks by number (chunks that were never touched are not there), the VM's
//! state in an envelope, and a manifest in another. The manifest says which chunks belong to the snapshot and what
//! their checksums are, so that a missing, exchanged or foreign chunk is noticed before anything is decoded.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use vmm::VmState;
use vmm::state::envelope::{self, Schema};

use crate::chunk::{self, Chunk, ChunkIndex, PageNumber};
use crate::codec::{self, PageRef, Resolve, ResolveError, decode_page};
use crate::format::{self, Page, PageIndex, VerifiedChunk};
use crate::pool::Stored;

/// Label of the manifest in the pool.
pub const MANIFEST_LABEL: &str = "manifest";
/// Label of the VM's state in the pool.
pub const STATE_LABEL: &str = "state";

const MANIFEST: Schema = Schema { magic: *b"CLNSNAP\0", version: 1, name: "snapshot manifest" };

/// Schema of the manifest, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestV1 {
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// Pages the guest had ever touched.
    pub touched_pages: u64,
    /// The chunks that hold anything, by ascending index.
    pub chunks: Vec<ChunkEntryV1>,
}

/// One chunk of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkEntryV1 {
    /// Its number.
    pub index: u32,
    /// The checksum in its header.
    pub checksum: u64,
}

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
    State(#[source] envelope::Error),
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
        source: format::Error,
    },
    /// A chunk cannot be decoded.
    #[error("chunk {index}")]
    Decode {
        /// Its number.
        index: u32,
        /// Why.
        source: codec::Error,
    },
    /// A reference leads nowhere.
    #[error("page reference {0:#x} leads to no page of the snapshot")]
    Reference(u64),
    /// A reference leads to a page that is a reference.
    #[error("page reference {0:#x} leads to another reference")]
    Chained(u64),
}

/// An opened snapshot: its parts are there, and its manifest and state hold.
#[derive(Debug, Clone)]
pub struct Snapshot {
    stored: Arc<Stored>,
    manifest: Arc<ManifestV1>,
    state: Arc<VmState>,
}

impl Snapshot {
    /// Opens what the pool holds. Every chunk is verified when it is used, see [`Snapshot::verify`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn open(stored: Arc<Stored>) -> Result<Self, Error> {
        let part = |label| {
            stored.blob(label).ok_or_else(|| Error::Missing { snapshot: stored.name().to_owned(), label })
        };
        let text = MANIFEST.unwrap(part(MANIFEST_LABEL)?).map_err(Error::Manifest)?;
        let manifest: ManifestV1 = serde_json::from_slice(text).map_err(|e| Error::Manifest(e.into()))?;
        let state = VmState::from_bytes(part(STATE_LABEL)?).map_err(Error::State)?;
        if manifest.memory_bytes != state.get().memory_bytes {
            return Err(Error::MemorySize {
                manifest_bytes: manifest.memory_bytes,
                state_bytes: state.get().memory_bytes,
            });
        }
        let count = chunk::chunks(state.layout()).len();
        let listed = || manifest.chunks.iter().map(|entry| u64::from(entry.index));
        let last = manifest.chunks.iter().map(|entry| entry.index).max().unwrap_or(0);
        // Ascending on both sides, so equal sequences are equal sets without repetition.
        if !listed().eq(stored.chunks().iter().map(crate::pool::Chunk::key)) || last as usize >= count.max(1)
        {
            let (listed, held) = (manifest.chunks.len(), stored.chunks().len());
            return Err(Error::Chunks { listed, last, held, count });
        }
        Ok(Self { stored, manifest: Arc::new(manifest), state: Arc::new(state) })
    }

    /// The name in the pool.
    #[must_use]
    pub fn name(&self) -> &str {
        self.stored.name()
    }

    /// The manifest.
    #[must_use]
    pub fn manifest(&self) -> &ManifestV1 {
        &self.manifest
    }

    /// The VM's state, apart from memory.
    #[must_use]
    pub fn state(&self) -> &VmState {
        &self.state
    }

    /// Bytes of the pool it occupies.
    #[must_use]
    pub fn occupied_bytes(&self) -> usize {
        self.stored.occupied_bytes()
    }

    /// Checks everything about a chunk: its checksum, every bound, and that it is the one the manifest means.
    ///
    /// `None` if nothing of the chunk was ever touched.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn verify(&self, chunk: &Chunk) -> Result<Option<VerifiedChunk<'_>>, Error> {
        let index = chunk.index.0;
        let Ok(at) = self.manifest.chunks.binary_search_by_key(&index, |entry| entry.index) else {
            return Ok(None);
        };
        let expected = self.manifest.chunks[at].checksum;
        let verified = VerifiedChunk::verify(self.stored.chunks()[at].bytes())
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
        let index = chunk.index.0;
        let encoded = self.stored.chunk(u64::from(index));
        encoded.map(VerifiedChunk::reopen).transpose().map_err(|source| Error::Format { index, source })
    }

    /// Decodes the page that a DUP marker refers to. Its chunk must have been verified before.
    fn referred(&self, PageRef(reference): PageRef, out: &mut Page) -> Result<(), Error> {
        let (ChunkIndex(index), page) = PageNumber(reference).split().ok_or(Error::Reference(reference))?;
        let encoded = self.stored.chunk(u64::from(index)).ok_or(Error::Reference(reference))?;
        let chunk = VerifiedChunk::reopen(encoded).map_err(|source| Error::Format { index, source })?;
        match chunk.kind(page) {
            None => Err(Error::Reference(reference)),
            // The encoder refers to the first page of a content, which it keeps as it is: depth one, no loops.
            Some(kind) if kind.needs_resolver() => Err(Error::Chained(reference)),
            Some(_) => decode_page(&chunk, page, &codec::NoResolve, out)
                .map(|_| ())
                .map_err(|source| Error::Decode { index, source }),
        }
    }
}

impl Resolve for Snapshot {
    fn dup(&self, reference: PageRef, out: &mut Page) -> Result<(), ResolveError> {
        Ok(self.referred(reference, out)?)
    }

    fn parent(&self, page: PageIndex, _out: &mut Page) -> Result<(), ResolveError> {
        Err(format!("page {page} refers to a parent snapshot, and this one has none").into())
    }
}

impl ManifestV1 {
    /// The manifest in its envelope.
    ///
    /// # Panics
    /// Never: it is numbers only.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        MANIFEST.wrap(&serde_json::to_vec(self).expect("plain structs of numbers"))
    }
}
