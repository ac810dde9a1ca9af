//! The signal that makes a thread leave `KVM_RUN`.

use std::sync::OnceLock;

use vmm_sys_util::errno;
use vmm_sys_util::signal::{SIGRTMIN, register_signal_handler};

/// Absolute number of the kick signal, to be passed to `Killable::kill`.
#[must_use]
pub(crate) fn kick_signal() -> libc::c_int {
    SIGRTMIN()
}

/// Installs the kick signal's handler, once per process.
///
/// The handler does nothing: the delivery of the signal is what interrupts `KVM_RUN`. Whether the thread then stays
/// outside is decided by `immediate_exit` in the shared `kvm_run` page (see [`crate::vcpu`]).
///
/// # Errors
/// The kernel's reason for refusing `sigaction`, at the first call and at every later one.
pub(crate) fn install_kick_handler() -> Result<(), errno::Error> {
    extern "C" fn ignore(_: libc::c_int, _: *mut libc::siginfo_t, _: *mut libc::c_void) {}
    static INSTALLED: OnceLock<Result<(), errno::Error>> = OnceLock::new();
    *INSTALLED.get_or_init(|| register_signal_handler(kick_signal(), ignore))
}
