//! Large buffers of one kind, touched and in huge pages if the host has some, so that no coder gets better memory than another.

use std::collections::TryReserveError;
use std::ops::{Deref, DerefMut};

use cloner_codec::chunk::CHUNK_BYTES;

use crate::sys::huge;

/// An empty buffer with this capacity in bytes, in huge pages if the host has some. Meant for sizes that come from outside.
///
/// # Errors
/// [`TryReserveError`] if there is no memory for the buffer.
pub fn try_with_capacity(bytes: usize) -> Result<Vec<u8>, TryReserveError> {
    let mut memory = Vec::new();
    memory.try_reserve_exact(bytes)?;
    huge::advise(memory.spare_capacity_mut());
    Ok(memory)
}

/// An empty buffer with this capacity in bytes, in huge pages if the host has some.
#[must_use]
pub fn with_capacity(bytes: usize) -> Vec<u8> {
    let mut memory = Vec::with_capacity(bytes);
    huge::advise(memory.spare_capacity_mut());
    memory
}

/// A buffer of this length in bytes, every page of which has been touched. It is filled with [`POISON`].
#[must_use]
pub fn touched(bytes: usize) -> Vec<u8> {
    let mut memory = with_capacity(bytes);
    memory.resize(bytes, POISON);
    memory
}

/// Memory to decode to, aligned to huge pages like guest memory.
#[derive(Debug)]
pub struct TargetBuffer {
    bytes: Vec<u8>,
    start: usize,
}

impl TargetBuffer {
    /// Makes a target of this length in bytes, every page of which has been touched. It is filled with [`POISON`].
    #[must_use]
    pub fn new(bytes: usize) -> Self {
        let mut memory = with_capacity(bytes + CHUNK_BYTES);
        let start = memory.as_ptr().align_offset(CHUNK_BYTES);
        memory.resize(start + bytes, POISON);
        Self { bytes: memory, start }
    }
}

impl Deref for TargetBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for TargetBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

/// The value of every byte of touched memory before a coder writes to it, so that it cannot be mistaken for a coder's output.
pub const POISON: u8 = 0xa5;

/// Runs of bytes, kept one after the other in one buffer.
#[derive(Clone, Debug, Default)]
pub struct ByteRuns {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl ByteRuns {
    /// Copies these runs into one buffer.
    #[must_use]
    pub fn of(runs: &[Vec<u8>]) -> Self {
        let mut stored = Self::with_capacity(runs.iter().map(Vec::len).sum());
        runs.iter().for_each(|run| stored.push(run));
        stored
    }

    /// Makes an empty buffer with room for `bytes` bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        Self { bytes: with_capacity(bytes), ends: Vec::new() }
    }

    /// Appends a copy of a run.
    pub fn push(&mut self, run: &[u8]) {
        self.bytes.extend_from_slice(run);
        self.ends.push(self.bytes.len());
    }

    /// The run with this number, counted from zero.
    ///
    /// # Panics
    /// If there is no such run.
    #[must_use]
    pub fn get(&self, run: usize) -> &[u8] {
        let start = run.checked_sub(1).map_or(0, |before| self.ends[before]);
        &self.bytes[start..self.ends[run]]
    }

    /// All runs, in the order in which they were appended.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.ends.len()).map(|run| self.get(run))
    }

    /// Number of bytes in all runs together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}
