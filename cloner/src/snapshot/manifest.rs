//! What a snapshot consists of.

use std::hash::{BuildHasher, RandomState};

use serde::{Deserialize, Serialize};
use vmm::state::envelope::{self, Schema};

/// Label of the manifest in the pool.
pub const MANIFEST_LABEL: &str = "manifest";
/// Label of the VM's state in the pool.
pub const STATE_LABEL: &str = "state";

const MANIFEST: Schema = Schema { magic: *b"CLNSNAP\0", version: 1, name: "snapshot manifest" };

/// Schema of the manifest, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestV1 {
    /// The snapshot's own; names can be reused, this cannot.
    pub id: SnapshotId,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// Pages the guest had ever touched.
    pub touched_pages: u64,
    /// The snapshots it refers to, in the order that references count them.
    pub dependencies: Vec<SnapshotId>,
    /// Whether the first of them is the parent, to which PARENT and PATCH markers refer.
    pub has_parent: bool,
    /// The chunks that hold anything, by ascending index.
    pub chunks: Vec<ChunkEntryV1>,
}

/// Names a snapshot for ever: 32 hexadecimal digits, drawn at random.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct SnapshotId(String);

/// One chunk of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkEntryV1 {
    /// Its number.
    pub index: u32,
    /// The checksum in its header.
    pub checksum: u64,
}

impl SnapshotId {
    /// A new one. The standard library keys each [`RandomState`] with random numbers of the kernel.
    #[must_use]
    pub fn random() -> Self {
        let state = RandomState::new();
        Self(format!("{:016x}{:016x}", state.hash_one(0), state.hash_one(1)))
    }
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl ManifestV1 {
    /// The manifest in its envelope.
    ///
    /// # Panics
    /// Never: it is numbers and strings only.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        MANIFEST.wrap(&serde_json::to_vec(self).expect("plain structs of numbers and strings"))
    }

    /// A manifest from its envelope, which may come from anybody.
    ///
    /// # Errors
    /// See [`envelope::Error`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, envelope::Error> {
        Ok(serde_json::from_slice(MANIFEST.unwrap(bytes)?)?)
    }
}
