//! The first phase of a put: a name and an amount of memory, claimed but not visible.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Error;
use super::extents::{Extent, Promise};
use super::index::Claim;
use super::stored::Stored;

/// A snapshot being filled, by any number of threads; invisible until [`seal`](Self::seal).
///
/// Everything that can fail does so before `seal`. Dropping a reservation instead of sealing it gives the name and all
/// memory back: a snapshot that fails half-way leaves no trace.
#[derive(Debug)]
#[must_use = "dropping it undoes it"]
pub struct Reservation {
    claim: Claim,
    promise: Promise,
    contents: Mutex<Contents>,
}

/// What was put so far.
#[derive(Debug, Default)]
struct Contents {
    chunks: BTreeMap<u64, Extent>,
    blobs: BTreeMap<String, Extent>,
    dependencies: Vec<Arc<Stored>>,
}

impl Reservation {
    pub(super) fn new(claim: Claim, promise: Promise) -> Self {
        Self { claim, promise, contents: Mutex::default() }
    }

    /// The name the snapshot will have.
    #[must_use]
    pub fn name(&self) -> &str {
        self.claim.name()
    }

    /// Copies one chunk into the pool. The order of calls does not matter: chunks are kept in the order of their keys.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::ChunkTaken`] for a key that was put before.
    pub fn put_chunk(&self, key: u64, bytes: &[u8]) -> Result<(), Error> {
        let extent = self.promise.store(bytes)?;
        let new = insert_new(&mut self.contents().chunks, key, extent);
        if new { Ok(()) } else { Err(Error::ChunkTaken { key }) }
    }

    /// Copies something beside the chunks, such as a VM's state, into the pool.
    ///
    /// # Errors
    /// [`Error::Full`]; [`Error::BlobTaken`] for a label that was put before.
    pub fn put_blob(&self, label: &str, bytes: &[u8]) -> Result<(), Error> {
        let extent = self.promise.store(bytes)?;
        let new = insert_new(&mut self.contents().blobs, label.to_owned(), extent);
        if new { Ok(()) } else { Err(Error::BlobTaken { label: label.to_owned() }) }
    }

    /// Keeps another snapshot's memory for as long as this one's: its chunks refer there. A removal hides the other's name
    /// and frees nothing until this snapshot is gone as well.
    pub fn depend_on(&self, other: Arc<Stored>) {
        self.contents().dependencies.push(other);
    }

    /// Makes the snapshot visible under its name, complete and immutable, and releases what was promised but not used.
    pub fn seal(self) -> Arc<Stored> {
        let Self { claim, promise, contents } = self;
        drop(promise);
        let Contents { chunks, blobs, dependencies } =
            contents.into_inner().unwrap_or_else(PoisonError::into_inner);
        let stored = Arc::new(Stored::new(claim.name().to_owned(), chunks, blobs, dependencies));
        claim.fill(Arc::clone(&stored));
        stored
    }

    fn contents(&self) -> MutexGuard<'_, Contents> {
        self.contents.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Inserts unless the key is there already, and says whether it did.
fn insert_new<K: Ord>(map: &mut BTreeMap<K, Extent>, key: K, extent: Extent) -> bool {
    match map.entry(key) {
        Entry::Vacant(place) => {
            place.insert(extent);
            true
        }
        Entry::Occupied(_) => false,
    }
}
