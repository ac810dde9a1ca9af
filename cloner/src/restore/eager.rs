//! Eager restore: all of the memory is decoded before the target runs. See [`Restorer::eager`](super::Restorer::eager).

use std::time::{Duration, Instant};

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES, TargetContents};
use cloner_codec::hot::{VerifiedChunk, decode_chunk};
use vmm::memory::{self, Backing, GuestMemory};

use crate::layout::{self, Chunk};
use crate::progress::Watch;
use crate::snapshot::{self, ChunkResolver, Snapshot};
use crate::walk::Walker;

/// Why the target's memory could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host cannot provide the memory.
    #[error("cannot make memory for the target")]
    Memory(#[from] memory::Error),
    /// The kind of memory asked for is shared with others, and so cannot be decoded into.
    #[error("an eager restore needs memory of its own, not memory that is {0}")]
    NotSole(String),
    /// The snapshot, or one that it depends on, is damaged.
    #[error("cannot decode the snapshot")]
    Snapshot(#[from] snapshot::Error),
    /// The caller cancelled the restore through its [`Cancel`](crate::progress::Cancel).
    #[error("cancelled")]
    Cancelled,
}

/// What a restore did, and how long each part took.
#[derive(Debug, Clone, Copy)]
pub struct EagerReport {
    /// Time to verify the checksums of all chunks, those of the snapshot's dependencies included.
    pub verify_time: Duration,
    /// Time to decode, including the kernel's work of populating the target's memory.
    pub decode_time: Duration,
    /// Bytes of guest memory in the chunks that were decoded.
    pub decoded_bytes: u64,
}

/// The memory of a target, and the report on how it was made.
#[derive(Debug)]
pub struct Restored {
    /// The memory, with all of the snapshot's pages in it.
    pub memory: GuestMemory,
    /// What was done, and how long each part took.
    pub report: EagerReport,
}

/// Makes memory and decodes the snapshot into it.
pub(super) fn restore(
    walker: &Walker<()>,
    snapshot: &Snapshot,
    backing: Backing,
    watch: Watch<'_>,
) -> Result<Restored, Error> {
    let started = Instant::now();
    let layout = snapshot.state().layout();
    let chunks = layout::chunks(layout);
    for snapshot in std::iter::once(snapshot).chain(snapshot.dependencies()) {
        let chunks = layout::chunks(snapshot.state().layout());
        walker.walk(&chunks, |(), chunk| snapshot.verify(chunk).map(|_| ()))?;
    }
    let verify_time = started.elapsed();

    let started = Instant::now();
    let mut memory = GuestMemory::new(layout, backing)?;
    let work = work(snapshot, &chunks, &mut memory)?;
    let decoded_bytes = work.iter().map(|(chunk, ..)| chunk.len_bytes() as u64).sum();
    watch.start(decoded_bytes);
    walker.walk_owned(work, |(), (chunk, verified, bytes)| {
        if watch.is_cancelled() {
            return Err(Error::Cancelled);
        }
        decode_chunk(&verified, &ChunkResolver::new(snapshot, chunk.index), TargetContents::Zeroed, bytes)
            .map_err(|source| snapshot::Error::Decode { index: chunk.index.0, source })?;
        watch.add(chunk.len_bytes() as u64);
        Ok(())
    })?;
    let decode_time = started.elapsed();
    let backing = memory.backing();
    tracing::info!(snapshot = snapshot.name(), decoded_bytes, %backing, ?verify_time, ?decode_time, "decoded");
    Ok(Restored { memory, report: EagerReport { verify_time, decode_time, decoded_bytes } })
}

type Work<'s, 'm> = Vec<(Chunk, VerifiedChunk<'s>, &'m mut [u8])>;

/// Pairs each chunk that the snapshot holds with its place in the target's memory.
fn work<'s, 'm>(
    snapshot: &'s Snapshot,
    chunks: &[Chunk],
    memory: &'m mut GuestMemory,
) -> Result<Work<'s, 'm>, Error> {
    let backing = memory.backing().to_string();
    let mut places = Vec::with_capacity(chunks.len());
    for region in memory.regions_mut() {
        let bytes = region.as_mut_slice().ok_or_else(|| Error::NotSole(backing.clone()))?;
        places.extend(bytes.chunks_mut(CHUNK_BYTES));
    }
    let mut work = Vec::new();
    for (chunk, place) in chunks.iter().zip(places) {
        debug_assert_eq!(place.len(), chunk.pages * PAGE_BYTES, "both divide the same layout");
        if let Some(encoded) = snapshot.reopen(chunk)? {
            work.push((*chunk, encoded, place));
        }
    }
    Ok(work)
}
