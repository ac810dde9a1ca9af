//! Saves without a VM: what is saved is decoded again, and what fails leaves nothing behind.

mod full;
mod scene;
mod series;

pub(crate) use scene::*;
