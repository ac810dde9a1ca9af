//! The system interface: the only home of `unsafe` in this crate.
//!
//! Each file wraps one thing that the kernel offers in a type that cannot be misused: the rest of the crate sees values,
//! offsets and errors, never addresses.

pub mod fork;
pub(crate) mod holder;
pub(crate) mod kvm;
pub mod memfd;
pub(crate) mod mmap;
pub(crate) mod nested;
pub(crate) mod page;
pub(crate) mod pagemap;
pub(crate) mod process;
pub(crate) mod signal;
pub mod uffd;
