//! The manifest: which parts a snapshot consists of.

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
    /// The snapshot's id. Names can be reused, ids cannot.
    pub id: SnapshotId,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// Number of pages that the guest had ever touched.
    pub touched_pages: u64,
    /// The snapshots it refers to, in the order in which references count them.
    pub dependencies: Vec<SnapshotId>,
    /// Whether the first dependency is the parent, to which PARENT and PATCH markers refer.
    pub has_parent: bool,
    /// The chunks that hold anything, by ascending index.
    pub chunks: Vec<ChunkEntryV1>,
}

/// Names a snapshot forever: 32 hexadecimal digits, drawn at random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SnapshotId(String);

/// One chunk of a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkEntryV1 {
    /// Index of the chunk in the guest's memory, from 0.
    pub index: u32,
    /// The checksum in the chunk's header.
    pub checksum: u64,
}

impl SnapshotId {
    /// Draws a new id from the kernel's random numbers, so that forks of one process get different ids.
    ///
    /// # Errors
    /// The kernel's reason for not giving random numbers.
    pub fn random() -> io::Result<Self> {
        let number = u128::from_le_bytes(random::bytes()?);
        Ok(Self(format!("{number:032x}")))
    }
}

impl SnapshotId {
    /// The id as a number; `None` if its text is not 32 lower-case hexadecimal digits.
    #[must_use]
    pub fn number(&self) -> Option<u128> {
        Self::parse(&self.0)
    }

    /// Parses 32 hexadecimal digits. Only lower case is accepted, so that each number has exactly one text; `None` for any other.
    #[must_use]
    pub fn parse(text: &str) -> Option<u128> {
        let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        let is_id = text.len() == 32 && text.bytes().all(digit);
        if is_id { u128::from_str_radix(text, 16).ok() } else { None }
    }

    /// The id that has this number.
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
    /// Never: a manifest consists of numbers and strings only.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        MANIFEST.wrap(&serde_json::to_vec(self).expect("plain structs of numbers and strings"))
    }

    /// Reads a manifest from its envelope, which may come from anywhere.
    ///
    /// # Errors
    /// [`envelope::Error`], which says what is wrong with the envelope or with the text in it.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, envelope::Error> {
        Ok(serde_json::from_slice(MANIFEST.unwrap(bytes)?)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A manifest as version 1 was defined. A build that can no longer read it has changed the schema.
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
