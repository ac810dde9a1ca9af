//! What identifies a chunk of a snapshot: one type for the manifest, the pool and the index of a flushed file.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Which chunk of a snapshot, and which content.
///
/// Order is by region and index. Within one snapshot there are no two chunks with the same [`place`](Self::place).
///
/// The checksum guards against accidents only. When chunks leave the host, they will also have a content name, the BLAKE3-256 of the
/// encoded bytes, computed when that first happens: its field goes here, because manifest, pool and file index all embed this type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChunkId {
    /// Number of the region, from 0, in the order of the manifest.
    pub region: u16,
    /// Index of the chunk in the region, from 0.
    pub index: u32,
    /// The checksum in the header of the chunk's hot form.
    pub checksum: u64,
}

impl ChunkId {
    /// Where in the snapshot the chunk belongs, whatever its content: region and index.
    #[must_use]
    pub const fn place(&self) -> (u16, u32) {
        (self.region, self.index)
    }
}

/// Tells which chunk of a snapshot is meant, without its checksum.
impl fmt::Display for ChunkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { region, index, checksum: _ } = self;
        write!(f, "region {region}, chunk {index}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_in_the_order_of_their_places() {
        let id = |region, index, checksum| ChunkId { region, index, checksum };
        let ordered = [id(0, 0, 9), id(0, 1, 0), id(0, u32::MAX, 5), id(1, 0, 0), id(u16::MAX, 0, 1)];
        assert!(ordered.is_sorted());
        assert!(ordered.is_sorted_by_key(ChunkId::place));
    }

    #[test]
    fn a_field_that_is_unknown_missing_or_too_large_is_refused() {
        let whole = r#"{"region":65535,"index":4294967295,"checksum":18446744073709551615}"#;
        let id = ChunkId { region: u16::MAX, index: u32::MAX, checksum: u64::MAX };
        assert_eq!(serde_json::from_str::<ChunkId>(whole).unwrap(), id);
        for wrong in [
            r#"{"region":65536,"index":0,"checksum":0}"#,
            r#"{"region":0,"index":4294967296,"checksum":0}"#,
            r#"{"region":0,"index":-1,"checksum":0}"#,
            r#"{"index":0,"checksum":0}"#,
            r#"{"region":0,"index":0}"#,
            r#"{"region":0,"index":0,"checksum":0,"surprise":0}"#,
        ] {
            assert!(serde_json::from_str::<ChunkId>(wrong).is_err(), "{wrong}");
        }
    }
}
