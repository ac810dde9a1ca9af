//! Guests for tests and demonstrations.
//!
//! [`pulse`] is bare metal: it boots in milliseconds on every host, and what it does can be checked to the last word and
//! register. [`tiny_linux`] is the smallest Linux that can be checked in the same way, built by a script. [`stock_linux`] is what
//! people run: a distribution's kernel, with a program that notices changes that cloning must not cause.

pub mod pulse;
mod script;
pub mod stock_linux;
pub mod tiny_linux;

pub use script::Error;
