//! What this process holds, and what the host has.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

/// Descriptors, threads and mappings of this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holdings {
    /// Number of open file descriptors.
    pub descriptors: usize,
    /// Number of threads.
    pub threads: usize,
    /// Number of mappings in the address space.
    pub mappings: usize,
}

impl Holdings {
    /// Counts.
    pub fn now() -> Self {
        // The folder being read is a descriptor itself, each time.
        let entries = |path| fs::read_dir(path).unwrap().count();
        Self {
            descriptors: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            mappings: fs::read_to_string("/proc/self/maps").unwrap().lines().count(),
        }
    }

    /// Counts again until `condition` holds or some seconds have passed: a thread pool's threads end a little after it is dropped.
    pub fn when(condition: impl Fn(&Self) -> bool) -> Self {
        let deadline = Instant::now() + Duration::from_secs(10);
        loop {
            let now = Self::now();
            if condition(&now) || Instant::now() > deadline {
                return now;
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Asserts that this process holds no more than this, apart from `mappings` mappings: the allocator moves the ends of its arenas.
    /// It may hold less, because a thread that was ending when this was counted has ended since.
    #[track_caller]
    pub fn assert_no_more_now(&self, mappings: usize) {
        let within = |now: &Self| {
            now.descriptors <= self.descriptors
                && now.threads <= self.threads
                && now.mappings <= self.mappings + mappings
        };
        let now = Self::when(within);
        assert!(within(&now), "{now:?}, {self:?} before");
    }
}

/// Size of the host's memory, in bytes.
pub fn memory_bytes() -> u64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}
