//! Permission to run machines: checks whether this host can, and limits how many run at a time.

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use cloner::chain;
use cloner::pool::hugepages::{self, HugePages, ReservedHugePages};
use cloner::pool::{self, Pool, PoolConfig, PoolPages, Populate};
use cloner::restore::lazy;
use vmm::host::Host;
use vmm::memory::userfault::OpenError;

use crate::skip;

/// Number of machines that run at the moment. If a guest's ring 0 is emulated, a machine takes a whole core.
static RUNNING: Mutex<usize> = Mutex::new(0);
static LEFT: Condvar = Condvar::new();

/// Room for a number of machines, until this is dropped.
#[must_use = "the machines may run only as long as this lives"]
pub struct Room {
    machines: usize,
}

/// Waits until there is room for `machines` more. `None`, after a loud note, where machines cannot run.
///
/// # Panics
/// Instead of returning `None`, if the environment says that KVM is required; and whenever KVM is there but cannot be used.
pub fn room_for(machines: usize) -> Option<Room> {
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

/// The host's huge pages. One test at a time uses them, so that it can tell whether all of its own came back.
#[must_use = "the pages are set aside only as long as this lives"]
pub struct HugePagesAlone {
    /// The pages that the host had free, held so that nothing else finds them. They go back before the setting is lowered.
    taken: Vec<Pool>,
    reserved: Option<ReservedHugePages>,
    before: HugePages,
    /// Number of pages that this leaves free for the test.
    free: usize,
    _others_wait: MutexGuard<'static, ()>,
    _other_processes_wait: File,
}

/// A file that processes of any user can lock, whatever they take for their temporary folder. It is not the setting, which the
/// product locks for each change.
const LOCKED: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages";

/// Leaves exactly `pages` huge pages free, however many the host has: takes those that are free out of the way and sets `pages`
/// more aside. A user who may not do that keeps `pages` of the free ones; if they are too few, the result is `None`, as in
/// [`room_for`].
///
/// What was taken is only promised to a mapping, so it goes back however the test ends, even if it is killed.
pub fn huge_pages(pages: usize) -> Option<HugePagesAlone> {
    static ALONE: Mutex<()> = Mutex::new(());
    // Even if a test that had the pages failed, it has given them back.
    let others_wait = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    // Other checkouts whose tests run at the same time must not be disturbed either.
    let other_processes_wait = match File::open(LOCKED) {
        Ok(file) => file,
        Err(error) => {
            skip(&format!("it needs huge pages of 2 MiB, and {LOCKED} cannot be opened: {error}"));
            return None;
        }
    };
    other_processes_wait.lock().unwrap();
    let before = HugePages::read().unwrap();
    let (taken, reserved) = match may_set_huge_pages_aside() {
        Ok(()) => {
            let taken = take_free_but(0);
            let reserved = hugepages::reserve(pages).unwrap_or_else(|error| panic!("{}", chain(&error)));
            (taken, Some(reserved))
        }
        Err(_) if pages <= before.available() => (take_free_but(pages), None),
        Err(error) => {
            skip(&format!(
                "it needs {pages} huge pages of 2 MiB, and this user cannot set them aside: {error}"
            ));
            return None;
        }
    };
    let (_others_wait, _other_processes_wait) = (others_wait, other_processes_wait);
    Some(HugePagesAlone { taken, reserved, before, free: pages, _others_wait, _other_processes_wait })
}

/// Takes the host's free huge pages except `left` of them. They are promised, but not touched.
fn take_free_but(left: usize) -> Vec<Pool> {
    let mut taken = Vec::new();
    loop {
        let pages = HugePages::read().unwrap().available().saturating_sub(left);
        if pages == 0 {
            return taken;
        }
        let config = PoolConfig {
            capacity_bytes: pages << 21,
            pages: PoolPages::Huge,
            populate: Populate::OnFirstUse,
        };
        match Pool::new(&config) {
            Ok(pool) => taken.push(pool),
            // Another process was faster, and it may not have left any.
            Err(pool::Error::TooFewHugePages(_)) => {}
            Err(error) => panic!("{}", chain(&error)),
        }
    }
}

/// Whether this user may set huge pages aside; the error is the kernel's reason if not.
pub fn may_set_huge_pages_aside() -> io::Result<()> {
    OpenOptions::new().write(true).open(hugepages::SETTING).map(drop)
}

/// The same; if not, a note says that the test is skipped.
pub fn can_set_huge_pages_aside() -> bool {
    let may = may_set_huge_pages_aside();
    may.inspect_err(|error| skip(&format!("it sets huge pages aside, and this user cannot: {error}"))).is_ok()
}

/// Whether this user may serve page faults, which lazy clones need. If not, a note says that the test is skipped.
pub fn can_restore_lazily() -> bool {
    lazily("it restores lazily")
}

/// The same for a test that also does other things, which it does in any case.
pub fn can_restore_lazily_too() -> bool {
    lazily("only its lazy clones")
}

fn lazily(what: &str) -> bool {
    match lazy::check() {
        Err(error @ lazy::Error::Userfault(OpenError::NotAllowed { .. })) => {
            skip(&format!("{what}: {}", chain(&error)));
            false
        }
        checked => checked.map(|()| true).unwrap(),
    }
}

impl HugePagesAlone {
    /// Gives the pages back and asserts that the host has as many as before, and as many of them free.
    #[track_caller]
    pub fn assert_all_back(mut self) {
        self.taken.clear();
        self.reserved = None;
        self.assert_there_are(self.before.total, self.before.available());
    }

    /// Asserts that the host has the pages set aside here beyond its own, and that all that this left free are free again.
    #[track_caller]
    pub fn assert_as_before(&self) {
        let own = self.reserved.as_ref().map_or(0, ReservedHugePages::pages);
        self.assert_there_are(self.before.total + own, self.free);
    }

    /// Asserts that the host has `total` huge pages, at least `free` of them free. The kernel takes a moment to get pages back,
    /// and other processes on this host may hold some for a while.
    #[track_caller]
    fn assert_there_are(&self, total: usize, free: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        loop {
            let now = HugePages::read().unwrap();
            if now.total == total && now.available() >= free {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{total} huge pages expected, {free} of them free: {now:?}, {:?} before the test",
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
