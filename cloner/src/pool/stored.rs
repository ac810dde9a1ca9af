//! A published snapshot, as the pool knows it: chunks by id and labelled blobs.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock};

use crate::chunk_id::ChunkId;
use crate::sync::lock;

use super::extents::Extent;
use super::labels::Labels;
use super::ledger::Claim;

/// The bytes of one snapshot, readable without copying by any number of threads for as long as a handle exists.
///
/// They no longer change. Not even [`Pool::remove`](super::Pool::remove) changes them: it hides the name, and the memory
/// is freed with the last handle.
#[derive(Debug)]
pub struct StoredSnapshot {
    name: String,
    labels: Labels,
    /// Sorted by region and index.
    chunks: Box<[StoredChunk]>,
    blobs: BTreeMap<String, Extent>,
    dependencies: Box<[Arc<Self>]>,
    /// `Some` while these bytes exist in RAM only, if a ledger counts such bytes.
    claim: Mutex<Option<Claim>>,
    /// The number that other code knows the snapshot by, once it was worked out; see [`StoredSnapshot::number`].
    number: OnceLock<Option<u128>>,
}

/// One chunk of a snapshot.
#[derive(Debug)]
pub struct StoredChunk {
    id: ChunkId,
    extent: Extent,
}

impl StoredChunk {
    pub(super) const fn new(id: ChunkId, extent: Extent) -> Self {
        Self { id, extent }
    }

    /// The id that the chunk was put under.
    #[must_use]
    pub const fn id(&self) -> ChunkId {
        self.id
    }

    /// The chunk's bytes, as they were put.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.extent.bytes()
    }
}

impl StoredSnapshot {
    pub(super) fn new(
        (name, labels): (String, Labels),
        chunks: Box<[StoredChunk]>,
        blobs: BTreeMap<String, Extent>,
        dependencies: Vec<Arc<Self>>,
        claim: Option<Claim>,
    ) -> Self {
        let claim = Mutex::new(claim);
        Self {
            name,
            labels,
            chunks,
            blobs,
            dependencies: dependencies.into(),
            claim,
            number: OnceLock::new(),
        }
    }

    /// Priority and tags of the snapshot.
    #[must_use]
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    /// A number that `work_out` finds in the blobs. It is worked out only once, because it may be asked for while a battery
    /// runs down.
    pub(crate) fn number(&self, work_out: impl FnOnce(&Self) -> Option<u128>) -> Option<u128> {
        *self.number.get_or_init(|| work_out(self))
    }

    /// Records that the bytes are durable: the [`Ledger`](super::Ledger) no longer counts them.
    pub fn mark_safe(&self) {
        // Dropped outside the lock.
        let claim = self.claim().take();
        drop(claim);
    }

    /// Number of bytes that the ledger counts as being in RAM only; zero if they are durable or if there is no ledger.
    #[must_use]
    pub fn unflushed_bytes(&self) -> u64 {
        self.claim().as_ref().map_or(0, Claim::used_bytes)
    }

    /// Whether the ledger counts this snapshot as being in RAM only.
    #[must_use]
    pub fn is_unflushed(&self) -> bool {
        self.claim().is_some()
    }

    fn claim(&self) -> std::sync::MutexGuard<'_, Option<Claim>> {
        lock(&self.claim)
    }

    /// The snapshots whose memory this one keeps, in the order in which they were given.
    #[must_use]
    pub const fn dependencies(&self) -> &[Arc<Self>] {
        &self.dependencies
    }

    /// The name that the snapshot was published under. After a removal, another snapshot may have it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// All chunks, by ascending region and index.
    #[must_use]
    pub const fn chunks(&self) -> &[StoredChunk] {
        &self.chunks
    }

    /// The bytes of the chunk with this index in the region with this number.
    #[must_use]
    pub fn chunk(&self, region: u16, index: u32) -> Option<&[u8]> {
        let at = self.chunks.binary_search_by_key(&(region, index), |chunk| chunk.id.place()).ok()?;
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

    /// Every snapshot that this one keeps, directly or through others. Each appears once, after those that it depends on itself.
    #[must_use]
    pub fn kept(&self) -> Vec<Arc<Self>> {
        let mut kept = Vec::new();
        self.add_kept(&mut kept);
        kept
    }

    fn add_kept(&self, kept: &mut Vec<Arc<Self>>) {
        for other in &self.dependencies {
            if !kept.iter().any(|known| Arc::ptr_eq(known, other)) {
                other.add_kept(kept);
                kept.push(Arc::clone(other));
            }
        }
    }

    /// Number of bytes that were put into the snapshot.
    #[must_use]
    pub fn len_bytes(&self) -> usize {
        self.extents().map(|extent| extent.bytes().len()).sum()
    }

    /// Bytes of the pool that the snapshot occupies: a little more than [`Self::len_bytes`], because extents end at multiples
    /// of [`GRANULE`](super::GRANULE).
    #[must_use]
    pub fn occupied_bytes(&self) -> usize {
        self.extents().map(Extent::occupied_bytes).sum()
    }

    pub(super) fn extents(&self) -> impl Iterator<Item = &Extent> {
        self.chunks.iter().map(|chunk| &chunk.extent).chain(self.blobs.values())
    }
}
