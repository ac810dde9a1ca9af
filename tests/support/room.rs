//! Permission to run machines: whether this host can, and not too many at a time.

use std::env;
use std::fs::OpenOptions;
use std::sync::{Condvar, Mutex};
use std::thread;

use vmm::host::Host;

use super::{chain, note};

/// Set to 1 where KVM must be there, such as in CI: what would be skipped then fails.
const REQUIRE_KVM: &str = "CLONER_REQUIRE_KVM";

/// Machines that run at the moment. A guest's ring 0 may be emulated, and then a machine takes a core.
static RUNNING: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// Room for a number of machines, until dropped.
#[must_use = "the machines may run only as long as this lives"]
pub(crate) struct Room {
    machines: usize,
}

/// Waits until there is room for `machines` more. `None` where machines cannot run, after saying so loudly.
///
/// # Panics
/// Instead of `None`, if the environment says that KVM is required, and whenever KVM is there but cannot be used.
pub(crate) fn room_for(machines: usize) -> Option<Room> {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        assert!(env::var_os(REQUIRE_KVM).is_none_or(|value| value != "1"), "{REQUIRE_KVM}=1, but /dev/kvm: {error}");
        note(format_args!("\nSKIPPED: {test}: it runs virtual machines, and /dev/kvm cannot be used: {error}\n"));
        return None;
    }
    if let Err(error) = Host::get() {
        panic!("/dev/kvm opens, but {}", chain(&error));
    }
    let capacity = thread::available_parallelism().map_or(4, |cores| 2 * cores.get().max(2));
    let machines = machines.min(capacity);
    let running = RUNNING.lock().unwrap();
    *LEFT.wait_while(running, |running| *running + machines > capacity).unwrap() += machines;
    Some(Room { machines })
}

impl Drop for Room {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= self.machines;
        LEFT.notify_all();
    }
}
