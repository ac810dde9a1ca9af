//! The pages that a clone touches first, recorded in one run, to be there before the next one begins.

use serde::{Deserialize, Serialize};
use vmm::schema::envelope::{self, Schema};

use crate::layout::{PageNumber, chunk_at};
use crate::pool::{self, Pool};
use crate::snapshot::{Snapshot, SnapshotId};

use super::Fault;

const SCHEMA: Schema = Schema { magic: *b"CLNWSET\0", version: 1, name: "working set" };
const LABEL: &str = "working-set";

/// Why a working set could not be stored or loaded.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pool cannot store, find or remove it.
    #[error("cannot store or find the working set in the pool")]
    Pool(#[from] pool::Error),
    /// What the pool has under the name is not a working set.
    #[error("{name:?} in the pool has no {LABEL}")]
    Missing {
        /// The name in the pool.
        name: String,
    },
    /// The stored working set is damaged.
    #[error("the working set is damaged")]
    Damaged(#[from] envelope::Error),
    /// The working set was recorded for another snapshot.
    #[error("the working set belongs to the snapshot {found}, not to {wanted}")]
    Other {
        /// The snapshot it was recorded for.
        found: SnapshotId,
        /// The snapshot it was asked for.
        wanted: SnapshotId,
    },
    /// It names a page that the guest does not have.
    #[error("the working set names page {0}, which the guest does not have")]
    Page(u64),
}

/// Pages of a snapshot, in the order in which they were first needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkingSet {
    snapshot: SnapshotId,
    pages: Vec<PageNumber>,
}

/// Schema of a stored working set, version 1.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct WorkingSetV1 {
    snapshot: SnapshotId,
    pages: Vec<u64>,
}

impl WorkingSet {
    /// The pages that a clone of `snapshot` has faulted on.
    #[must_use]
    pub fn recorded(snapshot: &Snapshot, faults: &[Fault]) -> Self {
        let pages = faults.iter().map(|fault| fault.page).collect();
        Self { snapshot: snapshot.manifest().id, pages }
    }

    /// The pages. A page that arrived with a neighbour's fault is not listed: it will arrive with that neighbour again.
    #[must_use]
    pub fn pages(&self) -> &[PageNumber] {
        &self.pages
    }

    /// Stores the working set in the pool, as an entry beside its snapshot, which can no longer change. An earlier working set is
    /// replaced. When you remove the snapshot, [remove](Self::remove) the working set, too.
    ///
    /// # Errors
    /// [`Error::Pool`] if the pool has no room or refuses; an earlier working set may be gone then.
    pub fn store(&self, pool: &Pool) -> Result<(), Error> {
        let stored =
            WorkingSetV1 { snapshot: self.snapshot, pages: self.pages.iter().map(|page| page.0).collect() };
        let text = serde_json::to_vec(&stored).expect("plain structs of numbers and strings");
        Self::remove(pool, self.snapshot)?;
        let reservation = pool.reserve(&name(self.snapshot))?;
        reservation.put_blob(LABEL, &SCHEMA.wrap(&text))?;
        reservation.publish();
        Ok(())
    }

    /// Loads the working set that is stored for `snapshot`. `None` if there is none.
    ///
    /// # Errors
    /// The entry may come from anywhere, so it is checked: [`Error::Missing`], [`Error::Damaged`], [`Error::Other`] and
    /// [`Error::Page`] say what is wrong with it. [`Error::Pool`] if the pool cannot be asked.
    pub fn load(pool: &Pool, snapshot: &Snapshot) -> Result<Option<Self>, Error> {
        let name = name(snapshot.manifest().id);
        let stored = match pool.get(&name) {
            Ok(stored) => stored,
            Err(pool::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let bytes = stored.blob(LABEL).ok_or(Error::Missing { name })?;
        Self::from_bytes(bytes, snapshot).map(Some)
    }

    /// Removes the working set that is stored for a snapshot, if there is one.
    ///
    /// # Errors
    /// [`Error::Pool`] if the pool refuses to remove it.
    pub fn remove(pool: &Pool, snapshot: SnapshotId) -> Result<(), Error> {
        match pool.remove(&name(snapshot)) {
            Ok(()) | Err(pool::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn from_bytes(bytes: &[u8], snapshot: &Snapshot) -> Result<Self, Error> {
        let text = SCHEMA.unwrap(bytes)?;
        let WorkingSetV1 { snapshot: found, pages } =
            serde_json::from_slice(text).map_err(envelope::Error::from)?;
        let wanted = snapshot.manifest().id;
        if found != wanted {
            return Err(Error::Other { found, wanted });
        }
        let layout = snapshot.state().layout();
        let exists = |page: &u64| {
            let place = PageNumber(*page).split();
            place.and_then(|(chunk, page)| Some(page.get() < chunk_at(layout, chunk)?.pages)) == Some(true)
        };
        if let Some(page) = pages.iter().find(|page| !exists(page)) {
            return Err(Error::Page(*page));
        }
        Ok(Self { snapshot: found, pages: pages.into_iter().map(PageNumber).collect() })
    }
}

fn name(snapshot: SnapshotId) -> String {
    format!("{LABEL}-{snapshot}")
}

#[cfg(test)]
mod tests;
