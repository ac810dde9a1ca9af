//! Which pages a clone touches first, recorded in one run to be there before the next begins.

use serde::{Deserialize, Serialize};
use vmm::schema::envelope::{self, Schema};

use crate::layout::{PageNumber, chunk_at};
use crate::pool::{self, Pool};
use crate::snapshot::{Snapshot, SnapshotId};

use super::Fault;

const SCHEMA: Schema = Schema { magic: *b"CLNWSET\0", version: 1, name: "working set" };
const LABEL: &str = "working-set";

/// Why there is no working set.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The pool cannot hold it.
    #[error("cannot store the working set")]
    Pool(#[from] pool::Error),
    /// What is stored there is something else.
    #[error("{name:?} in the pool has no {LABEL}")]
    Missing {
        /// Its name.
        name: String,
    },
    /// It is damaged.
    #[error("working set")]
    Damaged(#[from] envelope::Error),
    /// It is another snapshot's.
    #[error("the working set is of the snapshot {found:?}, not of {wanted:?}")]
    Other {
        /// As recorded.
        found: SnapshotId,
        /// As asked for.
        wanted: SnapshotId,
    },
    /// It names a page that the guest does not have.
    #[error("the working set names page {0}, which the guest does not have")]
    Page(u64),
}

/// Pages of a snapshot in the order in which they were first needed.
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
    /// What a clone of `snapshot` has faulted on.
    #[must_use]
    pub fn recorded(snapshot: &Snapshot, faults: &[Fault]) -> Self {
        let pages = faults.iter().map(|fault| fault.page).collect();
        Self { snapshot: snapshot.manifest().id.clone(), pages }
    }

    /// The pages. One that was brought with a neighbour's fault is not named: it comes with that again.
    #[must_use]
    pub fn pages(&self) -> &[PageNumber] {
        &self.pages
    }

    /// Keeps it in the pool beside its snapshot, which cannot change any more, in place of an earlier one. Whoever removes the
    /// snapshot [removes](Self::remove) it, too.
    ///
    /// # Errors
    /// [`Error::Pool`]; an earlier one may be gone then.
    pub fn store(&self, pool: &Pool) -> Result<(), Error> {
        let stored = WorkingSetV1 {
            snapshot: self.snapshot.clone(),
            pages: self.pages.iter().map(|page| page.0).collect(),
        };
        let text = serde_json::to_vec(&stored).expect("plain structs of numbers and strings");
        Self::remove(pool, &self.snapshot)?;
        let reservation = pool.reserve(&name(&self.snapshot))?;
        reservation.put_blob(LABEL, &SCHEMA.wrap(&text))?;
        reservation.seal();
        Ok(())
    }

    /// The one kept for `snapshot`, if there is one.
    ///
    /// # Errors
    /// See [`Error`]: it may come from anybody.
    pub fn load(pool: &Pool, snapshot: &Snapshot) -> Result<Option<Self>, Error> {
        let name = name(&snapshot.manifest().id);
        let stored = match pool.get(&name) {
            Ok(stored) => stored,
            Err(pool::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let bytes = stored.blob(LABEL).ok_or(Error::Missing { name })?;
        Self::from_bytes(bytes, snapshot).map(Some)
    }

    /// Removes the one kept for a snapshot, if there is one.
    ///
    /// # Errors
    /// [`Error::Pool`].
    pub fn remove(pool: &Pool, snapshot: &SnapshotId) -> Result<(), Error> {
        match pool.remove(&name(snapshot)) {
            Ok(()) | Err(pool::Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn from_bytes(bytes: &[u8], snapshot: &Snapshot) -> Result<Self, Error> {
        let text = SCHEMA.unwrap(bytes)?;
        let WorkingSetV1 { snapshot: found, pages } =
            serde_json::from_slice(text).map_err(envelope::Error::from)?;
        let wanted = &snapshot.manifest().id;
        if found != *wanted {
            return Err(Error::Other { found, wanted: wanted.clone() });
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

fn name(snapshot: &SnapshotId) -> String {
    format!("{LABEL}-{snapshot}")
}
