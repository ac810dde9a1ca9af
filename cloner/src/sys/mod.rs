//! The system interface: the only home of `unsafe` in this crate.

pub(crate) mod arena;
pub(crate) mod fork;
pub(crate) mod huge;
