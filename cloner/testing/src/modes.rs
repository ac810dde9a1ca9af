//! Every way to take a snapshot, and every way to build a clone.

use std::sync::{Mutex, MutexGuard, PoisonError};

use cloner::admission::CopyLimits;
use cloner::moment::{Moment, Series};
use cloner::progress::Watch;
use cloner::restore::lazy::LazyOptions;
use cloner::save::{SaveOptions, Saved};
use cloner::snapshot::Snapshot;
use vmm::memory::{Backing, GuestMemory, PageSize};

use crate::{Guest, Studio, can_restore_lazily_too};

/// How a snapshot is taken.
#[derive(Debug, Clone, Copy)]
pub enum Take {
    /// While the machine is paused.
    Stop,
    /// While the machine runs on, after a short freeze.
    Live,
    /// As the second snapshot of a series.
    Incremental,
}

/// How a clone is built in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    /// All of its memory is decoded first.
    Eager,
    /// As a fork of a template.
    Fork,
    /// Lazily, and only pages that are touched arrive.
    Lazy,
}

/// All ways to take a snapshot.
pub const TAKES: [Take; 3] = [Take::Stop, Take::Live, Take::Incremental];

/// The ways to build that this user may use. If a lazy one is not among them, a note has said so.
pub fn builds() -> Vec<Build> {
    let lazily = can_restore_lazily_too().then_some(Build::Lazy);
    [Build::Eager, Build::Fork].into_iter().chain(lazily).collect()
}

/// Keeps other tests from taking live snapshots, because some tests count the processes that hold memory.
pub fn only_holder() -> MutexGuard<'static, ()> {
    static ONLY: Mutex<()> = Mutex::new(());
    ONLY.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Studio {
    /// Takes a snapshot of a machine that runs on. If it was paused meanwhile, a target is proven equal to it.
    #[track_caller]
    pub fn take(&self, source: &Guest, how: Take, name: &str) -> Snapshot {
        let reserve = |name: &str| self.pool.reserve(name).unwrap();
        let options = SaveOptions::default();
        match how {
            Take::Stop => self.save_and_compare(&source.pause(), name).0,
            Take::Live => {
                let limits = CopyLimits::default();
                let moment = Moment::live(&source.vm, limits).unwrap();
                self.saver.save(moment, reserve(name), &options).unwrap().snapshot
            }
            Take::Incremental => {
                let first = format!("before-{name}");
                let paused = source.pause();
                let mut series = Series::begin(&paused).unwrap();
                self.saver.save(series.next(&paused).unwrap(), reserve(&first), &options).unwrap();
                drop(paused);
                // It works for a while, as any guest here does that is loud.
                std::thread::sleep(std::time::Duration::from_millis(50));
                let paused = source.pause();
                let saved = self.saver.save(series.next(&paused).unwrap(), reserve(name), &options);
                let Saved { snapshot, report } = saved.unwrap();
                assert!(report.changed.unwrap().dirty_bytes > 0, "{report:?}");
                self.assert_equal(paused.memory(), &self.memory(&snapshot));
                paused.untrack_dirty().unwrap();
                // The first snapshot's content stays as long as the second refers to it.
                self.pool.remove(&first).unwrap();
                snapshot
            }
        }
    }

    /// Builds a clone that does not run yet. Its memory, or memory made in the same way, is proven equal to what was decoded.
    #[track_caller]
    pub fn build(&self, snapshot: &Snapshot, how: Build) -> Guest {
        self.build_on(snapshot, how, PageSize::Transparent)
    }

    /// Does the same on private memory in pages of this size; a template has pages of its own.
    #[track_caller]
    pub fn build_on(&self, snapshot: &Snapshot, how: Build, pages: PageSize) -> Guest {
        let memory = self.memory_by(snapshot, how, pages);
        self.assert_equal(&self.memory(snapshot), &memory);
        // For a lazy clone, the comparison has already fetched all of the memory.
        let memory = if matches!(how, Build::Lazy) {
            drop(memory);
            self.memory_by(snapshot, how, pages)
        } else {
            memory
        };
        Guest::restore(snapshot.state(), memory)
    }

    fn memory_by(&self, snapshot: &Snapshot, how: Build, pages: PageSize) -> GuestMemory {
        let backing = Backing::Private(pages);
        match how {
            Build::Eager => self.restorer.eager(snapshot, backing, Watch::default()).unwrap().memory,
            Build::Fork => {
                let template = self.restorer.template(snapshot, Watch::default());
                template.unwrap().memory().unwrap()
            }
            Build::Lazy => {
                let options = LazyOptions { background: None, ..LazyOptions::default() };
                self.restorer.lazy(snapshot, backing, &options).unwrap().memory
            }
        }
    }

    #[track_caller]
    fn assert_equal(&self, expected: &GuestMemory, found: &GuestMemory) {
        let difference = self.comparer.first_difference(expected, found).unwrap();
        assert_eq!(difference, None, "first page that differs");
    }
}
