//! From a snapshot to the memory of a target.
//!
//! A way to restore is a way to make guest memory; the VM that then runs in it is always built by
//! [`Vm::restore`](vmm::Vm::restore).

pub mod eager;
pub mod lazy;
