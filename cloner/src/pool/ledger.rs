//! Bytes that exist in RAM only, and how many of them there may be.
//!
//! A battery can save only so many bytes, and the ledger keeps count of them. A put claims its bytes here before they go into
//! the pool; making them durable, or freeing them, drops the claim. The ledger knows neither battery nor disk; both only move
//! its limit.
//!
//! ```text
//!             claim(bytes)            mark_safe(), or freed
//!   Ledger ───────────────► Claim ─────────────────────────► Ledger
//!      ▲                    in the Reservation, then in the Stored
//!      └── set_limit(), close(), open(): the battery and the flush device
//! ```
//!
//! Lowering the limit takes nothing back: what was admitted stays, nothing more is admitted until there is room again, and
//! [`Ledger::wait_for_excess`] tells the flusher at once.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::sync::lock;

/// What may exist in RAM only. A snapshot costs its bytes, and `per_snapshot_bytes` for making it durable at all: the
/// bytes that could have been written in the time it takes to create, sync and commit one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UnflushedLimit {
    /// Bytes that may be claimed in all.
    pub bytes: u64,
    /// How many of these bytes each snapshot takes in addition to its own, whatever its size.
    pub per_snapshot_bytes: u64,
}

impl UnflushedLimit {
    /// The limit without a battery: nothing is promised, so nothing is refused.
    pub const NONE: Self = Self { bytes: u64::MAX, per_snapshot_bytes: 0 };
}

/// Why bytes were not admitted. Nothing was claimed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The unflushed bytes and the new ones together are more than the battery can save.
    #[error(
        "{wanted_bytes} bytes wanted, {unflushed_bytes} in {snapshots} snapshots are not on disk yet, \
         and the battery protects {limit_bytes}"
    )]
    OverBudget {
        /// Bytes asked for, including the fixed cost of the snapshot.
        wanted_bytes: u64,
        /// Bytes claimed already, including the fixed costs.
        unflushed_bytes: u64,
        /// Number of unflushed snapshots, that is, of claims.
        snapshots: u64,
        /// Bytes that may be claimed in all.
        limit_bytes: u64,
    },
    /// The mains have failed: nothing new is admitted until they are back.
    #[error("the host is not on mains power: nothing is admitted until it is again")]
    Closed,
}

/// The ledger's numbers at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LedgerUsage {
    /// Bytes claimed, including the fixed cost of each snapshot.
    pub unflushed_bytes: u64,
    /// Number of claims: one per snapshot that is in RAM only.
    pub snapshots: u64,
    /// Bytes that may be claimed in all; `u64::MAX` without a battery.
    pub limit_bytes: u64,
    /// Whether the ledger admits anything at present: it does unless it was closed.
    pub open: bool,
}

impl LedgerUsage {
    /// Bytes claimed beyond the limit, if it was lowered since. The battery does not protect these.
    #[must_use]
    pub const fn exposed_bytes(&self) -> u64 {
        self.unflushed_bytes.saturating_sub(self.limit_bytes)
    }
}

/// Counts unflushed bytes. Shared by the code that puts, flushes and removes snapshots.
#[derive(Debug)]
pub struct Ledger {
    books: Mutex<Books>,
    changed: Condvar,
}

#[derive(Debug)]
struct Books {
    limit: UnflushedLimit,
    open: bool,
    /// Bytes claimed, without the fixed cost of snapshots, since that changes with the limit.
    bytes: u64,
    snapshots: u64,
    /// Bytes that a put waits for, or zero. A flusher makes room for them.
    wanted_bytes: u64,
}

impl Ledger {
    /// Makes an open ledger without claims.
    #[must_use]
    pub fn new(limit: UnflushedLimit) -> Arc<Self> {
        let books = Books { limit, open: true, bytes: 0, snapshots: 0, wanted_bytes: 0 };
        Arc::new(Self { books: Mutex::new(books), changed: Condvar::new() })
    }

    /// Claims `bytes` for one snapshot, which may claim more later.
    ///
    /// # Errors
    /// [`Refusal::OverBudget`] if the limit does not allow them together with what is claimed; [`Refusal::Closed`] if the ledger
    /// is closed.
    pub fn claim(self: &Arc<Self>, bytes: u64) -> Result<Claim, Refusal> {
        let mut books = self.lock();
        books.admit(bytes, 1)?;
        Ok(Claim::new(self, bytes))
    }

