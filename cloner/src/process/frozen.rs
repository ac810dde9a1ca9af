//! A branch that holds still.

use std::fs::File;
use std::time::Instant;

use vmm::memory::{RemoteMemory, StillMemory};
use vmm::{Announce, VmState};

use super::wire::{BranchRequest, GuestReport};
use super::{BranchReport, Error, GuestProcess};
use crate::admission::CopyLimits;
use crate::moment::{self, LiveReport, Moment};
use crate::restore::state_file::read_state;

/// A guest as it was at one instant, in a process that only waits: a branch that has not built its machine yet. Dropping this ends
/// that process.
#[derive(Debug)]
pub struct FrozenGuest {
    process: GuestProcess,
    state: VmState,
    memory: RemoteMemory,
}

impl GuestProcess {
    /// Makes a branch of this machine as it is now that holds still, so that it can be compared or saved: see [`FrozenGuest`].
    ///
    /// # Errors
    /// Those of [`branch`](Self::branch). Also [`Error::State`] if the branch's state is damaged, and [`Error::Refused`] if the
    /// branch cannot hold still or its report does not fit its state.
    pub fn freeze(&self, limits: CopyLimits) -> Result<(FrozenGuest, BranchReport), Error> {
        let (process, report) = self.request_branch(BranchRequest {
            announce: Announce::Never,
            hold: true,
            copy_bytes: limits.copy_bytes,
        })?;
        Ok((FrozenGuest::of(process)?, report))
    }

    /// Takes this guest as it is at the instant of a pause of milliseconds. It runs on, and the branch that holds its memory still
    /// ends with the moment.
    ///
    /// # Errors
    /// Those of [`freeze`](Self::freeze).
    pub fn moment(&self, limits: CopyLimits) -> Result<Moment<'static>, Error> {
        let requested = Instant::now();
        let (guest, report) = self.freeze(limits)?;
        let state = guest.state.clone();
        let memory = moment::MomentMemory::Frozen(Box::new(HeldBranch { guest, report, requested }));
        Ok(Moment::of_frozen(state, memory))
    }
}

/// The memory of a moment: a branch that holds still for as long as the moment lives.
struct HeldBranch {
    guest: FrozenGuest,
    report: BranchReport,
    requested: Instant,
}

impl moment::Frozen for HeldBranch {
    fn memory(&self) -> &dyn StillMemory {
        &self.guest.memory
    }

    fn release(self: Box<Self>) -> LiveReport {
        let BranchReport { pause, fork_time, copy_bound_bytes } = self.report;
        LiveReport {
            pause,
            freeze_time: fork_time,
            total_time: self.requested.elapsed(),
            collapse_time: None,
            copied_bytes: None,
            copy_bound_bytes,
        }
    }
}

impl FrozenGuest {
    pub(super) fn of(process: GuestProcess) -> Result<Self, Error> {
        let (report, fds) = process.control().receive_any::<GuestReport>()?.ok_or(Error::Ended)?;
        let (host_addresses, held) = match report {
            GuestReport::Holding { host_addresses, held } => (host_addresses, held),
            GuestReport::Failed(why) | GuestReport::Ended { message: why, .. } => {
                return Err(Error::Refused(why));
            }
            GuestReport::Running(_) => {
                return Err(Error::Refused(String::from("the branch runs instead of holding still")));
            }
        };
        let [state] = <[_; 1]>::try_from(fds)
            .map_err(|_| Error::Refused(String::from("a frozen guest came without its state")))?;
        let state = read_state(&File::from(state))??;
        let layout = state.layout();
        let regions = layout.ranges().count();
        if host_addresses.len() != regions {
            let why = format!(
                "a frozen guest has {} addresses for {regions} regions of memory",
                host_addresses.len()
            );
            return Err(Error::Refused(why));
        }
        let memory =
            RemoteMemory::new(process.pid(), Some(process.another_pidfd()?), layout, host_addresses, held)?;
        Ok(Self { process, state, memory })
    }

    /// The process that holds the guest's memory.
    #[must_use]
    pub const fn process(&self) -> &GuestProcess {
        &self.process
    }

    /// The state of vCPUs and devices at that instant.
    #[must_use]
    pub const fn state(&self) -> &VmState {
        &self.state
    }

    /// The guest at that instant, to be saved or compared while its source runs on.
    #[must_use]
    pub fn moment(&self) -> Moment<'_> {
        Moment::of_frozen(self.state.clone(), moment::MomentMemory::Still(&self.memory))
    }

    /// The memory at that instant.
    #[must_use]
    pub const fn memory(&self) -> &RemoteMemory {
        &self.memory
    }

    /// Lets the guest run on from that instant. When this returns, its machine is still being built;
    /// [`GuestProcess::wait_running`] waits until it runs.
    ///
    /// # Errors
    /// [`Error::Ended`] if its process was killed, [`Error::Channel`] if the request cannot be sent.
    pub fn run(self) -> Result<GuestProcess, Error> {
        self.process.let_run()?;
        Ok(self.process)
    }
}
