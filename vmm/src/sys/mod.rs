//! The system interface: the only home of `unsafe` in this crate.
//!
//! Each file wraps one thing the kernel offers in a type that cannot be misused: the rest of the crate sees values,
//! offsets and errors, never addresses.

pub mod fork;
pub mod holder;
pub mod kvm;
pub mod machine;
pub mod memfd;
pub mod mmap;
pub mod nested;
pub mod pagemap;
pub mod process;
pub mod signal;
pub mod uffd;
