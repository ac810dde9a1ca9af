//! The pool in numbers.

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
    /// Bytes of the pool it occupies.
    pub occupied_bytes: usize,
}
