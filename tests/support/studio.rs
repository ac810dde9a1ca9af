//! A pool, and the tools that put machines into it and take them out.

use cloner::compare::Comparer;
use cloner::moment::{self, Moment};
use cloner::pool::{Pages, Pool, PoolConfig, Populate};
use cloner::progress::Watch;
use cloner::restore::{Restorer, eager};
use cloner::save::SaveOptions;
use cloner::save::Saved;
use cloner::save::{self, Saver};
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;
use vmm::Paused;
use vmm::memory::{Backing, GuestMemory, PageSize};

use super::Guest;

const THREADS: usize = 2;

pub(crate) struct Studio {
    pub(crate) pool: Pool,
    pub(crate) saver: Saver,
    pub(crate) restorer: Restorer,
    pub(crate) comparer: Comparer,
}

/// Why there was no snapshot.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
    #[error(transparent)]
    Moment(#[from] moment::Error),
    #[error(transparent)]
    Save(#[from] save::Error),
}

impl Studio {
    /// Makes a studio with a pool on ordinary pages, which any host can provide.
    pub(crate) fn new(capacity_bytes: u64) -> Self {
        Self::with_pool(capacity_bytes, Pages::Ordinary, Populate::OnFirstUse)
    }

    pub(crate) fn with_pool(capacity_bytes: u64, pages: Pages, populate: Populate) -> Self {
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
    pub(crate) fn try_save(
        &self,
        paused: &Paused<'_>,
        name: &str,
        options: &SaveOptions<'_>,
    ) -> Result<Saved, Failed> {
        let reservation = self.pool.reserve(name).map_err(save::Error::from)?;
        Ok(self.saver.save(Moment::of(paused)?, reservation, options)?)
    }

    #[track_caller]
    pub(crate) fn save(&self, paused: &Paused<'_>, name: &str) -> Snapshot {
        self.try_save(paused, name, &SaveOptions::default()).unwrap().snapshot
    }

    /// Pauses a machine, takes a snapshot of it and lets it run on.
    #[track_caller]
    pub(crate) fn snapshot(&self, source: &Guest, name: &str) -> Snapshot {
        self.save(&source.pause(), name)
    }

    pub(crate) fn try_memory(&self, snapshot: &Snapshot) -> Result<GuestMemory, eager::Error> {
        let backing = Backing::Private(PageSize::Transparent);
        Ok(self.restorer.eager(snapshot, backing, Watch::default())?.memory)
    }

    #[track_caller]
    pub(crate) fn memory(&self, snapshot: &Snapshot) -> GuestMemory {
        self.try_memory(snapshot).unwrap()
    }

    /// Builds a clone and lets it run.
    #[track_caller]
    pub(crate) fn clone_of(&self, snapshot: &Snapshot) -> Guest {
        Guest::resume(snapshot.state(), self.memory(snapshot))
    }

    /// Saves a paused machine, and proves the memory of a target equal to its own.
    #[track_caller]
    pub(crate) fn save_and_compare(&self, paused: &Paused<'_>, name: &str) -> (Snapshot, GuestMemory) {
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
    pub(crate) fn check(&self) {
        self.pool.check().unwrap();
    }
}
