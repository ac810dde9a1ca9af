//! The first phase of a put: a name and an amount of memory, claimed but not visible.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::chunk_id::ChunkId;
use crate::sync::{into_inner, lock};

use super::Error;
use super::extents::{Extent, Promise};
use super::flushed::flushed_bytes;
use super::index::ClaimedName;
use super::labels::Labels;
use super::ledger::Claim;
use super::stored::{StoredChunk, StoredSnapshot};

/// A snapshot being filled, by any number of threads; invisible until [`publish`](Self::publish).
///
/// Everything that can fail does so before `publish`. Dropping a reservation instead of publishing it gives the name and all
/// memory back: a snapshot that fails half-way leaves no trace.
#[derive(Debug)]
#[must_use = "dropping it undoes it"]
pub struct Reservation {
    name: ClaimedName,
    promise: Promise,
    labels: Labels,
    /// The claim on what the battery can save; `None` if no promise is made about power.
    claim: Option<Claim>,
    contents: Mutex<Contents>,
}

/// What has been put so far.
#[derive(Debug, Default)]
struct Contents {
    /// By region and index.
    chunks: BTreeMap<(u16, u32), StoredChunk>,
    blobs: BTreeMap<String, Extent>,
    dependencies: Vec<Arc<StoredSnapshot>>,
}

impl Reservation {
    pub(super) fn new(name: ClaimedName, promise: Promise, labels: Labels, claim: Option<Claim>) -> Self {
        Self { name, promise, labels, claim, contents: Mutex::default() }
    }

    /// The name the snapshot will have.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name.get()
    }

    /// Copies one chunk into the pool. The order of calls does not matter: chunks are kept in the order of their ids. The pool keeps
    /// the id as it is given, and does not compare its checksum with the bytes.
    ///
    /// # Errors
    /// [`Error::Full`] if the pool has no room; [`Error::Refused`] if the battery could not save the chunk;
    /// [`Error::ChunkTaken`] if a chunk with the same region and index was put before.
    pub fn put_chunk(&self, id: ChunkId, bytes: &[u8]) -> Result<(), Error> {
        let chunk = StoredChunk::new(id, self.store(bytes)?);
        let new = insert_new(&mut self.contents().chunks, id.place(), chunk);
        if new { Ok(()) } else { Err(Error::ChunkTaken { id }) }
    }

    /// Copies something other than a chunk into the pool, such as a VM's state.
    ///
    /// # Errors
    /// [`Error::Full`] if the pool has no room; [`Error::Refused`] if the battery could not save the blob;
    /// [`Error::BlobTaken`] for a label that was put before.
    pub fn put_blob(&self, label: &str, bytes: &[u8]) -> Result<(), Error> {
        let extent = self.store(bytes)?;
        let new = insert_new(&mut self.contents().blobs, label.to_owned(), extent);
        if new { Ok(()) } else { Err(Error::BlobTaken { label: label.to_owned() }) }
    }

    /// Keeps another snapshot's memory for as long as this one's, because chunks of this one refer to it. Removing the other
    /// snapshot hides its name, but frees nothing until this snapshot is gone as well.
    pub fn depend_on(&self, other: Arc<StoredSnapshot>) {
        self.contents().dependencies.push(other);
    }

    /// Publishes the snapshot: makes it visible under its name, complete and immutable, and releases what was promised but not
    /// used.
    pub fn publish(self) -> Arc<StoredSnapshot> {
        let Self { name, promise, labels, claim, contents } = self;
        drop(promise);
        if let Some(claim) = &claim {
            claim.settle();
        }
        let Contents { chunks, blobs, dependencies } = into_inner(contents);
        let named = (name.get().to_owned(), labels);
        let chunks = chunks.into_values().collect();
        let stored = Arc::new(StoredSnapshot::new(named, chunks, blobs, dependencies, claim));
        name.fill(&stored);
        stored
    }

    /// Claims the bytes before it takes the memory: bytes that the battery could not save are never in the pool.
    fn store(&self, bytes: &[u8]) -> Result<Extent, Error> {
        if let Some(claim) = &self.claim {
            claim.take(flushed_bytes(bytes.len()))?;
        }
        self.promise.store(bytes)
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        lock(&self.contents)
    }
}

/// Inserts the value unless the key is there already, and returns whether it did.
fn insert_new<K: Ord, V>(map: &mut BTreeMap<K, V>, key: K, value: V) -> bool {
    match map.entry(key) {
        Entry::Vacant(place) => {
            place.insert(value);
            true
        }
        Entry::Occupied(_) => false,
    }
}