    /// As [`Ledger::claim`], but waits until there is room. Meanwhile it calls `waiting` every now and then, which returns whether
    /// to go on.
    ///
    /// # Errors
    /// [`Refusal::Closed`] as soon as the ledger is closed; [`Refusal::OverBudget`] at once if the limit is too low even for an
    /// empty ledger, otherwise when `waiting` has returned `false`.
    pub fn claim_when_possible(
        self: &Arc<Self>,
        bytes: u64,
        mut waiting: impl FnMut(LedgerUsage) -> bool,
    ) -> Result<Claim, Refusal> {
        const INTERVAL: Duration = Duration::from_millis(20);
        let mut books = self.lock();
        loop {
            let refused = match books.admit(bytes, 1) {
                Ok(()) => break Ok(Claim::new(self, bytes)),
                Err(refused) => refused,
            };
            let never = bytes.saturating_add(books.limit.per_snapshot_bytes) > books.limit.bytes;
            let usage = books.usage();
            // Called without the lock, because it may take its time.
            books.wanted_bytes = bytes;
            drop(books);
            self.changed.notify_all();
            let go_on = !never && refused != Refusal::Closed && waiting(usage);
            books = self.lock();
            if !go_on {
                books.wanted_bytes = 0;
                break Err(refused);
            }
            books = self.wait(books, INTERVAL);
            books.wanted_bytes = 0;
        }
    }

    /// Replaces the limit. What is claimed stays claimed.
    pub fn set_limit(&self, limit: UnflushedLimit) {
        self.lock().limit = limit;
        self.changed.notify_all();
    }

    /// Makes the ledger admit nothing from here on.
    pub fn close(&self) {
        self.lock().open = false;
        self.changed.notify_all();
    }

    /// Makes the ledger admit again what the limit allows.
    pub fn open(&self) {
        self.lock().open = true;
        self.changed.notify_all();
    }

    /// The ledger's numbers at this moment.
    pub fn usage(&self) -> LedgerUsage {
        self.lock().usage()
    }

    /// Whether more than `share` of the limit is claimed, or a put waits for room that flushing can make.
    pub fn is_beyond(&self, share: f64) -> bool {
        self.lock().is_beyond(share)
    }

    /// Waits until there is a claim and either [`Ledger::is_beyond`] holds or the ledger is closed, but no longer than `timeout`.
    /// Returns whether that was the case.
    pub fn wait_for_excess(&self, share: f64, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        let mut books = self.lock();
        loop {
            if books.snapshots > 0 && (!books.open || books.is_beyond(share)) {
                return true;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            books = self.wait(books, left);
        }
    }

    /// Wakes every thread that waits for this ledger, so that it looks again.
    pub fn wake(&self) {
        self.changed.notify_all();
    }

    fn wait<'a>(&self, books: MutexGuard<'a, Books>, limit: Duration) -> MutexGuard<'a, Books> {
        let (books, _) = self.changed.wait_timeout(books, limit).unwrap_or_else(PoisonError::into_inner);
        books
    }

    /// Every change under the lock is complete, so a poisoned lock says nothing about the books.
    fn lock(&self) -> MutexGuard<'_, Books> {
        lock(&self.books)
    }
}

impl Books {
    fn usage(&self) -> LedgerUsage {
        let Self { limit, open, bytes, snapshots, .. } = *self;
        let beside = limit.per_snapshot_bytes.saturating_mul(snapshots);
        LedgerUsage {
            unflushed_bytes: bytes.saturating_add(beside),
            snapshots,
            limit_bytes: limit.bytes,
            open,
        }
    }

    fn is_beyond(&self, share: f64) -> bool {
        let LedgerUsage { unflushed_bytes, limit_bytes, .. } = self.usage();
        if limit_bytes == u64::MAX {
            return false;
        }
        #[expect(clippy::cast_precision_loss, reason = "a threshold, not a count")]
        let (claimed, limit) = (unflushed_bytes as f64, limit_bytes as f64);
        claimed > limit * share || (self.wanted_bytes > 0 && unflushed_bytes > 0)
    }

    fn admit(&mut self, bytes: u64, snapshots: u64) -> Result<(), Refusal> {
        if !self.open {
            return Err(Refusal::Closed);
        }
        let LedgerUsage { unflushed_bytes, limit_bytes, .. } = self.usage();
        let wanted_bytes = bytes.saturating_add(self.limit.per_snapshot_bytes.saturating_mul(snapshots));
        if unflushed_bytes.saturating_add(wanted_bytes) > limit_bytes {
            let snapshots = self.snapshots;
            return Err(Refusal::OverBudget { wanted_bytes, unflushed_bytes, snapshots, limit_bytes });
        }
        self.bytes += bytes;
        self.snapshots += snapshots;
        Ok(())
    }
}

/// Bytes of one snapshot that exist in RAM only; dropping it tells the ledger that they no longer do.
#[derive(Debug)]
#[must_use = "dropping it gives the bytes back"]
pub struct Claim {
    ledger: Arc<Ledger>,
    amount: Mutex<Amount>,
}

#[derive(Debug, Clone, Copy)]
struct Amount {
    /// Bytes claimed in the ledger.
    claimed: u64,
    /// How many of these bytes are in the pool by now.
    used: u64,
}

