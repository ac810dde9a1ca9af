//! Forking the process of a VM that is paused.

#![expect(unsafe_code, reason = "what other threads do while a process is forked is for its caller to know")]

use super::pause::Parked;
use crate::sys::fork::{Error, Side, fork_unless_others};

/// Forks a process whose other threads are vCPUs that are parked.
///
/// In the child their stacks are gone and so is whatever they owned; what they share with others must not be locked there, see
/// [`Parked`].
///
/// # Errors
/// See [`Error`].
pub(super) fn fork_beside(parked: &Parked<'_>) -> Result<Side, Error> {
    // SAFETY: the threads that `parked` names are parked while it lives, which is what it is a proof of: they hold no lock that
    // the child will use, and change nothing.
    unsafe { fork_unless_others(parked.threads()) }
}
