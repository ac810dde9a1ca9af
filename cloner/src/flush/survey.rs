//! What a folder holds, by headers and indices alone: no record is read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::candidate::Candidate;
use super::{Dropped, Error, Folder, Form, Recoverer};
use crate::pool::Labels;
use crate::snapshot::SnapshotId;

/// A folder without its records.
#[derive(Debug, Default)]
pub struct Survey {
    /// Snapshots whose header and index hold, by name.
    pub snapshots: Vec<Surveyed>,
    /// Files that are none of these, each with its reason.
    pub dropped: Vec<Dropped>,
}

/// One snapshot of a folder.
#[derive(Debug, Clone, Serialize)]
pub struct Surveyed {
    /// Its name.
    pub name: String,
    /// Its own number.
    pub id: SnapshotId,
    /// Whether the name can be found; else it is kept for those that refer to it.
    pub listed: bool,
    /// The form it is kept in.
    pub form: Form,
    /// Chunks of it.
    pub chunks: usize,
    /// Length of its file.
    pub file_bytes: u64,
    /// Priority and tags.
    pub labels: Labels,
    /// Names of the snapshots it refers to; of those that are missing, the number.
    pub dependencies: Vec<String>,
}

impl Recoverer {
    /// Looks at every header and index of `folder`, and makes the folder know them. Deletes nothing.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be listed.
    pub fn survey(&self, folder: &Folder) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        let found = self.open_all(folder, &mut survey.dropped)?;
        survey.snapshots = found.values().map(|one| surveyed(one, &found)).collect();
        survey.snapshots.sort_by(|left, right| left.name.cmp(&right.name));
        for (id, one) in &found {
            folder.insert(*id, one.entry(None));
        }
        Ok(survey)
    }
}

fn surveyed(Candidate { flushed, listed }: &Candidate, all: &BTreeMap<u128, Candidate>) -> Surveyed {
    let index = flushed.index();
    let name_of = |id: &SnapshotId| {
        let known = id.number().and_then(|id| all.get(&id));
        known.map_or_else(|| id.to_string(), |other| other.flushed.index().name.clone())
    };
    Surveyed {
        name: index.name.clone(),
        id: index.id.clone(),
        listed: *listed,
        form: index.form,
        chunks: index.chunks.len(),
        file_bytes: flushed.file_bytes(),
        labels: index.labels.clone(),
        dependencies: index.dependencies.iter().map(name_of).collect(),
    }
}
