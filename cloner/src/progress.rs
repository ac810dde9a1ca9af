//! How a caller follows a long operation, and how it stops one.
//!
//! [`Progress`] counts and [`Cancel`] stops; neither does the other's work. An operation gets those that its caller has in a
//! [`Watch`], or in the options that include one.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Counts how far a long operation has come.
#[derive(Debug, Default)]
pub struct Progress {
    total_bytes: AtomicU64,
    done_bytes: AtomicU64,
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

/// Cancels long operations, from any thread: all those that were given it, also if they begin later.
#[derive(Debug, Default)]
pub struct Cancel {
    cancelled: AtomicBool,
}

impl Cancel {
    /// A flag that is not set.
    #[must_use]
    pub const fn new() -> Self {
        Self { cancelled: AtomicBool::new(false) }
    }

    /// Stops the operations at their next chunk. Each undoes its effects and reports that it was cancelled.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// Whether [`cancel`](Self::cancel) was called.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

/// What a caller watches a long operation with. The default neither counts nor cancels.
#[derive(Debug, Clone, Copy, Default)]
pub struct Watch<'a> {
    progress: Option<&'a Progress>,
    cancel: Option<&'a Cancel>,
}

impl<'a> Watch<'a> {
    /// Counts in `progress` the bytes that are done.
    #[must_use]
    pub const fn progress(self, progress: &'a Progress) -> Self {
        Self { progress: Some(progress), ..self }
    }

    /// Lets the caller stop the operation with `cancel`.
    #[must_use]
    pub const fn cancel(self, cancel: &'a Cancel) -> Self {
        Self { cancel: Some(cancel), ..self }
    }

    /// For the operation: reports that it begins, with `total_bytes` to process.
    pub fn start(self, total_bytes: u64) {
        if let Some(progress) = self.progress {
            progress.start(total_bytes);
        }
    }

    /// For the operation: reports that `bytes` more bytes have been processed.
    pub fn add(self, bytes: u64) {
        if let Some(progress) = self.progress {
            progress.add(bytes);
        }
    }

    /// For the operation: whether it is to stop.
    #[must_use]
    pub fn is_cancelled(self) -> bool {
        self.cancel.is_some_and(Cancel::is_cancelled)
    }
}
