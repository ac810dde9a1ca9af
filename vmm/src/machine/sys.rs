//! Forking the process of a VM that is paused.

#![expect(unsafe_code, reason = "what other threads do while a process is forked is for its caller to know")]

use super::pause::Parked;
use crate::sys::fork::{Error, ForkSide, fork_unless_others};

/// Forks this process, whose other threads may only be parked vCPUs.
///
/// In the child their stacks are gone, and so is everything they owned. The child must not lock what they share with others; see
/// [`Parked`].
///
/// # Errors
/// As for [`fork_unless_others`]: another thread exists, or the kernel refuses to fork.
pub(super) fn fork_beside(parked: &Parked<'_>) -> Result<ForkSide, Error> {
    // SAFETY: the threads that `parked` names are parked while it lives, which is what it is a proof of: they hold no lock that
    // the child will use, and change nothing.
    unsafe { fork_unless_others(parked.threads()) }
}
