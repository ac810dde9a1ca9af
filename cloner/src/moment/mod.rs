//! A guest at one instant: state and memory that belong together, and what changed since the last one.
//!
//! ```text
//!  Moment::of(&paused)          the source stands still for as long as the moment lives
//!  Moment::live(&vm, limits)    it stands still for milliseconds; its memory is frozen by fork()
//!  guest_process.moment(limits) the same for a guest in a process of its own, which makes a branch that holds still
//!  frozen_guest.moment()        such a branch, which can be taken more than once, and run in the end
//!  series.next(&paused)         like the first, but only what changed since the last one will be read
//!        │
//!        ▼
//!  Saver::save                  makes a snapshot of it
//! ```

mod live;
mod series;

use std::io;
use std::time::{Duration, Instant};

use vmm::memory::{DirtySet, StillMemory, frozen};
use vmm::{Paused, VmState};

use crate::admission;

pub use live::LiveReport;
pub use series::Series;

pub(crate) use series::LastSnapshot;

/// Why a guest could not be taken at one instant. It runs on or stands still, as it did before.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The guest cannot be paused, its state cannot be saved, or its dirty pages cannot be found.
    #[error("cannot pause and save the state of the source")]
    Vm(#[from] vmm::Error),
    /// Live: if the guest wrote to all that it has touched, it would need more memory than there is.
    #[error("the source cannot run on while it is saved; stop mode needs no memory for that")]
    Admission(#[from] admission::Error),
    /// Live: the kernel does not say which memory the source has touched.
    #[error("cannot tell which memory the source has touched")]
    Touched(#[source] io::Error),
    /// Live: the source's memory cannot be frozen.
    #[error("cannot freeze the memory of the source")]
    Freeze(#[from] frozen::Error),
    /// The dirty pages do not continue this series: they are of another VM, or of another series of the same VM.
    #[error(
        "the dirty pages of this VM do not continue {}: that is of another VM, or another series has been begun since",
        .snapshot.as_ref().map_or_else(|| String::from("the series"), |name| format!("the snapshot {name:?}"))
    )]
    OtherSeries {
        /// The name of the series' last snapshot, if it has one.
        snapshot: Option<String>,
    },
}

/// A guest at one instant. [`Saver::save`](crate::save::Saver::save) makes a snapshot of it.
#[derive(Debug)]
pub struct Moment<'a> {
    pub(crate) state: VmState,
    pub(crate) memory: MomentMemory<'a>,
    pub(crate) changes: Changes<'a>,
    /// Time to save vCPUs and devices.
    pub(crate) state_time: Duration,
}

/// Memory that does not change while it is saved.
pub(crate) enum MomentMemory<'a> {
    /// The memory of a guest that stands still.
    Still(&'a dyn StillMemory),
    /// The frozen memory of a guest that runs on.
    Frozen(Box<dyn Frozen + 'a>),
}

/// Memory that is frozen while its source runs on.
pub(crate) trait Frozen {
    /// The memory, as it was when it was frozen.
    fn memory(&self) -> &dyn StillMemory;

    /// Releases the memory, and says what it cost to let the source run on.
    fn release(self: Box<Self>) -> LiveReport;
}

impl std::fmt::Debug for MomentMemory<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Still(_) => "Still",
            Self::Frozen(_) => "Frozen",
        })
    }
}

/// What has to be read to know all of the memory.
#[derive(Debug)]
pub(crate) enum Changes<'a> {
    /// Everything that was ever touched.
    All,
    /// The pages that became dirty since the last snapshot of the series; everything, if it has none yet. Once this moment is
    /// saved, the series goes on from it.
    InSeries { series: &'a mut Series, dirty: DirtySet<'a> },
}

impl<'a> Moment<'a> {
    /// Takes a guest that is paused. It cannot be resumed before the moment is gone.
    ///
    /// # Errors
    /// [`Error::Vm`] if its state cannot be saved.
    pub fn of(paused: &'a Paused<'_>) -> Result<Self, Error> {
        let started = Instant::now();
        let state = paused.save()?;
        let memory = MomentMemory::Still(paused.memory());
        Ok(Self { state, memory, changes: Changes::All, state_time: started.elapsed() })
    }

    /// Takes a guest whose state was saved when its memory was frozen, so that it costs no time here.
    pub(crate) const fn of_frozen(state: VmState, memory: MomentMemory<'a>) -> Self {
        Self { state, memory, changes: Changes::All, state_time: Duration::ZERO }
    }

    /// The state of vCPUs and devices at that instant.
    #[must_use]
    pub const fn state(&self) -> &VmState {
        &self.state
    }

    /// The memory at that instant.
    #[must_use]
    pub fn memory(&self) -> &dyn StillMemory {
        match &self.memory {
            MomentMemory::Still(memory) => *memory,
            MomentMemory::Frozen(frozen) => frozen.memory(),
        }
    }
}
