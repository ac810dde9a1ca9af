//! Forks: clones that run over one decoded template, each in a process of its own.
//!
//! ```text
//!  this process                     zygote, one per template            forks
//!  ────────────                     ──────────────────────────          ─────────────────────────────────
//!  Template::new: decode, seal ───► maps nothing, parses the state
//!  Zygote::fork  ── console ──────► fork() ───────────────────────────► map the template privately,
//!       │           control                 │                           build VM, vCPUs and devices, run
//!       ◄──────── pidfd ────────────────────┘                               │
//!       ◄─────────────── console output, and finally how it ended ──────────┘
//! ```
//!
//! Nothing is done per fork that can be done once per template, and no step takes longer for a larger memory: a fork's page
//! table is empty until it touches a page, and a fork gets a copy of a page, 4 KiB at a time, when it first writes to it.
//!
//! Each fork has a process of its own, because virtual machines in one process share one address space and its locks: hundreds of
//! them slow each other down. The zygote has a single thread, so that its `fork()` is safe; it never runs a guest.
//!
//! A fork is a [guest process](crate::process): it ends when its control channel is closed, from either side, and can be branched.
//! To run a fork inside the calling process instead, use [`Template::memory`].

mod client;
mod template;
mod wire;
mod zygote;

use std::io;

use vmm::{memory, state};

pub use client::Zygote;
pub use template::Template;
pub use zygote::serve;

use crate::process;
use crate::restore::eager;

/// Why there is no template, no zygote or no fork.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be decoded.
    #[error("cannot decode the template")]
    Decode(#[from] eager::Error),
    /// The memfds with the template's memory and state cannot be made, written or read.
    #[error("cannot make or read the template")]
    Template(#[source] io::Error),
    /// The template's memory and state do not belong together.
    #[error("the template has {found} bytes of memory, but its state is of a guest with {wanted} bytes")]
    TemplateSize {
        /// Bytes of guest memory according to the state.
        wanted: u64,
        /// Bytes of the file that holds the memory.
        found: u64,
    },
    /// The template's state is not a valid one.
    #[error("the template's state is not valid")]
    State(#[from] state::DecodeError),
    /// The fork's memory cannot be mapped over the template, or does not exist where its guest is to be told who it is.
    #[error("cannot map or write the memory of the fork")]
    Memory(#[from] memory::Error),
    /// The program that was to become the zygote does not start.
    #[error("cannot start {program} as a zygote")]
    Start {
        /// The program's path.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// Messages to or from the zygote, or the descriptors beside them, cannot be passed.
    #[error("the connection to the zygote failed")]
    Channel(#[from] io::Error),
    /// The zygote's process has ended.
    #[error("the zygote has ended")]
    ZygoteEnded,
    /// The zygote refused or failed. This is the reason that it gave, or what is wrong with its answer.
    #[error("{0}")]
    Refused(String),
    /// The process of the fork failed.
    #[error("the process of the fork failed")]
    Process(#[from] process::Error),
}
