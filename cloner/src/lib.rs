//! Many machines from one.

pub mod codec;
