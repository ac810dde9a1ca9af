//! Putting a guest's huge pages back together after it was branched, while it runs.
//!
//! The kernel copies 4 KiB at a time of what source and branch share, also where that was a huge page, which it splits. A machine on
//! small pages works, but takes ten times as long to be branched again. So the thread that serves the guest looks, when it has
//! nothing else to do, where pages have become the process's own, and has the kernel make huge pages of them.
//!
//! Only where at least half of the pages of a huge one are the process's own already: the others are copied by this, though nobody
//! may ever write them. So a machine that writes little keeps sharing, and copies are at most twice what was written.

use std::io;
use std::time::{Duration, Instant};

use vmm::memory::{GuestMemory, HugeRange, Sharing};

/// Time between two passes: the shorter after one that found something to do; twice as long after each that did not.
const INTERVAL: Duration = Duration::from_millis(20);
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// What the time a pass looked without finding anything is multiplied by before the next one.
const REST: u32 = 20;

/// What is left to mend of a guest's memory.
pub(super) struct Mender {
    /// Ranges some of whose pages were shared when they were last looked at.
    shared: Vec<HugeRange>,
    /// Of those, how many this pass has yet to look at: the first ones.
    left: usize,
    /// When to go on.
    next: Instant,
    interval: Duration,
    /// How long this pass looked without finding anything.
    looked: Duration,
}

impl Mender {
    /// Nothing to do until it is told that memory is [shared](Self::share).
    pub(super) fn idle() -> Self {
        let (interval, looked) = (INTERVAL, Duration::ZERO);
        Self { shared: Vec::new(), left: 0, next: Instant::now(), interval, looked }
    }

    /// All of the memory is shared from now on.
    pub(super) fn share(&mut self, memory: &GuestMemory) {
        self.shared = memory.huge_ranges();
        self.interval = INTERVAL;
        self.begin_pass();
    }

    /// How long there is nothing to do. `None` for ever.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        (!self.shared.is_empty()).then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// Goes on, for as long as it takes to put one huge page together: somebody may want something else of this thread.
    pub(super) fn step(&mut self, memory: &GuestMemory) {
        let started = Instant::now();
        while let Some(index) = self.left.checked_sub(1) {
            self.left = index;
            match mend(memory, self.shared[index]) {
                Mended::Not => {}
                Mended::Already => drop(self.shared.swap_remove(index)),
                Mended::Now => {
                    self.shared.swap_remove(index);
                    // Halved, for it is doubled when the pass is over.
                    self.interval = INTERVAL / 2;
                    return;
                }
            }
        }
        self.looked += started.elapsed();
        self.interval = (self.interval * 2).min(INTERVAL_MAX);
        self.begin_pass();
    }

    fn begin_pass(&mut self) {
        self.next = Instant::now() + self.interval.max(self.looked * REST);
        self.left = self.shared.len();
        self.looked = Duration::ZERO;
    }
}

enum Mended {
    /// Too much of it is shared.
    Not,
    /// There was nothing to do.
    Already,
    Now,
}

fn mend(memory: &GuestMemory, range: HugeRange) -> Mended {
    let Sharing { present, own } = match memory.sharing(range) {
        Ok(sharing) => sharing,
        Err(error) => {
            tracing::warn!(%error, "cannot tell which pages are shared: the next branch will take longer");
            return Mended::Already;
        }
    };
    if present == 0 {
        return Mended::Already;
    }
    if own * 2 < present {
        return Mended::Not;
    }
    match memory.collapse_range(range) {
        Ok(()) => Mended::Now,
        Err(error) => {
            tracing::debug!(%error, present, own, "no huge page");
            // Pages that were in use, or a huge one that was not to be had, may be later.
            if error.kind() == io::ErrorKind::InvalidInput { Mended::Already } else { Mended::Not }
        }
    }
}
