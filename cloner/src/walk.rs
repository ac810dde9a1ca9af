//! Processes many chunks in parallel, with scratch memory that is kept from one operation to the next.
//!
//! [`Threads`] are started once and shared by all the tools of a program. A [`Walker`] is what one tool has on them: a worker for
//! each thread, made before the source is paused, because touching the workers' scratch memory for the first time would cost
//! milliseconds inside the pause. A thread takes the next item when it has finished one, so cheap and expensive chunks are spread
//! evenly over the threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use crate::sync::lock;

/// Worker threads that several tools share. A clone of this is another handle to the same threads, which end with the last one.
///
/// Only one operation at a time works on them. A walk occupies all of the threads until it ends, and so does making a tool, so two
/// operations on the same threads wait for each other, even if they belong to different tools. What runs in the background
/// while something else has to be fast needs threads of its own.
#[derive(Debug, Clone)]
pub struct Threads {
    pool: Arc<rayon::ThreadPool>,
}

/// The worker threads could not be started.
#[derive(Debug, thiserror::Error)]
#[error("cannot start {threads} worker threads")]
pub struct StartError {
    threads: usize,
    source: rayon::ThreadPoolBuildError,
}

impl Threads {
    /// Starts `count` threads.
    ///
    /// # Errors
    /// [`StartError`] if they cannot be started.
    ///
    /// # Panics
    /// If `count` is zero, for which rayon would choose a number of its own.
    pub fn new(count: usize) -> Result<Self, StartError> {
        assert!(count > 0, "a walk needs a thread");
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(count)
            .thread_name(|index| format!("walk-{index}"))
            .build()
            .map_err(|source| StartError { threads: count, source })?;
        Ok(Self { pool: Arc::new(pool) })
    }

    /// Number of threads.
    #[must_use]
    pub fn count(&self) -> usize {
        self.pool.current_num_threads()
    }
}

/// A worker for each of some [`Threads`].
#[derive(Debug)]
pub struct Walker<W> {
    threads: Threads,
    workers: Vec<Mutex<W>>,
}

impl<W: Send> Walker<W> {
    /// Makes a worker for each thread, on the thread that will use it. Waits for a walk that is under way on `threads`.
    pub fn new(threads: &Threads, make: impl Fn() -> W + Sync) -> Self {
        let workers = threads.pool.broadcast(|_| Mutex::new(make()));
        Self { threads: threads.clone(), workers }
    }

    /// Number of threads.
    #[must_use]
    pub const fn threads(&self) -> usize {
        self.workers.len()
    }

    /// Calls `visit` once for each item, on any thread and in any order, until one fails. `visit` must not walk on the same threads.
    ///
    /// # Errors
    /// The error of one visit that failed. Items whose visit had not begun by then are not visited.
    pub fn walk<T: Sync, E: Send>(
        &self,
        items: &[T],
        visit: impl Fn(&mut W, &T) -> Result<(), E> + Sync,
    ) -> Result<(), E> {
        let next = AtomicUsize::new(0);
        let results = self.threads.pool.broadcast(|context| {
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
    use std::sync::atomic::AtomicU64;
    use std::thread::{self, ThreadId};

    use super::*;

    #[test]
    fn every_item_is_visited_once() {
        let walker = Walker::new(&Threads::new(3).unwrap(), || 0_u64);
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
        let walker = Walker::new(&Threads::new(2).unwrap(), || ());
        let visited = AtomicUsize::new(0);
        let items: Vec<usize> = (0..100_000).collect();
        let result = walker.walk(&items, |(), item| {
            visited.fetch_add(1, Ordering::Relaxed);
            if *item == 10 { Err(*item) } else { Ok(()) }
        });
        assert_eq!(result, Err(10));
        assert!(visited.load(Ordering::Relaxed) < items.len());
    }

    #[test]
    fn tools_share_threads_and_each_worker_stays_on_the_thread_that_made_it() {
        let threads = Threads::new(2).unwrap();
        let walkers: [Walker<ThreadId>; 2] =
            std::array::from_fn(|_| Walker::new(&threads, || thread::current().id()));
        let ids = |walker: &Walker<ThreadId>| -> Vec<ThreadId> {
            walker.workers.iter().map(|worker| *worker.lock().unwrap()).collect()
        };
        assert_eq!(ids(&walkers[0]), ids(&walkers[1]));
        assert_ne!(ids(&walkers[0])[0], ids(&walkers[0])[1]);
        let items: Vec<usize> = (0..1000).collect();
        // At the same time, so that the walks alternate.
        thread::scope(|scope| {
            for walker in &walkers {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let visit = |made_on: &mut ThreadId, item: &usize| {
                            if thread::current().id() == *made_on { Ok(()) } else { Err(*item) }
                        };
                        walker.walk(&items, visit).unwrap();
                    }
                });
            }
        });
    }
}
