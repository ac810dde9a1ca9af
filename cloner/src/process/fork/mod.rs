//! Forks: clones that run over one decoded template, each in a process of its own.
//!
//! ```text
//!  this process                     zygote, one per template            forks
//!  ────────────                     ──────────────────────────          ─────────────────────────────────
//!  Template::new: decode, seal ───► maps nothing, parses the state
//!  Zygote::fork  ── console ──────► fork() ───────────────────────────► map the template privately,
//!       │           control                 │                           build VM, vCPUs and devices, run
//!       ◄──────── pidfd ────────────────────┘                               │
//!       ◄─────────────── console output, and at last how it ended ──────────┘
//! ```
//!
//! Nothing is done per fork that can be done per template, and nothing takes time with the size of the memory: a fork's page
//! table is empty until it touches a page, and a page is its own from its first write to it, in granules of 4 KiB.
//!
//! A process per fork, because virtual machines in one process share one address space and its locks: they slow each other
//! down by the hundred. The zygote has a single thread, so that its `fork()` is safe; it never runs a guest.
//!
//! A fork is a [guest process](crate::process): it ends when its control channel is closed, from either side, and can be branched.
//! [`Template::memory`] is the way to fork in one's own process.

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

/// Why there is no fork.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be decoded.
    #[error("cannot decode the template")]
    Decode(#[from] eager::Error),
    /// No memfd for the template, or it cannot be written or read.
    #[error("cannot make or read the template")]
    Template(#[source] io::Error),
    /// A template and a state that do not belong together.
    #[error("a template of {found} bytes for a guest of {wanted} bytes")]
    TemplateSize {
        /// Bytes of guest memory by the state.
        wanted: u64,
        /// Bytes of the file.
        found: u64,
    },
    /// The state is not one.
    #[error("the template's state")]
    State(#[from] state::DecodeError),
    /// No memory over the template, or none where the guest is to be told who it is.
    #[error("the fork's memory")]
    Memory(#[from] memory::Error),
    /// The program that should be the zygote does not start.
    #[error("cannot start {program} as a zygote")]
    Start {
        /// Its path.
        program: String,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The zygote cannot be talked to.
    #[error("the connection to the zygote failed")]
    Channel(#[from] io::Error),
    /// The zygote is gone.
    #[error("the zygote has ended")]
    ZygoteEnded,
    /// The zygote says what went wrong there.
    #[error("{0}")]
    Refused(String),
    /// The fork's process.
    #[error("fork")]
    Process(#[from] process::Error),
}
