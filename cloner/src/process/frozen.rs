//! A branch that stands still.

use std::fs::File;

use vmm::VmState;
use vmm::memory::RemoteMemory;

use super::wire::{BranchRequest, Report};
use super::{BranchReport, Error, GuestProcess, read_state};
use crate::moment::{Limits, Moment};

/// A guest as it was at one instant, in a process that does nothing: a branch that has not built its machine yet. Dropping it ends
/// that process.
#[derive(Debug)]
pub struct FrozenGuest {
    process: GuestProcess,
    state: VmState,
    memory: RemoteMemory,
}

impl GuestProcess {
    /// Makes a second machine of this one as it is now that stands still, to be compared or saved: see [`FrozenGuest`].
    ///
    /// # Errors
    /// As [`branch`](Self::branch).
    pub fn freeze(&self, limits: Limits) -> Result<(FrozenGuest, BranchReport), Error> {
        let (process, report) =
            self.order(BranchRequest { announce: None, hold: true, copy_bytes: limits.copy_bytes })?;
        Ok((FrozenGuest::of(process)?, report))
    }
}

impl FrozenGuest {
    pub(super) fn of(process: GuestProcess) -> Result<Self, Error> {
        let (report, fds) = process.control().receive_any::<Report>()?.ok_or(Error::Ended)?;
        let (host_addresses, held) = match report {
            Report::Holding { host_addresses, held } => (host_addresses, held),
            Report::Failed(why) | Report::Ended { message: why, .. } => return Err(Error::Refused(why)),
            Report::Running(_) => return Err(Error::Refused(String::from("it runs"))),
        };
        let [state] = <[_; 1]>::try_from(fds)
            .map_err(|_| Error::Refused(String::from("a frozen guest without its state")))?;
        let state = read_state(&File::from(state))??;
        let layout = state.layout();
        let regions = layout.ranges().count();
        if host_addresses.len() != regions {
            let why = format!("{} addresses for {regions} regions of memory", host_addresses.len());
            return Err(Error::Refused(why));
        }
        let memory =
            RemoteMemory::new(process.pid(), Some(process.another_pidfd()?), layout, host_addresses, held)?;
        Ok(Self { process, state, memory })
    }

    /// The process that holds it.
    #[must_use]
    pub const fn process(&self) -> &GuestProcess {
        &self.process
    }

    /// Its state at that instant.
    #[must_use]
    pub const fn state(&self) -> &VmState {
        &self.state
    }

    /// The guest at that instant, to be saved or compared while its source runs on.
    #[must_use]
    pub fn moment(&self) -> Moment<'_> {
        // The state was saved when the source was paused, and is not what takes time here.
        Moment::of_frozen(self.state.clone(), &self.memory)
    }

    /// Its memory at that instant.
    #[must_use]
    pub const fn memory(&self) -> &RemoteMemory {
        &self.memory
    }

    /// Lets it run on from there. It is building itself when this returns.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was killed; the channel's.
    pub fn run(self) -> Result<GuestProcess, Error> {
        self.process.let_run()?;
        Ok(self.process)
    }
}
