//! The messages between a guest process and the process that asked for it.

use serde::{Deserialize, Serialize};
use vmm::memory::RemotePages;
use vmm::{Announce, Identity};

use super::boot::BootRequest;

/// To a guest process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum GuestRequest {
    /// The first request, to a process that has no guest yet. Beside it: its console, and the image of a flat kernel.
    Boot(BootRequest),
    /// To a guest that runs. Beside it: the branch's console, its end of the control channel, and the channel for the
    /// [`BranchAnswer`].
    Branch(BranchRequest),
    /// To a branch that was made to hold still: run from here.
    Run,
}

/// How a branch is to be made.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BranchRequest {
    /// How the branch's guest is told who it is; `None` to leave it untold.
    pub(super) announce: Announce,
    /// Whether the branch waits for [`GuestRequest::Run`] before it builds its machine.
    pub(super) hold: bool,
    /// Most bytes that source and branch may come to have twice; `None` allows all that the host has available.
    pub(super) copy_bytes: Option<u64>,
}

/// From the source of a branch, over a channel of its own, because what the branch itself reports may come earlier or later.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum BranchAnswer {
    /// The source runs again. Beside it: the branch's pidfd.
    Branched {
        pid: u32,
        pause_ns: u64,
        fork_ns: u64,
        copy_bound_bytes: u64,
    },
    Refused(String),
}

/// From a guest process to the process that asked for it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum GuestReport {
    /// The branch holds still; `host_addresses` says where each region of memory starts in its process. Beside it: its state.
    Holding {
        host_addresses: Vec<u64>,
        held: RemotePages,
    },
    Running(Identity),
    Failed(String),
    Ended {
        message: String,
        orderly: bool,
    },
}
