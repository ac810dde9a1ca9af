//! What a zygote and its parent say to each other.

use serde::{Deserialize, Serialize};
use vmm::Announce;

/// To the zygote.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Request {
    /// Beside it: the sealed template, a file with the state.
    SetUp,
    /// Beside it: the fork's console, its end of the control channel.
    Fork { announce: Option<Announce> },
}

/// From the zygote.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    Ready,
    /// Beside it: a pidfd.
    Forked {
        pid: u32,
    },
    Failed(String),
}
