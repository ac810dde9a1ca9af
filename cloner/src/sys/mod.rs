//! The system interface: with `codec::simd`, the only home of `unsafe` in this crate.

pub(crate) mod arena;
