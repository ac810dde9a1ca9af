//! A snapshot file that may be recovered.

use std::sync::{Arc, Weak};

use crate::pool::StoredSnapshot;

use super::folder::CatalogueEntry;
use super::reader::SnapshotFile;

/// A file whose header and index hold.
pub(super) struct Candidate {
    pub(super) snapshot_file: SnapshotFile,
    pub(super) listed: bool,
}

impl Candidate {
    pub(super) fn dependencies(&self) -> impl Iterator<Item = u128> + '_ {
        self.snapshot_file.index().dependencies.iter().map(|id| id.number())
    }

    pub(super) fn entry(&self, stored: Option<&Arc<StoredSnapshot>>) -> CatalogueEntry {
        CatalogueEntry {
            name: self.snapshot_file.index().name.clone(),
            listed: self.listed,
            dependencies: self.dependencies().collect(),
            file_bytes: self.snapshot_file.file_bytes(),
            durable: true,
            stored: stored.map_or_else(Weak::new, Arc::downgrade),
        }
    }
}
