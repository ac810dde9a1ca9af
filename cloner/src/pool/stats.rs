//! The pool in numbers.

use super::Labels;

/// The pool's sizes at one moment. `used_bytes + free_bytes` is `capacity_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolStats {
    /// Size of the pool in bytes.
    pub capacity_bytes: usize,
    /// Bytes occupied by visible snapshots, by removed ones that are still held, and by ones that are not published yet.
    pub used_bytes: usize,
    /// Bytes that are not occupied.
    pub free_bytes: usize,
    /// How many of the free bytes are promised to reservations.
    pub promised_bytes: usize,
    /// Length in bytes of the longest contiguous free range, and so of the longest chunk that fits.
    pub largest_free_bytes: usize,
    /// Number of chunks and blobs in use.
    pub extents: usize,
    /// Number of visible snapshots.
    pub snapshots: usize,
}

/// One visible snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Name that the snapshot is found under.
    pub name: String,
    /// Number of chunks.
    pub chunks: usize,
    /// Bytes that were put into the snapshot.
    pub len_bytes: usize,
    /// Bytes of the pool that this snapshot alone occupies: removing it and all that depend on it frees this many.
    pub occupied_bytes: usize,
    /// Bytes of other snapshots that this one keeps because its pages refer to theirs.
    pub shared_bytes: usize,
    /// Names of these other snapshots, whether or not they are still listed.
    pub dependencies: Vec<String>,
    /// Number of listed snapshots that keep this one.
    pub dependents: usize,
    /// Priority and tags of the snapshot.
    pub labels: Labels,
    /// Whether a ledger counts the snapshot as being in RAM only. Always `false` without a ledger.
    pub unflushed: bool,
}
