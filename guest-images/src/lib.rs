//! Guests to test and demonstrate with.
//!
//! [`pulse`] is bare metal: it boots in milliseconds on every host and what it does can be checked to the last word and
//! register. `tiny-linux`, next to this crate's sources, is the smallest Linux that does the same with a kernel in it;
//! it is built by a script and has no code here.

pub mod pulse;
pub mod tiny_linux;
