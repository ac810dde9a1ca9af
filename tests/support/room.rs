//! Permission to run machines: whether this host can, and not too many at a time.

use std::env;
use std::fs::{File, OpenOptions};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cloner::pool;
use cloner::pool::hugepages::{self, HugePages, Reserved};
use vmm::host::Host;

use super::{chain, note};

/// Set to 1 where KVM must be there, such as in CI: what would be skipped then fails.
const REQUIRE_KVM: &str = "CLONER_REQUIRE_KVM";

/// Says that the test is skipped, and why.
///
/// # Panics
/// If the environment says that nothing may be.
pub(crate) fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        env::var_os(REQUIRE_KVM).is_none_or(|value| value != "1"),
        "{REQUIRE_KVM}=1, but would skip this: {why}"
    );
    note(format_args!("\nSKIPPED: {test}: {why}\n"));
}

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
    if let Err(error) = OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        skip(&format!("it runs virtual machines, and /dev/kvm cannot be used: {error}"));
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

/// The host's huge pages, which one test at a time deals with, so that it can tell whether all of its own came back.
#[must_use = "the pages are set aside only as long as this lives"]
pub(crate) struct HugePagesAlone {
    reserved: Option<Reserved>,
    before: usize,
    _others_wait: MutexGuard<'static, ()>,
    _other_processes_wait: File,
}

/// Sets `pages` huge pages aside. `None` where that is not allowed, as in [`room_for`].
pub(crate) fn huge_pages(pages: usize) -> Option<HugePagesAlone> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that failed with pages of its own has given them back all the same.
    let others_wait = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Nor are other checkouts to be disturbed whose tests run at the same time.
    let other_processes_wait = File::create(env::temp_dir().join("cloner-tests-huge-pages.lock")).unwrap();
    other_processes_wait.lock().unwrap();
    let before = HugePages::read().unwrap().total;
    match hugepages::reserve(pages) {
        Ok(reserved) => Some(HugePagesAlone {
            reserved: Some(reserved),
            before,
            _others_wait: others_wait,
            _other_processes_wait: other_processes_wait,
        }),
        Err(error @ pool::Error::Setting { .. }) => {
            skip(&format!("it sets huge pages aside: {}", chain(&error)));
            None
        }
        Err(error) => panic!("{}", chain(&error)),
    }
}

impl HugePagesAlone {
    /// Gives the pages back and asserts that the host has as many as before.
    #[track_caller]
    pub(crate) fn assert_all_back(mut self) {
        self.reserved = None;
        self.assert_as_before();
    }

    /// Asserts that all pages beyond those set aside here have come back. The kernel takes a moment for that, and somebody
    /// else on this host may have some for a while.
    #[track_caller]
    pub(crate) fn assert_as_before(&self) {
        let own = self.reserved.as_ref().map_or(0, Reserved::pages);
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = HugePages::read().unwrap();
            if now.total == self.before + own {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{} huge pages before, {own} of the test's: {now:?}",
                self.before
            );
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        *RUNNING.lock().unwrap() -= self.machines;
        LEFT.notify_all();
    }
}
