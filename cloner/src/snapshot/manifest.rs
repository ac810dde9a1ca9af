//! What a snapshot consists of.

use std::io;

use serde::{Deserialize, Serialize};
use vmm::host::random;
use vmm::schema::envelope::{self, Schema};

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
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
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
    /// A new one, from random numbers of the kernel: forks of one process get different ones.
    ///
    /// # Errors
    /// If the kernel has no random numbers.
    pub fn random() -> io::Result<Self> {
        let number = u128::from_le_bytes(random::bytes()?);
        Ok(Self(format!("{number:032x}")))
    }
}

impl SnapshotId {
    /// The id as a number; `None` for a text that is none.
    #[must_use]
    pub fn number(&self) -> Option<u128> {
        Self::parse(&self.0)
    }

    /// The number that 32 hexadecimal digits are, lower case only: each number has one text.
    #[must_use]
    pub fn parse(text: &str) -> Option<u128> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_id = text.len() == 32 && text.bytes().all(digit);
        if is_id { u128::from_str_radix(text, 16).ok() } else { None }
    }

    /// The id with this number.
    #[must_use]
    pub fn from_number(number: u128) -> Self {
        Self(format!("{number:032x}"))
    }
}

impl std::fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(&self.0)
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

#[cfg(test)]
mod tests {
    use super::*;

    /// What version 1 looked like when it was fixed. A build that can no longer read it has changed the schema.
    const GOLDEN: &[u8] = include_bytes!("golden/v1.manifest");

    fn golden() -> ManifestV1 {
        let id = |digit: &str| SnapshotId(digit.repeat(32));
        let chunks = [(0, 0), (1, u64::MAX), (511, 0x0123_4567_89ab_cdef)];
        ManifestV1 {
            id: id("a"),
            memory_bytes: 1 << 30,
            touched_pages: 1234,
            dependencies: vec![id("0"), id("9")],
            has_parent: true,
            chunks: chunks.map(|(index, checksum)| ChunkEntryV1 { index, checksum }).to_vec(),
        }
    }

    #[test]
    fn the_golden_manifest_of_version_1_is_read_and_written_again_as_it_was() {
        assert_eq!(ManifestV1::from_bytes(GOLDEN).unwrap(), golden());
        assert_eq!(golden().to_bytes(), GOLDEN);
    }

    #[test]
    #[ignore = "writes the golden manifest: only for a new version of the schema"]
    fn write_the_golden_manifest() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/snapshot/golden/v1.manifest");
        std::fs::write(path, golden().to_bytes()).unwrap();
    }
}
