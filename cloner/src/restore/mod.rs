//! From a snapshot to the memory of a target.
//!
//! The ways to restore differ only in how they make guest memory; the VM that runs in it is always built by
//! [`Vm::restore`](vmm::Vm::restore).

pub mod eager;
pub mod lazy;
