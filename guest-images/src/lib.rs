//! Guests to test and demonstrate with.
//!
//! [`pulse`] is bare metal: it boots in milliseconds on every host and what it does can be checked to the last word and
//! register. [`tiny_linux`] is the smallest Linux that can be checked in the same way, built by a script.

pub mod pulse;
pub mod tiny_linux;
