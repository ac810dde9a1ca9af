//! The manifest: which parts a snapshot consists of.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};
use vmm::schema::envelope::{self, Schema};
use vmm::schema::producer;

use crate::chunk_id::ChunkId;

use super::id::SnapshotId;

/// Label of the manifest in the pool.
pub const MANIFEST_LABEL: &str = "manifest";
/// Label of the VM's state in the pool.
pub const STATE_LABEL: &str = "state";
/// Number of the region that holds the guest's memory.
pub const MEMORY_REGION: u16 = 0;

const MANIFEST: Schema = Schema { magic: *b"CLNSNAP\0", version: 2, name: "snapshot manifest" };
/// The program that writes manifests, and its version.
const PRODUCER: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));
const MEMORY_NAME: &str = "memory";
const REGION_NAME_MAX_BYTES: usize = 32;
/// Number of characters of a wrong text that its error keeps: the text may be of any length.
const SHOWN_CHARACTERS: usize = 64;

/// Schema of the manifest, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestV2 {
    /// Name and version of the program that made the snapshot: 1 to 64 printable ASCII characters. For people who look into it;
    /// nothing depends on it.
    pub producer: String,
    /// The snapshot's id. Names can be reused, ids cannot.
    pub id: SnapshotId,
    /// The snapshots it refers to, in the order in which references count them.
    pub dependencies: Vec<SnapshotId>,
    /// Whether the first dependency is the parent, to which PARENT and PATCH markers refer.
    pub has_parent: bool,
    /// Number of pages that the guest had ever touched.
    pub touched_pages: u64,
    /// What the chunks are divided into; see [`RegionV2::memory`].
    pub regions: Vec<RegionV2>,
    /// The chunks that hold anything, by ascending region and index.
    pub chunks: Vec<ChunkId>,
}

/// One region of a snapshot, with chunks that are numbered from 0.
///
/// This is not a region of guest-physical memory: all of those together are one region of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionV2 {
    /// Unique in the snapshot: 1 to 32 characters, each a to z, 0 to 9 or a hyphen.
    pub name: String,
    /// What the region holds.
    pub kind: RegionKind,
    /// Size in bytes.
    pub bytes: u64,
}

/// What a region of a snapshot holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RegionKind {
    /// The guest's memory: that below 3 GiB, followed by that above 4 GiB.
    Memory,
}

/// Why bytes are not a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The envelope is damaged, or the text in it does not follow the schema.
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    /// The producer is empty or too long, or has a character that is not allowed.
    #[error("producer is {found:?}, allowed are 1 to {} printable ASCII characters", producer::MAX_BYTES)]
    Producer {
        /// The first 64 characters of the text.
        found: String,
    },
    /// The name of a region is empty or too long, or has a character that is not allowed.
    #[error(
        "regions[{number}].name is {found:?}, allowed are 1 to {REGION_NAME_MAX_BYTES} characters, each a to z, 0 to 9 or a hyphen"
    )]
    RegionName {
        /// Number of the region.
        number: usize,
        /// The first 64 characters of the name.
        found: String,
    },
    /// Two regions have the same name.
    #[error("the manifest lists the region {name:?} twice")]
    DuplicateRegion {
        /// The name that occurs twice.
        name: String,
    },
    /// The guest's memory is missing, or there are regions besides it.
    #[error("the manifest lists {found} regions, allowed is exactly 1")]
    RegionCount {
        /// Number of regions.
        found: usize,
    },
    /// This build does not know the region.
    #[error("the manifest's region is named {name:?}, allowed is {MEMORY_NAME:?}")]
    UnknownRegion {
        /// Name of the region.
        name: String,
    },
    /// A chunk is in a region that the manifest does not list.
    #[error("the manifest lists {chunk}, but its regions are numbered 0 to {last}")]
    ChunkRegion {
        /// The chunk.
        chunk: ChunkId,
        /// Number of the last region.
        last: usize,
    },
}

/// A manifest that was checked: its texts are short and printable, its only region is the guest's memory, and all chunks are in it.
/// Whether the chunks exist, and are in order, is checked when the snapshot is opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest(ManifestV2);

impl RegionV2 {
    /// The region of a guest's memory. Every snapshot has exactly this one today.
    #[must_use]
    pub fn memory(bytes: u64) -> Self {
        Self { name: String::from(MEMORY_NAME), kind: RegionKind::Memory, bytes }
    }
}

impl ManifestV2 {
    /// What this build gives as [`producer`](Self::producer).
    #[must_use]
    pub fn this_producer() -> String {
        String::from(PRODUCER)
    }

    /// The manifest in its envelope.
    ///
    /// # Panics
    /// Never: a manifest consists of numbers and strings only.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        MANIFEST.wrap(&serde_json::to_vec(self).expect("plain structs of numbers and strings"))
    }
}

impl Manifest {
    /// Reads a manifest from its envelope, which may come from anywhere.
    ///
    /// # Errors
    /// [`ManifestError`], which says what is wrong with the envelope or with the text in it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, ManifestError> {
        let manifest: ManifestV2 =
            serde_json::from_slice(MANIFEST.unwrap(bytes)?).map_err(envelope::Error::from)?;
        manifest.try_into()
    }

    /// The fields.
    #[must_use]
    pub const fn get(&self) -> &ManifestV2 {
        &self.0
    }

    /// The fields, to be changed.
    #[must_use]
    pub fn into_inner(self) -> ManifestV2 {
        self.0
    }

    /// Bytes of guest memory.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.0.regions[usize::from(MEMORY_REGION)].bytes
    }
}

impl TryFrom<ManifestV2> for Manifest {
    type Error = ManifestError;

    fn try_from(manifest: ManifestV2) -> Result<Self, ManifestError> {
        let ManifestV2 { producer, id: _, dependencies: _, has_parent: _, touched_pages: _, regions, chunks } =
            &manifest;
        let is_short = (1..=producer::MAX_BYTES).contains(&producer.len());
        if !is_short || producer::first_unprintable(producer).is_some() {
            return Err(ManifestError::Producer { found: shown(producer) });
        }
        check_regions(regions)?;
        if let Some(chunk) = chunks.iter().find(|chunk| usize::from(chunk.region) >= regions.len()) {
            return Err(ManifestError::ChunkRegion { chunk: *chunk, last: regions.len() - 1 });
        }
        Ok(Self(manifest))
    }
}

fn check_regions(regions: &[RegionV2]) -> Result<(), ManifestError> {
    let mut names = BTreeSet::new();
    for (number, RegionV2 { name, kind: RegionKind::Memory, bytes: _ }) in regions.iter().enumerate() {
        let is_allowed = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-');
        if !(1..=REGION_NAME_MAX_BYTES).contains(&name.len()) || !name.bytes().all(is_allowed) {
            return Err(ManifestError::RegionName { number, found: shown(name) });
        }
        if !names.insert(name) {
            return Err(ManifestError::DuplicateRegion { name: name.clone() });
        }
    }
    match regions {
        [RegionV2 { name, .. }] if name == MEMORY_NAME => Ok(()),
        [RegionV2 { name, .. }] => Err(ManifestError::UnknownRegion { name: name.clone() }),
        _ => Err(ManifestError::RegionCount { found: regions.len() }),
    }
}

fn shown(text: &str) -> String {
    text.chars().take(SHOWN_CHARACTERS).collect()
}

#[cfg(test)]
mod tests;
