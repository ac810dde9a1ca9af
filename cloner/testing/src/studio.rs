//! A pool, and the tools that put machines into it and take them out.

use cloner::compare::Comparer;
use cloner::moment::{self, Moment};
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate};
use cloner::progress::Watch;
use cloner::restore::{Restorer, eager};
use cloner::save::SaveOptions;
use cloner::save::Saved;
use cloner::save::{self, Saver};
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;
use vmm::Paused;
use vmm::memory::{Backing, GuestMemory, PageSize};

use crate::Guest;

const THREADS: usize = 2;

/// A pool, and the tools that work on it.
pub struct Studio {
    /// Where the snapshots are.
    pub pool: Pool,
    /// Takes snapshots.
    pub saver: Saver,
    /// Makes memory from snapshots.
    pub restorer: Restorer,
    /// Compares memory.
    pub comparer: Comparer,
}

/// Why there was no snapshot.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// There was no moment to save.
    #[error(transparent)]
    Moment(#[from] moment::Error),
    /// The moment could not be saved.
    #[error(transparent)]
    Save(#[from] save::Error),
}

impl Studio {
    /// Makes a studio with a pool on ordinary pages, which any host can provide.
    pub fn new(capacity_bytes: u64) -> Self {
        Self::with_pool(capacity_bytes, PoolPages::Ordinary, Populate::OnFirstUse)
    }

    /// Makes a studio with a pool on these pages.
    pub fn with_pool(capacity_bytes: u64, pages: PoolPages, populate: Populate) -> Self {
        let capacity_bytes = usize::try_from(capacity_bytes).unwrap();
        let threads = Threads::new(THREADS).unwrap();
        Self {
            pool: Pool::new(&PoolConfig { capacity_bytes, pages, populate }).unwrap(),
            saver: Saver::new(&threads),
            restorer: Restorer::new(&threads),
            comparer: Comparer::new(&threads),
        }
    }

    /// Saves a paused machine.
    pub fn try_save(
        &self,
        paused: &Paused<'_>,
        name: &str,
        options: &SaveOptions<'_>,
    ) -> Result<Saved, Failed> {
        let reservation = self.pool.reserve(name).map_err(save::Error::from)?;
        Ok(self.saver.save(Moment::of(paused)?, reservation, options)?)
    }

    /// Does the same as [`Self::try_save`] with the default options, which must not fail.
    #[track_caller]
    pub fn save(&self, paused: &Paused<'_>, name: &str) -> Snapshot {
        self.try_save(paused, name, &SaveOptions::default()).unwrap().snapshot
    }

    /// Pauses a machine, takes a snapshot of it and lets it run on.
    #[track_caller]
    pub fn snapshot(&self, source: &Guest, name: &str) -> Snapshot {
        self.save(&source.pause(), name)
    }

    /// Decodes the whole memory of a snapshot.
    pub fn try_memory(&self, snapshot: &Snapshot) -> Result<GuestMemory, eager::Error> {
        let backing = Backing::Private(PageSize::Transparent);
        Ok(self.restorer.eager(snapshot, backing, Watch::default())?.memory)
    }

    /// Does the same as [`Self::try_memory`], which must not fail.
    #[track_caller]
    pub fn memory(&self, snapshot: &Snapshot) -> GuestMemory {
        self.try_memory(snapshot).unwrap()
    }

    /// Builds a clone and lets it run.
    #[track_caller]
    pub fn clone_of(&self, snapshot: &Snapshot) -> Guest {
        Guest::resume(snapshot.state(), self.memory(snapshot))
    }

    /// Saves a paused machine, and proves the memory of a target equal to its own.
    #[track_caller]
    pub fn save_and_compare(&self, paused: &Paused<'_>, name: &str) -> (Snapshot, GuestMemory) {
        let snapshot = self.save(paused, name);
        let memory = self.memory(&snapshot);
        assert_eq!(
            self.comparer.first_difference(paused.memory(), &memory).unwrap(),
            None,
            "first page that differs"
        );
        (snapshot, memory)
    }

    /// Asserts that the pool's books agree.
    #[track_caller]
    pub fn check(&self) {
        self.pool.check().unwrap();
    }
}
