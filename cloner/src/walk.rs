//! Processes many chunks in parallel, with scratch memory that is kept from one operation to the next.
//!
//! A [`Walker`] owns its threads and one worker for each. Both are made before the source is paused, because touching the
//! workers' scratch memory for the first time would cost milliseconds inside the pause. A thread takes the next item when it
//! has finished one, so cheap and expensive chunks are spread evenly over the threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use crate::sync::lock;

/// Shows how far a long operation has come, and lets another thread cancel it.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
    cancelled: AtomicBool,
}

impl Progress {
    /// Number of bytes to process; zero until it is known.
    pub fn total_bytes(&self) -> u64 {
        self.total_bytes.load(Ordering::Relaxed)
    }

    /// Number of bytes processed so far.
    pub fn done_bytes(&self) -> u64 {
        self.done_bytes.load(Ordering::Relaxed)
    }

    /// Stops the operation at the next chunk. The operation undoes its effects and reports that it was cancelled.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }

    /// Reports that the operation begins, with `total_bytes` to process and none processed.
    pub fn start(&self, total_bytes: u64) {
        self.done_bytes.store(0, Ordering::Relaxed);
        self.total_bytes.store(total_bytes, Ordering::Relaxed);
    }

    /// Reports that `bytes` more bytes have been processed.
    pub fn add(&self, bytes: u64) {
        self.done_bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

/// Threads, each with a worker of its own.
#[derive(Debug)]
pub struct Walker<W> {
    threads: rayon::ThreadPool,
    workers: Vec<Mutex<W>>,
}

/// The worker threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {threads} worker threads")]
pub struct StartError {
    threads: usize,
    source: rayon::ThreadPoolBuildError,
}

impl<W: Send> Walker<W> {
    /// Starts `threads` threads and makes a worker for each, on the thread that will use it.
    ///
    /// # Errors
    /// [`StartError`] if the threads cannot be started.
    ///
    /// # Panics
    /// If `threads` is zero, for which rayon would choose a number of its own.
    pub fn new(threads: usize, make: impl Fn() -> W + Sync) -> Result<Self, StartError> {
        assert!(threads > 0, "a walk needs a thread");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .thread_name(|index| format!("walk-{index}"))
            .build()
            .map_err(|source| StartError { threads, source })?;
        let workers = pool.broadcast(|_| Mutex::new(make()));
        Ok(Self { threads: pool, workers })
    }

    /// Number of threads.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Calls `visit` once for each item, on any thread and in any order, until one fails.
    ///
    /// # Errors
    /// The error of one visit that failed. Items whose visit had not begun by then are not visited.
    pub fn walk<T: Sync, E: Send>(
        &self,
        items: &[T],
        visit: impl Fn(&mut W, &T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let next = AtomicUsize::new(0);
        let results = self.threads.broadcast(|context| {
            // Uncontended: each thread has its own. A panic in an earlier walk left scratch memory, which has no state.
            let mut worker = lock(&self.workers[context.index()]);
            while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
                if let Err(error) = visit(&mut worker, item) {
                    next.store(items.len(), Ordering::Relaxed);
                    return Err(error);
                }
            }
            Ok(())
        });
        results.into_iter().collect()
    }

    /// As [`Walker::walk`], for items that `visit` takes by value, such as slices of memory to write to.
    ///
    /// # Errors
    /// As for [`Walker::walk`].
    pub fn walk_owned<T: Send, E: Send>(
        &self,
        items: Vec<T>,
        visit: impl Fn(&mut W, T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let items: Vec<Mutex<Option<T>>> = items.into_iter().map(|item| Mutex::new(Some(item))).collect();
        self.walk(&items, |worker, item| {
            let item = lock(item).take();
            visit(worker, item.expect("each item is visited once"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_item_is_visited_once() {
        let walker = Walker::new(3, || 0_u64).unwrap();
        let items: Vec<AtomicU64> = (0..1000).map(|_| AtomicU64::new(0)).collect();
        for round in 1..=2 {
            walker
                .walk(&items, |visits, item| {
                    *visits += 1;
                    item.fetch_add(1, Ordering::Relaxed);
                    Ok::<(), ()>(())
                })
                .unwrap();
            assert!(items.iter().all(|item| item.load(Ordering::Relaxed) == round));
        }
        let visits: u64 = walker.workers.iter().map(|worker| *worker.lock().unwrap()).sum();
        assert_eq!(visits, 2000);
    }

    #[test]
    fn a_failure_ends_the_walk() {
        let walker = Walker::new(2, || ()).unwrap();
        let visited = AtomicUsize::new(0);
        let items: Vec<usize> = (0..100_000).collect();
        let result = walker.walk(&items, |(), item| {
            visited.fetch_add(1, Ordering::Relaxed);
            if *item == 10 { Err(*item) } else { Ok(()) }
        });
        assert_eq!(result, Err(10));
        assert!(visited.load(Ordering::Relaxed) < items.len());
    }
}
