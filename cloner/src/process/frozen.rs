//! A branch that stands still.

use std::fs::File;
use std::time::Duration;

use vmm::VmState;
use vmm::memory::RemoteMemory;

use super::wire::{BranchRequest, Report};
use super::{BranchReport, Error, GuestProcess, read_state};
use crate::live::Limits;
use crate::pool::Reservation;
use crate::save::{self, Saver};
use crate::snapshot::Snapshot;
use crate::walk::Progress;

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

    /// Saves it into `reservation`; with `against`, only what differs from that snapshot. So a machine of a guest process is saved
    /// while it runs on.
    ///
    /// # Errors
    /// See [`save::Error`]. The reservation is gone then, and with it all it held.
    pub fn save(
        &self,
        saver: &Saver,
        against: Option<&Snapshot>,
        reservation: Reservation,
        progress: &Progress,
    ) -> Result<(Snapshot, save::Report), save::Error> {
        // The state was saved when the source was paused, and is not what takes time here.
        saver.save_memory(&self.state, Duration::ZERO, &self.memory, against, reservation, progress)
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
