//! The index of a flushed file: what the snapshot is called, and where each of its parts lies.
//!
//! JSON in an envelope with a checksum, as VM state and manifest are. Loaded, it is hostile: [`Index`] exists only if the parts
//! tile the file exactly and none is longer than its kind can be.

use cloner_codec::chunk::{COLD_BYTES_MAX, ENCODED_BYTES_MAX};
use serde::{Deserialize, Serialize};
use vmm::schema::envelope::{self, Schema};

use crate::pool::Labels;
use crate::snapshot::SnapshotId;

use super::files::BLOCK_BYTES;
use super::seal::TAG_BYTES;

const SCHEMA: Schema = Schema { magic: *b"CLNFIDX\0", version: 1, name: "index of a flushed snapshot" };

/// A VM's state of sixteen vCPUs has some 300 KiB, a manifest of 64 GiB 2 MiB.
const BLOB_BYTES_MAX: u64 = 64 << 20;
/// Longer indices cannot be had: 64 GiB of memory are 32 Ki chunks of some 100 bytes each.
pub(super) const INDEX_BYTES_MAX: u64 = 64 << 20;

/// In which form chunks are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As they are in the pool.
    Hot,
    /// Unique pages in zstd frames: smaller, and slower to write and to read.
    Cold,
}

impl std::fmt::Display for Form {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Hot => "hot",
            Self::Cold => "cold",
        })
    }
}

/// Schema of the index, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexV1 {
    /// The snapshot's own; the header's.
    pub(super) id: SnapshotId,
    pub(super) name: String,
    pub(super) labels: Labels,
    /// The snapshots its chunks refer to, in the order that references count them.
    pub(super) dependencies: Vec<SnapshotId>,
    pub(super) form: Form,
    /// By ascending key.
    pub(super) chunks: Vec<ChunkPlaceV1>,
    /// By label, behind the chunks.
    pub(super) blobs: Vec<BlobPlaceV1>,
}

/// Where a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChunkPlaceV1 {
    pub(super) key: u64,
    pub(super) offset: u64,
    /// As stored.
    pub(super) bytes: u64,
    /// The one in the chunk's own header.
    pub(super) checksum: u64,
}

/// Where something else lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlobPlaceV1 {
    pub(super) label: String,
    pub(super) offset: u64,
    /// As stored.
    pub(super) bytes: u64,
    /// XXH3-64.
    pub(super) checksum: u64,
}

/// Why an index is none.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The envelope or its text is damaged.
    #[error("damaged")]
    Envelope(#[from] envelope::Error),
    /// It is another snapshot's.
    #[error("it is of snapshot {found}, the header says {expected}")]
    Id {
        /// The header's.
        expected: String,
        /// The index's.
        found: SnapshotId,
    },
    /// A part does not start where the one before it ends.
    #[error("{what} starts at byte {found}, {expected} was expected")]
    Place {
        /// Which part.
        what: String,
        /// Where it should start.
        expected: u64,
        /// Where it starts.
        found: u64,
    },
    /// A part is longer than such a part can be.
    #[error("{what} has {found} bytes, {max} at most are possible")]
    Length {
        /// Which part.
        what: String,
        /// Its length.
        found: u64,
        /// The longest there is.
        max: u64,
    },
    /// Parts are not in order, or one is there twice.
    #[error("{what} is out of order")]
    Order {
        /// Which part.
        what: String,
    },
}

/// An index that holds.
#[derive(Debug, Clone)]
pub(super) struct Index(IndexV1);

impl Index {
    pub(super) const fn get(&self) -> &IndexV1 {
        &self.0
    }

    /// Checks the bytes of an index that ends the records at `index_at`.
    pub(super) fn from_bytes(
        bytes: &[u8],
        snapshot: u128,
        index_at: u64,
        sealed: bool,
    ) -> Result<Self, IndexError> {
        let text = SCHEMA.unwrap(bytes)?;
        let index: IndexV1 = serde_json::from_slice(text).map_err(envelope::Error::from)?;
        if index.id.number() != Some(snapshot) {
            return Err(IndexError::Id { expected: format!("{snapshot:032x}"), found: index.id });
        }
        let tag = if sealed { TAG_BYTES as u64 } else { 0 };
        let chunk_max = tag
            + match index.form {
                Form::Hot => ENCODED_BYTES_MAX,
                Form::Cold => COLD_BYTES_MAX,
            } as u64;
        let mut end = BLOCK_BYTES as u64;
        let mut part = |what: &dyn Fn() -> String, offset: u64, bytes: u64, max: u64| {
            if offset != end {
                return Err(IndexError::Place { what: what(), expected: end, found: offset });
            }
            if bytes > max || bytes < tag {
                return Err(IndexError::Length { what: what(), found: bytes, max });
            }
            // No overflow: each part is far shorter than 2^40, and there are fewer than 2^20 in an index.
            end += bytes;
            Ok(())
        };
        for (number, chunk) in index.chunks.iter().enumerate() {
            let what = || format!("chunk {}", chunk.key);
            part(&what, chunk.offset, chunk.bytes, chunk_max)?;
            if number > 0 && index.chunks[number - 1].key >= chunk.key {
                return Err(IndexError::Order { what: what() });
            }
        }
        for (number, blob) in index.blobs.iter().enumerate() {
            let what = || format!("{:?}", blob.label);
            part(&what, blob.offset, blob.bytes, BLOB_BYTES_MAX + tag)?;
            if number > 0 && index.blobs[number - 1].label >= blob.label {
                return Err(IndexError::Order { what: what() });
            }
        }
        part(&|| String::from("the index"), index_at, tag, tag)?;
        Ok(Self(index))
    }
}

impl IndexV1 {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        SCHEMA.wrap(&serde_json::to_vec(self).expect("plain structs of numbers and strings"))
    }
}
