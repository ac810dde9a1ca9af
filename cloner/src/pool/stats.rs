//! The pool in numbers.

use super::Labels;

/// Sizes at one moment. `used_bytes + free_bytes` is `capacity_bytes`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stats {
    /// Size of the pool.
    pub capacity_bytes: usize,
    /// Occupied: by visible snapshots, by removed ones that are still held, and by ones not sealed yet.
    pub used_bytes: usize,
    /// Not occupied.
    pub free_bytes: usize,
    /// Of the free bytes, those promised to reservations.
    pub promised_bytes: usize,
    /// The longest contiguous free range, and so the longest chunk that fits.
    pub largest_free_bytes: usize,
    /// Chunks and blobs in use.
    pub extents: usize,
    /// Visible snapshots.
    pub snapshots: usize,
}

/// One visible snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// Its name.
    pub name: String,
    /// Number of chunks.
    pub chunks: usize,
    /// Bytes put into it.
    pub len_bytes: usize,
    /// Bytes of the pool it occupies alone: removing it and all that depends on it frees as many.
    pub occupied_bytes: usize,
    /// Bytes of other snapshots that it keeps because its pages refer to theirs.
    pub shared_bytes: usize,
    /// Names of these, whether or not they are still listed.
    pub dependencies: Vec<String>,
    /// Listed snapshots that keep this one.
    pub dependents: usize,
    /// Priority and tags.
    pub labels: Labels,
    /// Whether it is in RAM only, as far as anybody counts.
    pub unflushed: bool,
}
