//! A sealed snapshot, as the pool knows it: keyed chunks and labelled blobs.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::extents::Extent;

/// The bytes of one snapshot, readable without copying by any number of threads for as long as a handle exists.
///
/// Nothing changes them any more, not even [`Pool::remove`](super::Pool::remove): that hides the name, and the memory
/// is freed with the last handle.
#[derive(Debug)]
pub struct Stored {
    name: String,
    /// Sorted by key.
    chunks: Box<[Chunk]>,
    blobs: BTreeMap<String, Extent>,
    dependencies: Box<[Arc<Self>]>,
}

/// One chunk of a snapshot.
#[derive(Debug)]
pub struct Chunk {
    key: u64,
    extent: Extent,
}

impl Chunk {
    /// The number it was put under.
    #[must_use]
    pub const fn key(&self) -> u64 {
        self.key
    }

    /// What was put.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.extent.bytes()
    }
}

impl Stored {
    pub(super) fn new(
        name: String,
        chunks: BTreeMap<u64, Extent>,
        blobs: BTreeMap<String, Extent>,
        dependencies: Vec<Arc<Self>>,
    ) -> Self {
        let chunks = chunks.into_iter().map(|(key, extent)| Chunk { key, extent }).collect();
        Self { name, chunks, blobs, dependencies: dependencies.into() }
    }

    /// The snapshots whose memory this one keeps, in the order they were given.
    #[must_use]
    pub const fn dependencies(&self) -> &[Arc<Self>] {
        &self.dependencies
    }

    /// The name it was sealed under. After a removal another snapshot may have it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All chunks, by ascending key.
    #[must_use]
    pub const fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The chunk put under `key`.
    #[must_use]
    pub fn chunk(&self, key: u64) -> Option<&[u8]> {
        let at = self.chunks.binary_search_by_key(&key, Chunk::key).ok()?;
        Some(self.chunks[at].bytes())
    }

    /// The blob put under `label`.
    #[must_use]
    pub fn blob(&self, label: &str) -> Option<&[u8]> {
        self.blobs.get(label).map(Extent::bytes)
    }

    /// All blobs with their labels, by label.
    pub fn blobs(&self) -> impl ExactSizeIterator<Item = (&str, &[u8])> {
        self.blobs.iter().map(|(label, extent)| (label.as_str(), extent.bytes()))
    }

    /// Bytes put into it.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.extents().map(|extent| extent.bytes().len()).sum()
    }

    /// Bytes of the pool it occupies: a little more than [`Self::len_bytes`], as extents end at multiples of
    /// [`GRANULE`](super::GRANULE).
    #[must_use]
    pub fn occupied_bytes(&self) -> usize {
        self.extents().map(Extent::occupied_bytes).sum()
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.chunks.iter().map(|chunk| &chunk.extent).chain(self.blobs.values())
    }
}
