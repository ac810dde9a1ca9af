//! A series of snapshots of one VM. Each but the first reads only what has changed since the one before.
//!
//! ```text
//! take the dirty log ─► save state ─► for each chunk: keep, or read and encode ─► manifest ─► publish ─► commit the log
//!         └──────────────── on failure: the log goes back, the reservation is undone ────────────┘
//! ```
//!
//! The first snapshot of a [`Series`] is a full one. After that, a page that is not dirty *keeps* its marker from the snapshot
//! before, without a look at memory:
//!
//! * If that snapshot has no parent, it becomes the parent, and a clean page is PARENT (or zero, as it was there).
//! * If it has one, that is the new one's parent as well. The records of pages that changed since the parent, but not since the
//!   last snapshot, are kept as they are. Of the clean pages in chunks that have dirty pages, only word-marked ones are read and
//!   encoded again, because their vectors are in the old chunk's dictionary. A chunk without dirty pages is copied as it is.
//!
//! So every snapshot of a series refers to one parent and to no other snapshot, however long the series is. Any of them can be
//! removed without affecting the others. The price is that each holds all that differs from the parent: when that has grown too
//! much, begin a new series.

use std::time::Instant;

use vmm::Paused;
use vmm::memory::{DirtySet, Epoch};

use crate::snapshot::{Snapshot, VerifiedFlags};

use super::{Changes, Error, Moment, MomentMemory};

/// The snapshots of one VM, and where its dirty log continues.
#[derive(Debug)]
pub struct Series {
    last: Option<LastSnapshot>,
    epoch: Epoch,
}

/// The last snapshot of a series.
#[derive(Debug)]
pub(crate) struct LastSnapshot {
    pub(crate) snapshot: Snapshot,
    /// Which chunks of the snapshot, and of all it depends on, have been verified.
    pub(crate) checks: VerifiedFlags,
}

impl Series {
    /// Begins a series of a VM: dirty pages are tracked from now on, until [`Paused::untrack_dirty`] is called.
    ///
    /// # Errors
    /// [`Error::Vm`] if KVM cannot track them.
    pub fn begin(paused: &Paused<'_>) -> Result<Self, Error> {
        Ok(Self::since(paused.track_dirty()?))
    }

    /// A series without a snapshot yet, of a VM whose dirty pages are tracked since `epoch`.
    pub(crate) const fn since(epoch: Epoch) -> Self {
        Self { last: None, epoch }
    }

    /// Takes the VM as it is now, as the next moment of the series. When it is saved, everything is read for the first snapshot of
    /// the series, and only what has changed for all later ones.
    ///
    /// If the moment is not saved, or saving fails, the series goes on where it was: the next moment covers what this one would
    /// have covered.
    ///
    /// # Errors
    /// [`Error::OtherSeries`] if the VM's dirty pages do not continue this series, [`Error::Vm`] if the dirty pages cannot be found
    /// or the state cannot be saved.
    pub fn next<'a>(&'a mut self, paused: &'a Paused<'_>) -> Result<Moment<'a>, Error> {
        let started = Instant::now();
        let dirty = self.continued_by(paused.take_dirty()?)?;
        let state = paused.save()?;
        let state_time = started.elapsed();
        let changes = Changes::InSeries { series: self, dirty };
        Ok(Moment { state, memory: MomentMemory::Still(paused.memory()), changes, state_time })
    }

    /// The dirty pages, if they continue this series; otherwise they go back where they were taken from.
    pub(crate) fn continued_by<'vm>(&self, dirty: DirtySet<'vm>) -> Result<DirtySet<'vm>, Error> {
        if dirty.since() == self.epoch {
            Ok(dirty)
        } else {
            Err(Error::OtherSeries { snapshot: self.last().map(|last| last.name().to_owned()) })
        }
    }

    /// The last snapshot, if there is one yet.
    #[must_use]
    pub fn last(&self) -> Option<&Snapshot> {
        self.last.as_ref().map(|last| &last.snapshot)
    }

    /// The last snapshot, and which of its chunks have been verified.
    pub(crate) const fn reference(&self) -> Option<&LastSnapshot> {
        self.last.as_ref()
    }

    /// Goes on from `snapshot`, which was made when the dirty log was at `epoch`.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, epoch: Epoch) {
        let checks = self.last.take().map(|last| last.checks).unwrap_or_default();
        self.last = Some(LastSnapshot { snapshot: snapshot.clone(), checks: checks.for_next(snapshot) });
        self.epoch = epoch;
    }
}
