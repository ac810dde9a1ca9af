//! The messages between a zygote and its parent.

use serde::{Deserialize, Serialize};
use vmm::Announce;

/// To the zygote.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ZygoteRequest {
    /// The first request. Beside it: the template's sealed memory, and a file with its state.
    SetUp,
    /// Make a fork. Beside it: the fork's console, and its end of the control channel.
    Fork { announce: Announce },
}

/// From the zygote.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ZygoteAnswer {
    Ready,
    /// The fork was made. Beside it: its pidfd.
    Forked {
        pid: u32,
    },
    Failed(String),
}