impl Claim {
    fn new(ledger: &Arc<Ledger>, claimed: u64) -> Self {
        Self { ledger: Arc::clone(ledger), amount: Mutex::new(Amount { claimed, used: 0 }) }
    }

    /// Takes `bytes` from what was claimed, and claims the rest if that was too little.
    ///
    /// # Errors
    /// [`Refusal::OverBudget`] if the rest cannot be claimed. [`Refusal::Closed`] after [`Ledger::close`], no matter what was
    /// claimed before.
    pub(super) fn take(&self, bytes: u64) -> Result<(), Refusal> {
        let mut amount = self.lock();
        let mut books = self.ledger.lock();
        if !books.open {
            return Err(Refusal::Closed);
        }
        let beyond = (amount.used + bytes).saturating_sub(amount.claimed);
        if beyond > 0 {
            books.admit(beyond, 0)?;
            amount.claimed += beyond;
        }
        amount.used += bytes;
        Ok(())
    }

    /// Gives back what was claimed and not used: the snapshot is complete.
    pub(super) fn settle(&self) {
        let mut amount = self.lock();
        self.ledger.lock().bytes -= amount.claimed - amount.used;
        amount.claimed = amount.used;
        self.ledger.changed.notify_all();
    }

    /// Number of claimed bytes that are in the pool.
    pub(super) fn used_bytes(&self) -> u64 {
        self.lock().used
    }

    fn lock(&self) -> MutexGuard<'_, Amount> {
        lock(&self.amount)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        let claimed = self.lock().claimed;
        let mut books = self.ledger.lock();
        books.bytes -= claimed;
        books.snapshots -= 1;
        drop(books);
        self.ledger.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limit(bytes: u64) -> UnflushedLimit {
        UnflushedLimit { bytes, per_snapshot_bytes: 10 }
    }

    #[test]
    fn claims_and_what_snapshots_cost_stay_within_the_limit() {
        let ledger = Ledger::new(limit(100));
        let first = ledger.claim(50).unwrap();
        let refused = ledger.claim(40).unwrap_err();
        let told =
            Refusal::OverBudget { wanted_bytes: 50, unflushed_bytes: 60, snapshots: 1, limit_bytes: 100 };
        assert_eq!(refused, told);
        let second = ledger.claim(30).unwrap();
        assert_eq!(ledger.usage().unflushed_bytes, 100);
        first.take(50).unwrap();
        assert!(matches!(first.take(1), Err(Refusal::OverBudget { wanted_bytes: 1, .. })));
        drop(second);
        first.take(40).unwrap();
        first.settle();
        assert_eq!((first.used_bytes(), ledger.usage().unflushed_bytes), (90, 100));
        drop(first);
        assert_eq!((ledger.usage().unflushed_bytes, ledger.usage().snapshots), (0, 0));
    }

    #[test]
    fn what_was_claimed_and_not_used_comes_back_when_settled() {
        let ledger = Ledger::new(limit(100));
        let claim = ledger.claim(90).unwrap();
        claim.take(20).unwrap();
        claim.settle();
        assert_eq!(ledger.usage().unflushed_bytes, 30);
        drop(ledger.claim(60).unwrap());
    }

    #[test]
    fn a_lower_limit_takes_nothing_back_and_lets_nothing_in() {
        let ledger = Ledger::new(limit(100));
        let claim = ledger.claim(50).unwrap();
        assert!(!ledger.wait_for_excess(1.0, Duration::ZERO));
        ledger.set_limit(limit(40));
        assert!(ledger.wait_for_excess(1.0, Duration::ZERO));
        assert_eq!(ledger.usage().exposed_bytes(), 20);
        assert!(ledger.claim(0).is_err());
        claim.take(50).unwrap();
    }

    #[test]
    fn a_closed_ledger_takes_nothing_not_even_what_was_claimed() {
        let ledger = Ledger::new(limit(100));
        let claim = ledger.claim(50).unwrap();
        ledger.close();
        assert_eq!(claim.take(1), Err(Refusal::Closed));
        assert_eq!(ledger.claim(1).unwrap_err(), Refusal::Closed);
        ledger.open();
        claim.take(1).unwrap();
    }

    #[test]
    fn whoever_waits_gets_room_as_soon_as_there_is_some() {
        let ledger = Ledger::new(limit(100));
        let claim = ledger.claim(90).unwrap();
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| ledger.claim_when_possible(60, |_| true));
            assert!(ledger.wait_for_excess(1.0, Duration::from_secs(60)), "the flusher is told");
            drop(claim);
            assert_eq!(waiter.join().unwrap().unwrap().lock().claimed, 60);
        });
        // A claim that can never be met is refused at once, and so is one that stops waiting.
        assert!(ledger.claim_when_possible(91, |_| unreachable!()).is_err());
        let _claim = ledger.claim(90).unwrap();
        assert!(ledger.claim_when_possible(1, |usage| usage.unflushed_bytes == 0).is_err());
    }
}
