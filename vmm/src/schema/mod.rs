//! What every kind of saved state is made of: text in a checked envelope, twins of KVM's structures, bytes as hexadecimal.

pub mod envelope;
pub(crate) mod hex;
mod mirror;
pub mod producer;

pub(crate) use mirror::mirror;
