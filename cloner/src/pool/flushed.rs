//! What snapshots take on a disk, besides their own bytes.
//!
//! The ledger counts this with the bytes that a put claims, the battery's budget is reduced by it for each snapshot, and a flush
//! allocates it. [`crate::flush`] writes the files; its tests hold these numbers.

/// Bytes that a chunk or blob takes besides its own: at most 166 for its entry in the index, and 16 for the tag of encryption.
const RECORD_BESIDE_BYTES: u64 = 192;

/// Bytes that the file of a snapshot takes besides its records: the header, and the rounding of header, index and end to whole blocks.
pub const FLUSHED_FILE_BYTES: u64 = 4 * 4096;

/// The most bytes that one chunk or blob can take on disk: its own, its entry in the index, and what encryption adds.
#[must_use]
pub const fn flushed_bytes(len_bytes: usize) -> u64 {
    len_bytes as u64 + RECORD_BESIDE_BYTES
}
