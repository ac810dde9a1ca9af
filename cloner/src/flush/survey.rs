//! Lists what a folder holds from headers and indices alone: no record is read.

use std::collections::BTreeMap;

use serde::Serialize;

use super::candidate::Candidate;
use super::index::FormText;
use super::{DroppedFile, Error, Folder, Form, Recoverer};
use crate::pool::Labels;
use crate::snapshot::SnapshotId;

/// What a folder holds, as far as headers and indices say.
#[derive(Debug, Default)]
pub struct Survey {
    /// Snapshots whose header and index are valid, sorted by name.
    pub snapshots: Vec<SurveyLine>,
    /// Files that are not such snapshots, each with its reason.
    pub dropped: Vec<DroppedFile>,
}

/// One snapshot of a folder.
#[derive(Debug, Clone, Serialize)]
pub struct SurveyLine {
    /// Name of the snapshot.
    pub name: String,
    /// Number of the snapshot, which its file is named after.
    pub id: SnapshotId,
    /// Whether the snapshot is found under its name. If not, it is kept for those that refer to it.
    pub listed: bool,
    /// The form in which its chunks are stored.
    #[serde(with = "FormText")]
    pub form: Form,
    /// Number of chunks.
    pub chunks: usize,
    /// Length of the file in bytes.
    pub file_bytes: u64,
    /// Priority and tags of the snapshot.
    pub labels: Labels,
    /// Names of the snapshots that this one refers to, or the number of one that is missing.
    pub dependencies: Vec<String>,
}

impl Recoverer {
    /// Reads every header and index of `folder`, and enters the snapshots into the folder's catalogue. Deletes nothing.
    ///
    /// # Errors
    /// [`Error::File`] if the folder cannot be listed. Files that cannot be read are in [`Survey::dropped`].
    pub fn survey(&self, folder: &Folder) -> Result<Survey, Error> {
        let mut survey = Survey::default();
        let found = self.open_all(folder, &mut survey.dropped)?;
        survey.snapshots = found.values().map(|one| survey_line(one, &found)).collect();
        survey.snapshots.sort_by(|left, right| left.name.cmp(&right.name));
        for (id, one) in &found {
            folder.insert(*id, one.entry(None));
        }
        Ok(survey)
    }
}

fn survey_line(
    Candidate { snapshot_file, listed }: &Candidate,
    all: &BTreeMap<u128, Candidate>,
) -> SurveyLine {
    let index = snapshot_file.index();
    let name_of = |id: &SnapshotId| {
        let known = all.get(&id.number());
        known.map_or_else(|| id.to_string(), |other| other.snapshot_file.index().name.clone())
    };
    SurveyLine {
        name: index.name.clone(),
        id: index.id,
        listed: *listed,
        form: index.form,
        chunks: index.chunks.len(),
        file_bytes: snapshot_file.file_bytes(),
        labels: index.labels.clone(),
        dependencies: index.dependencies.iter().map(name_of).collect(),
    }
}
