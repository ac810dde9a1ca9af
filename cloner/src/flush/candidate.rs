//! A snapshot file that may be recovered.

use std::sync::{Arc, Weak};

use crate::pool::Stored;

use super::folder::Entry;
use super::reader::Flushed;

/// A file whose header and index hold.
pub(super) struct Candidate {
    pub(super) flushed: Flushed,
    pub(super) listed: bool,
}

impl Candidate {
    pub(super) fn dependencies(&self) -> impl Iterator<Item = u128> + '_ {
        self.flushed.index().dependencies.iter().map(|id| id.number())
    }

    pub(super) fn entry(&self, stored: Option<&Arc<Stored>>) -> Entry {
        Entry {
            name: self.flushed.index().name.clone(),
            listed: self.listed,
            dependencies: self.dependencies().collect(),
            file_bytes: self.flushed.file_bytes(),
            durable: true,
            stored: stored.map_or_else(Weak::new, Arc::downgrade),
        }
    }
}
