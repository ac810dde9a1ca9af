//! What a guest process and whoever wanted it say to each other.

use serde::{Deserialize, Serialize};

use super::Error;
use super::boot::Boot;

/// Bytes to write into a clone's memory before it runs, such as who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Patch {
    /// Guest-physical address.
    pub address: u64,
    /// At most [`Patch::MAX_BYTES`].
    pub bytes: Vec<u8>,
}

impl Patch {
    /// Longest patch, in bytes.
    pub const MAX_BYTES: usize = 2048;

    pub(crate) fn check(patch: Option<&Self>) -> Result<(), Error> {
        match patch.map(|patch| patch.bytes.len()) {
            Some(bytes) if bytes > Self::MAX_BYTES => Err(Error::PatchLength { bytes }),
            _ => Ok(()),
        }
    }
}

/// To a guest process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// The first, to one that has no guest yet. Beside it: its console, the image that a flat kernel is.
    Boot(Boot),
    /// To one that runs. Beside it: the branch's console, its end of the control channel, and the channel for the [`Answer`].
    Branch(Order),
    /// To one that was asked to hold still.
    Run,
}

/// A branch as it is wanted.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Order {
    pub(super) patch: Option<Patch>,
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
        over_template: bool,
    },
    Running,
    Failed(String),
    Ended {
        message: String,
        orderly: bool,
    },
}
