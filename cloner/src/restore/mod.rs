//! From a snapshot to the memory of a target.
//!
//! ```text
//!   Restorer::eager    ─► memory, all of it decoded ───────────────┐
//!   Restorer::lazy     ─► memory that arrives while the target runs ┼─► Vm::restore
//!   Restorer::template ─► Template: decoded once ─► memory over it ─┘
//! ```
//!
//! The ways to restore differ only in how they make guest memory; the VM that runs in it is always built by
//! [`Vm::restore`](vmm::Vm::restore).

pub mod eager;
pub mod lazy;
mod restorer;
pub(crate) mod state_file;
pub mod template;

pub use restorer::Restorer;
pub use template::Template;
