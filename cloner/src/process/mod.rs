//! Machines in processes of their own, and branches of them.
//!
//! ```text
//!  this process                            guest process                     branch
//!  ────────────                            ─────────────────────────         ───────────────────────────────
//!  GuestProcess::boot, Zygote::fork ─────► builds a VM, runs it
//!  GuestProcess::branch ── console ──────► pause, save state, fork() ──────► build VM, vCPUs and devices, run
//!       │                  control                 │ resume                    │
//!       ◄──── how long it paused, pidfd ───────────┘                           │
//!       ◄───────────── console output, and finally how it ended ───────────────┘
//! ```
//!
//! A guest process has one machine and no thread but the vCPUs' and the one that serves the console and the control channel
//! (`guest.rs`). That is what makes its `fork()` safe: while the machine is paused, no thread holds a lock. Nothing is encoded or
//! decoded for a branch; the kernel copies a page when either side first writes it. A branch is a guest process like any
//! other, and can be branched.
//!
//! A guest process ends when its control channel is closed. Every one has a channel to the process that asked for it, so if this
//! process dies, all of them end, branches of branches too. A branch does not end when its source does.

mod boot;
mod channel;
mod client;
pub mod fork;
mod frozen;
mod guest;
mod repair;
mod wire;

use std::io;

use vmm::machine::branch;
use vmm::{memory, state};

pub(crate) use channel::Channel;
pub(crate) use client::ChildProcess;
pub use client::{BranchReport, GuestEnding, GuestProcess};
pub use frozen::FrozenGuest;
pub use guest::serve;
pub(crate) use guest::{restore, run};

use crate::admission;

#[cfg(test)]
mod tests;

/// Why a guest process or a branch could not be made, or can no longer be reached.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The program that was to become the guest's process does not start.
    #[error("cannot start {program} as the process of a guest")]
    Start {
        /// The program's path.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Messages to or from a guest process, or the descriptors beside them, cannot be passed.
    #[error("the connection to a guest's process failed")]
    Channel(#[from] io::Error),
    /// The process ended without saying why: it was killed, or ended before it could say anything.
    #[error("the process of the guest has ended")]
    Ended,
    /// The guest ended, and its process with it.
    #[error("the guest has ended: {}", .0.message)]
    GuestEnded(GuestEnding),
    /// The configuration asks for memory over a template, which [`GuestProcess::boot`] does not pass to another process.
    #[error("a guest over a template is forked from a zygote, not booted")]
    OverTemplate,
    /// If source and branch both wrote to all of their memory, they would need more than there is.
    #[error("source and branch cannot share the source's memory")]
    Admission(#[from] admission::Error),
    /// The machine cannot be branched.
    #[error("cannot branch the machine")]
    Branch(#[from] branch::Error),
    /// The machine cannot be built.
    #[error("cannot build the virtual machine")]
    Vm(#[from] vmm::Error),
    /// The guest's memory cannot be mapped, or does not exist where the guest is to be told who it is.
    #[error("cannot map or write the memory of the guest")]
    Memory(#[from] memory::Error),
    /// The state that came with a branch is not a valid one.
    #[error("the state of the branch is not valid")]
    State(#[from] state::DecodeError),
    /// The other process refused or failed. This is the reason that it gave, or what is wrong with its answer.
    #[error("{0}")]
    Refused(String),
}
