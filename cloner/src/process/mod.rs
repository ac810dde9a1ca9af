//! Machines in processes of their own, and branches of them.
//!
//! ```text
//!  this process                            guest process                     branch
//!  ────────────                            ─────────────────────────         ───────────────────────────────
//!  GuestProcess::boot, Zygote::fork ─────► builds a VM, runs it
//!  GuestProcess::branch ── console ──────► pause, save state, fork() ──────► build VM, vCPUs and devices, run
//!       │                  control                 │ resume                    │
//!       ◄──── how long it paused, pidfd ───────────┘                           │
//!       ◄───────────── console output, and at last how it ended ───────────────┘
//! ```
//!
//! A guest process has one machine and no thread but the vCPUs' and the one that serves the console and the control channel
//! (`guest.rs`). That is what makes its `fork()` safe: while the machine is paused, nobody holds a lock. Nothing is encoded or
//! decoded for a branch; the kernel copies the pages that either side writes, when it does. A branch is a guest process like any
//! other, and can be branched.
//!
//! A guest process ends when its control channel is closed: if this process dies, so do all of them, branches of branches too,
//! for every one has a channel to whoever asked for it. None of them ends with its source.

mod boot;
mod channel;
mod client;
pub mod fork;
mod frozen;
mod guest;
mod mend;
mod state_file;
mod wire;

use std::io;

use vmm::machine::branch;
use vmm::{memory, state};

pub(crate) use channel::Channel;
pub(crate) use client::Reaped;
pub use client::{BranchReport, End, GuestProcess};
pub use frozen::FrozenGuest;
pub use guest::serve;
pub(crate) use guest::{restore, run};
pub(crate) use state_file::{read_state, state_file};

use crate::pool;

/// Why there is no guest process, no branch, or no more of it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program that should be the guest's does not start.
    #[error("cannot start {program} as the process of a guest")]
    Start {
        /// Its path.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// A guest process cannot be talked to.
    #[error("the connection to a guest's process failed")]
    Channel(#[from] io::Error),
    /// It ended without a word: it was killed, or had not got so far.
    #[error("the process of the guest has ended")]
    Ended,
    /// Its guest ended, and its process with it.
    #[error("the guest has ended: {}", .0.message)]
    GuestEnded(End),
    /// Memory over a template, which another process cannot map.
    #[error("a guest over a template is forked from a zygote, not booted")]
    OverTemplate,
    /// Source and branch, writing to all they have, would need more memory than there is.
    #[error(
        "source and branch may come to have {needed_bytes} bytes twice, which they share at first: \
         {available_bytes} bytes are available"
    )]
    TooLittleMemory {
        /// Bytes of memory the source has to itself.
        needed_bytes: u64,
        /// What the host, or the caller, can spare.
        available_bytes: u64,
    },
    /// The host does not say how much memory is used, or left.
    #[error("cannot tell how much memory there is")]
    Available(#[from] pool::Error),
    /// The machine cannot be branched.
    #[error("branch")]
    Branch(#[from] branch::Error),
    /// The machine cannot be built or paused.
    #[error("virtual machine")]
    Vm(#[from] vmm::Error),
    /// Its memory cannot be written or read.
    #[error("guest memory")]
    Memory(#[from] memory::Error),
    /// A state that is not one.
    #[error("the state of a branch")]
    State(#[from] state::DecodeError),
    /// What went wrong in the other process, in its words.
    #[error("{0}")]
    Refused(String),
}
