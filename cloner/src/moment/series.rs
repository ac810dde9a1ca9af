//! Snapshots of one VM in a row, of which each but the first reads only what has changed.
//!
//! ```text
//! take the dirty log ─► save state ─► for each chunk: keep, or read and encode ─► manifest ─► publish ─► commit the log
//!         └──────────────── on failure: the log goes back, the reservation is undone ────────────┘
//! ```
//!
//! The first snapshot of a [`Series`] is a full one. After that, a page that is not dirty has the marker it had in the snapshot before, which is *kept* without looking at memory:
//!
//! * If that snapshot has no parent, it becomes the parent, and a clean page is PARENT (or zero, as it was there).
//! * If it has one, that is the new one's parent as well. What changed since the parent but not since the last snapshot is
//!   kept as the record it is. Only word-marked pages are read and encoded again, in chunks that have dirty pages: their
//!   vectors stand in the old chunk's dictionary. A chunk without dirty pages is copied as it is.
//!
//! So every snapshot of a series refers to one parent and to nobody else, however long the series is; any of them can be
//! removed without the others noticing. The price is that each holds all that differs from the parent: begin a new series when
//! that has grown too much.

use std::time::Instant;

use vmm::Paused;
use vmm::memory::Epoch;

use crate::snapshot::{Checks, Snapshot};

use super::{Changes, Error, Memory, Moment};

/// The snapshots of one VM, and where its dirty log continues.
#[derive(Debug)]
pub struct Series {
    last: Option<Last>,
    epoch: Epoch,
}

/// The last snapshot of a series.
#[derive(Debug)]
pub(crate) struct Last {
    pub(crate) snapshot: Snapshot,
    /// Of the snapshot and all it depends on.
    pub(crate) checks: Checks,
}

impl Series {
    /// Begins a series of a VM: dirty pages are tracked from here on, until [`Paused::untrack_dirty`] is called.
    ///
    /// # Errors
    /// [`Error::Vm`] if KVM cannot track them.
    pub fn begin(paused: &Paused<'_>) -> Result<Self, Error> {
        Ok(Self { last: None, epoch: paused.track_dirty()? })
    }

    /// The VM as it is now, as the next of the series. Of the first, everything is read, of all others what has changed.
    ///
    /// If it is not saved, or saving fails, the series goes on where it was: the next moment has what this one would have had.
    ///
    /// # Errors
    /// [`Error::OtherSeries`] if the VM's dirty pages do not continue this series, [`Error::Vm`] if they, or its state, cannot be
    /// told.
    pub fn next<'a>(&'a mut self, paused: &'a Paused<'_>) -> Result<Moment<'a>, Error> {
        let started = Instant::now();
        let dirty = paused.take_dirty()?;
        if dirty.since() != self.epoch {
            return Err(Error::OtherSeries { snapshot: self.last().map(|last| last.name().to_owned()) });
        }
        let state = paused.save()?;
        let state_time = started.elapsed();
        let changes = Changes::InSeries { series: self, dirty };
        Ok(Moment { state, memory: Memory::Still(paused.memory()), changes, state_time })
    }

    /// The last snapshot, if there is one yet.
    #[must_use]
    pub fn last(&self) -> Option<&Snapshot> {
        self.last.as_ref().map(|last| &last.snapshot)
    }

    /// The last snapshot, and what is known of it.
    pub(crate) const fn reference(&self) -> Option<&Last> {
        self.last.as_ref()
    }

    /// Goes on from `snapshot`, which was made when the dirty log was at `epoch`.
    pub(crate) fn follow(&mut self, snapshot: &Snapshot, epoch: Epoch) {
        let checks = self.last.take().map(|last| last.checks).unwrap_or_default();
        self.last = Some(Last { snapshot: snapshot.clone(), checks: checks.for_next(snapshot) });
        self.epoch = epoch;
    }
}
