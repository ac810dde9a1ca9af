//! What the program exits with, besides 0 and the code of a guest.

/// Something failed.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The guest crashed: triple fault, emulation failure, or KVM gave up on it.
pub(crate) const EXIT_GUEST_CRASHED: u8 = 125;
/// Ended by Ctrl-C, as shells have it.
pub(crate) const EXIT_INTERRUPTED: u8 = 130;
