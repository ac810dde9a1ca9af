//! What a guest process and whoever wanted it say to each other.

use serde::{Deserialize, Serialize};
use vmm::memory::Held;
use vmm::{Announce, Identity};

use super::boot::Boot;

/// To a guest process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first, to one that has no guest yet. Beside it: its console, the image that a flat kernel is.
    Boot(Boot),
    /// To one that runs. Beside it: the branch's console, its end of the control channel, and the channel for the [`Answer`].
    Branch(BranchRequest),
    /// To one that was asked to hold still.
    Run,
}

/// A branch as it is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct BranchRequest {
    /// How its guest is told who it is.
    pub(super) announce: Option<Announce>,
    /// Not to run before it is told to.
    pub(super) hold: bool,
    /// Most bytes that source and branch may come to have twice.
    pub(super) copy_bytes: Option<u64>,
}

/// From the source of a branch, over a channel that is for this only: what the branch itself says may come earlier or later.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The source runs again. Beside it: the branch's pidfd.
    Branched {
        pid: u32,
        pause_ns: u64,
        fork_ns: u64,
        copy_bound_bytes: u64,
    },
    Refused(String),
}

/// From a guest process to whoever wanted it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Report {
    /// It stands still, with memory at these addresses. Beside it: its state.
    Holding {
        host_addresses: Vec<u64>,
        held: Held,
    },
    Running(Identity),
    Failed(String),
    Ended {
        message: String,
        orderly: bool,
    },
}
