//! The index of a flushed file: what the snapshot is called, and where each of its parts lies.
//!
//! It is JSON in an envelope with a checksum, like VM state and manifest. A loaded index is hostile until checked: an [`Index`]
//! exists only if the parts tile the file exactly and no part is longer than its kind can be.

use cloner_codec::chunk::Form;
use serde::{Deserialize, Serialize};
use vmm::schema::envelope::{self, Schema};

use crate::chunk_id::ChunkId;
use crate::pool::Labels;
use crate::snapshot::SnapshotId;

use super::encrypt::TAG_BYTES;
use super::files::BLOCK_BYTES;

const SCHEMA: Schema = Schema { magic: *b"CLNFIDX\0", version: 2, name: "index of a flushed snapshot" };

/// The state of a VM with sixteen vCPUs has about 300 KiB, the manifest of 64 GiB of memory 2 MiB.
const BLOB_BYTES_MAX: u64 = 64 << 20;
/// No index is longer: 64 GiB of memory are 32 Ki chunks, whose entries have fewer than 200 bytes each.
pub(super) const INDEX_BYTES_MAX: u64 = 64 << 20;

/// The text for a [`Form`], which the codec does not know how to serialise.
#[derive(Serialize, Deserialize)]
#[serde(remote = "Form", rename_all = "lowercase")]
pub(super) enum FormText {
    Hot,
    Cold,
}

/// Schema of the index, version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct IndexV2 {
    /// Number of the snapshot, the same as in the header.
    pub(super) id: SnapshotId,
    pub(super) name: String,
    pub(super) labels: Labels,
    /// The snapshots that its chunks refer to, in the order in which references number them.
    pub(super) dependencies: Vec<SnapshotId>,
    /// The form of all chunks in the file.
    #[serde(with = "FormText")]
    pub(super) form: Form,
    /// Sorted by region and index.
    pub(super) chunks: Vec<ChunkPlaceV2>,
    /// Sorted by label. In the file, they follow the chunks.
    pub(super) blobs: Vec<BlobPlaceV1>,
}

/// Where in the file a chunk lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ChunkPlaceV2 {
    /// As in the manifest: it has the checksum of the hot form, whatever the form of the file.
    pub(super) id: ChunkId,
    pub(super) offset: u64,
    /// Length as stored, including the tag of encryption.
    pub(super) bytes: u64,
    /// The checksum in the header of the chunk as it is stored. In a hot file, it is that of the id. A cold chunk cannot be compared
    /// with its id: the encoder that makes it hot again may be another one, with other results.
    pub(super) checksum: u64,
}

/// Where in the file a blob lies.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct BlobPlaceV1 {
    pub(super) label: String,
    pub(super) offset: u64,
    /// Length as stored, including the tag of encryption.
    pub(super) bytes: u64,
    /// XXH3-64 of the blob before encryption.
    pub(super) checksum: u64,
}

/// Why an index is not valid.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// The envelope or its text is damaged.
    #[error("damaged")]
    Envelope(#[from] envelope::Error),
    /// The index belongs to another snapshot.
    #[error("it belongs to snapshot {found}, but the header says {expected}")]
    Id {
        /// Number of the snapshot in the header.
        expected: String,
        /// Number of the snapshot in the index.
        found: SnapshotId,
    },
    /// A part does not start where the one before it ends.
    #[error("{what} starts at byte {found}, but {expected} was expected")]
    Place {
        /// Which part of the file.
        what: String,
        /// Offset at which it should start.
        expected: u64,
        /// Offset at which it starts.
        found: u64,
    },
    /// A part is longer than such a part can be, or too short for the tag of encryption.
    #[error("{what} has {found} bytes, which is not a possible length: at most {max} are")]
    Length {
        /// Which part of the file.
        what: String,
        /// Its length in bytes.
        found: u64,
        /// The greatest length in bytes that such a part can have.
        max: u64,
    },
    /// A chunk in a hot file is said to have another checksum than its id has.
    #[error("{chunk} is stored hot with checksum {stored:#018x}, but its id has {expected:#018x}")]
    Checksum {
        /// The chunk.
        chunk: ChunkId,
        /// The checksum in its id.
        expected: u64,
        /// The checksum that it has as stored.
        stored: u64,
    },
    /// Parts are not in order, or one is there twice.
    #[error("{what} is out of order")]
    Order {
        /// Which part of the file.
        what: String,
    },
}

/// An index that was checked.
#[derive(Debug, Clone)]
pub(super) struct Index(IndexV2);

impl Index {
    pub(super) const fn get(&self) -> &IndexV2 {
        &self.0
    }

    /// Checks the bytes of an index that starts at `index_at`, where the records end.
    pub(super) fn from_bytes(
        bytes: &[u8],
        snapshot: u128,
        index_at: u64,
        encrypted: bool,
    ) -> Result<Self, IndexError> {
        let text = SCHEMA.unwrap(bytes)?;
        let index: IndexV2 = serde_json::from_slice(text).map_err(envelope::Error::from)?;
        if index.id.number() != snapshot {
            return Err(IndexError::Id { expected: format!("{snapshot:032x}"), found: index.id });
        }
        let tag = if encrypted { TAG_BYTES as u64 } else { 0 };
        let chunk_max = tag + index.form.encoded_bytes_max() as u64;
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
            let ChunkPlaceV2 { id, offset, bytes, checksum } = *chunk;
            let what = || id.to_string();
            part(&what, offset, bytes, chunk_max)?;
            if number > 0 && index.chunks[number - 1].id.place() >= id.place() {
                return Err(IndexError::Order { what: what() });
            }
            if index.form == Form::Hot && checksum != id.checksum {
                return Err(IndexError::Checksum { chunk: id, expected: id.checksum, stored: checksum });
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

impl IndexV2 {
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        SCHEMA.wrap(&serde_json::to_vec(self).expect("plain structs of numbers and strings"))
    }
}

#[cfg(test)]
mod tests;
