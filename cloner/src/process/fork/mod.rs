//! Forks: clones that run over one decoded template, each in a process of its own.
//!
//! ```text
//!  this process                     zygote, one per template            forks
//!  ────────────                     ──────────────────────────          ─────────────────────────────────
//!  Restorer::template ────────────► maps nothing, parses the state
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
//! To run a fork inside the calling process instead, use [`Template::memory`](crate::restore::Template::memory).

mod client;
mod wire;
mod zygote;

use std::io;

pub use client::Zygote;
pub use zygote::serve;

use crate::restore::template;

/// Why there is no zygote or no fork.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The zygote was given a template that cannot be used.
    #[error(transparent)]
    Template(#[from] template::Error),
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
}
