//! Putting a guest's huge pages back together after it was branched, while it runs.
//!
//! The kernel copies what source and branch share 4 KiB at a time, and splits huge pages for that. A machine on small pages works,
//! but takes ten times as long to be branched again. So when the thread that serves the guest has nothing else to do, it looks for
//! pages that have become the process's own, and has the kernel make huge pages of them.
//!
//! It does so only where at least half of the pages of a huge page are the process's own already, because the other half is copied
//! by this, although it may never be written. So a machine that writes little keeps sharing, and the copies come to at most twice
//! what was written.

use std::io;
use std::time::{Duration, Instant};

use vmm::memory::{GuestMemory, HugeRange, RangeSharing};

/// Time between two passes: this after a pass that found something to do, and twice as long after each pass that did not.
const INTERVAL: Duration = Duration::from_millis(20);
const INTERVAL_MAX: Duration = Duration::from_secs(1);
/// A pass that found nothing is followed by a rest of at least this many times its own duration.
const REST: u32 = 20;

/// Puts a guest's huge pages back together step by step, and knows which are left.
pub(super) struct HugePageRepair {
    /// Ranges that still had shared pages when they were last looked at.
    shared: Vec<HugeRange>,
    /// Number of those, counted from the first, that this pass has yet to look at.
    left: usize,
    /// When the next step is due.
    next: Instant,
    interval: Duration,
    /// How long this pass has looked so far without finding anything.
    looked: Duration,
}

impl HugePageRepair {
    /// Has nothing to do until it is told that memory is [shared](Self::share).
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

    /// Time until the next step is due; `None` if there is nothing to repair.
    pub(super) fn idle_for(&self) -> Option<Duration> {
        (!self.shared.is_empty()).then(|| self.next.saturating_duration_since(Instant::now()))
    }

    /// Goes on until one huge page has been put together or the pass is over, and stops then: this thread has requests to
    /// serve, too.
    pub(super) fn step(&mut self, memory: &GuestMemory) {
        let started = Instant::now();
        while let Some(index) = self.left.checked_sub(1) {
            self.left = index;
            match repair_range(memory, self.shared[index]) {
                RepairOutcome::NotYet => {}
                RepairOutcome::NotNeeded => drop(self.shared.swap_remove(index)),
                RepairOutcome::Repaired => {
                    self.shared.swap_remove(index);
                    // Halved, because it is doubled at the end of the pass.
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

enum RepairOutcome {
    /// Too much of the range is still shared, or the kernel could not make a huge page of it yet.
    NotYet,
    /// There was nothing to do.
    NotNeeded,
    Repaired,
}

fn repair_range(memory: &GuestMemory, range: HugeRange) -> RepairOutcome {
    let RangeSharing { present, own } = match memory.sharing(range) {
        Ok(sharing) => sharing,
        Err(error) => {
            tracing::warn!(%error, "cannot tell which pages are shared, so the next branch will take longer");
            return RepairOutcome::NotNeeded;
        }
    };
    if present == 0 {
        return RepairOutcome::NotNeeded;
    }
    if own * 2 < present {
        return RepairOutcome::NotYet;
    }
    match memory.collapse_range(range) {
        Ok(()) => RepairOutcome::Repaired,
        Err(error) => {
            tracing::debug!(%error, present, own, "the kernel did not make a huge page");
            // Pages that are in use now may be free later, and a huge page may become available.
            if error.kind() == io::ErrorKind::InvalidInput {
                RepairOutcome::NotNeeded
            } else {
                RepairOutcome::NotYet
            }
        }
    }
}
