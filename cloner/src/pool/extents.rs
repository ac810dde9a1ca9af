//! Keeps track of which parts of the arena are in use, and hands out the others.
//!
//! Best fit with immediate merging: a request takes the shortest free range it fits in, the lowest of equals, and a
//! range that comes back is merged with free neighbours at once. Two free ranges are therefore never adjacent, and
//! there is at most one more of them than there are extents. That is the bound on fragmentation. How full a pool can be
//! before a chunk finds no place, while snapshots come and go, is measured by the test
//! `snapshots_that_come_and_go_leave_room`.
//!
//! One mutex guards all of it. It is held for a few steps in ordered maps and never while bytes are copied:
//! the test `a_put_is_dominated_by_its_copy` prints what that costs compared with a chunk's copy.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::{Error, PoolStats};
use crate::sync::lock;
use crate::sys::arena::Span;

/// Extents begin and end at multiples of this many bytes: a cache line, so that threads filling neighbours do not disturb
/// each other. The shortest extent occupies one granule.
pub const GRANULE: usize = 64;

/// The arena's bytes. Each is either free or owned by an [`Extent`].
pub(super) struct Extents {
    capacity_bytes: usize,
    state: Mutex<State>,
}

#[derive(Debug)]
pub(super) struct State {
    pub(super) free: FreeRanges,
    /// The ranges handed out, by start, with their lengths. The extents own these ranges; the check compares them with this map.
    pub(super) live: BTreeMap<usize, usize>,
    pub(super) live_bytes: usize,
    /// Free bytes that are promised to reservations. Never more than `free.total_bytes()`.
    pub(super) promised_bytes: usize,
}

impl Extents {
    pub(super) fn new(arena: Span) -> Arc<Self> {
        let capacity_bytes = arena.len_bytes();
        let mut free = FreeRanges::default();
        free.insert(arena);
        let state = State { free, live: BTreeMap::new(), live_bytes: 0, promised_bytes: 0 };
        Arc::new(Self { capacity_bytes, state: Mutex::new(state) })
    }

    pub(super) const fn capacity_bytes(&self) -> usize {
        self.capacity_bytes
    }

    /// The pool's sizes. The number of snapshots is known elsewhere and passed in.
    pub(super) fn stats(&self, snapshots: usize) -> PoolStats {
        let state = self.lock();
        PoolStats {
            capacity_bytes: self.capacity_bytes,
            used_bytes: state.live_bytes,
            free_bytes: state.free.total_bytes(),
            promised_bytes: state.promised_bytes,
            largest_free_bytes: state.free.largest_bytes(),
            extents: state.live.len(),
            snapshots,
        }
    }

    /// Sets `bytes` of the free memory aside for extents made through the returned promise.
    ///
    /// A promise covers an amount, not a place: free memory in small pieces can still be too scattered for a chunk.
    pub(super) fn promise(self: &Arc<Self>, bytes: usize) -> Result<Promise, Error> {
        let wanted = whole_granules(bytes);
        let mut state = self.lock();
        if wanted > state.unpromised_bytes() {
            return Err(self.full(&state, wanted, 0));
        }
        state.promised_bytes += wanted;
        Ok(Promise { extents: Arc::clone(self), left: AtomicUsize::new(wanted) })
    }

    /// Takes back the range of an extent that has ended: its bytes are free again.
    pub(super) fn give_back(&self, span: Span) {
        let mut state = self.lock();
        state.live.remove(&span.start());
        state.live_bytes -= span.len_bytes();
        state.free.insert(span);
    }

    /// Locks the books. Every change under the lock runs to its end, so a panic elsewhere in the program, which is all
    /// that a poisoned lock could report, leaves them in order.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    fn full(&self, state: &State, wanted_bytes: usize, own_promise: usize) -> Error {
        Error::Full {
            wanted_bytes,
            free_bytes: state.unpromised_bytes() + own_promise,
            capacity_bytes: self.capacity_bytes,
            largest_free_bytes: state.free.largest_bytes(),
        }
    }
}

/// Leaves out the ranges, because every extent would repeat them.
impl fmt::Debug for Extents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Extents").field("capacity_bytes", &self.capacity_bytes).finish_non_exhaustive()
    }
}

impl State {
    fn unpromised_bytes(&self) -> usize {
        self.free.total_bytes() - self.promised_bytes
    }
}

/// Free bytes that only the holder can turn into extents; dropping it releases what is left.
#[derive(Debug)]
pub(super) struct Promise {
    extents: Arc<Extents>,
    /// Read and written under the lock of `extents` only, which orders all accesses; an atomic because it is shared.
    left: AtomicUsize,
}

impl Promise {
    /// Copies `bytes` into a new extent, paid for by the promise and, once that is used up, from unpromised free memory.
    ///
    /// # Errors
    /// [`Error::Full`] if that is too little, or if no free range is long enough.
    pub(super) fn store(&self, bytes: &[u8]) -> Result<Extent, Error> {
        let mut span = self.take(occupied_bytes(bytes.len()))?;
        span.bytes_mut()[..bytes.len()].copy_from_slice(bytes);
        Ok(Extent { span, len_bytes: bytes.len(), extents: Arc::clone(&self.extents) })
    }

    /// Takes `wanted` bytes, which must be a multiple of the granule.
    pub(super) fn take(&self, wanted: usize) -> Result<Span, Error> {
        let mut state = self.extents.lock();
        let left = self.left.load(Ordering::Relaxed);
        let paid = left.min(wanted);
        let affordable = wanted - paid <= state.unpromised_bytes();
        let Some(span) = affordable.then(|| state.free.take(wanted)).flatten() else {
            return Err(self.extents.full(&state, wanted, left));
        };
        self.left.store(left - paid, Ordering::Relaxed);
        state.promised_bytes -= paid;
        state.live_bytes += wanted;
        state.live.insert(span.start(), wanted);
        Ok(span)
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        self.extents.lock().promised_bytes -= *self.left.get_mut();
    }
}

/// Bytes in the pool that no longer change; dropping it frees them.
#[derive(Debug)]
pub(super) struct Extent {
    /// The bytes, and the padding up to a whole granule after them. Only `drop` changes it.
    span: Span,
    len_bytes: usize,
    extents: Arc<Extents>,
}

impl Extent {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.span.bytes()[..self.len_bytes]
    }

    /// Offset of the extent in the arena, in bytes.
    pub(super) const fn start(&self) -> usize {
        self.span.start()
    }

    /// Bytes of the pool that the extent occupies, padding included.
    pub(super) const fn occupied_bytes(&self) -> usize {
        self.span.len_bytes()
    }
}

impl Drop for Extent {
    fn drop(&mut self) {
        self.extents.give_back(self.span.split_off(0));
    }
}

/// The free ranges, ordered by place and by length.
#[derive(Debug, Default)]
pub(super) struct FreeRanges {
    by_start: BTreeMap<usize, Span>,
    /// Length and start of each range.
    by_len: BTreeSet<(usize, usize)>,
    total_bytes: usize,
}

impl FreeRanges {
    pub(super) const fn total_bytes(&self) -> usize {
        self.total_bytes
    }

    pub(super) fn largest_bytes(&self) -> usize {
        self.by_len.last().map_or(0, |&(len_bytes, _)| len_bytes)
    }

    /// Start and length of each range, by ascending start.
    pub(super) fn ranges(&self) -> impl ExactSizeIterator<Item = (usize, usize)> {
        self.by_start.values().map(|span| (span.start(), span.len_bytes()))
    }

    /// Whether the two orders hold the same ranges.
    pub(super) fn agree(&self) -> bool {
        self.by_len.len() == self.by_start.len()
            && self.ranges().all(|(start, len_bytes)| self.by_len.contains(&(len_bytes, start)))
    }

    /// Takes `len_bytes` off the front of the shortest range that is long enough.
    fn take(&mut self, len_bytes: usize) -> Option<Span> {
        let &(_, start) = self.by_len.range((len_bytes, 0)..).next()?;
        let mut span = self.remove(start)?;
        let rest = span.split_off(len_bytes);
        if rest.len_bytes() > 0 {
            self.add(rest);
        }
        Some(span)
    }

    /// Adds a range, merging it with free neighbours.
    fn insert(&mut self, mut span: Span) {
        if let Some(next) = self.remove(span.end()) {
            span.join(next).expect("it starts where the span ends, in the only arena there is");
        }
        let previous = self.by_start.range(..span.start()).next_back();
        if let Some(start) =
            previous.filter(|(_, range)| range.end() == span.start()).map(|(&start, _)| start)
        {
            let mut merged = self.remove(start).expect("found in the line above");
            merged.join(span).expect("it ends where the span starts, in the only arena there is");
            span = merged;
        }
        self.add(span);
    }

    fn add(&mut self, span: Span) {
        self.total_bytes += span.len_bytes();
        self.by_len.insert((span.len_bytes(), span.start()));
        self.by_start.insert(span.start(), span);
    }

    fn remove(&mut self, start: usize) -> Option<Span> {
        let span = self.by_start.remove(&start)?;
        self.by_len.remove(&(span.len_bytes(), start));
        self.total_bytes -= span.len_bytes();
        Some(span)
    }
}

/// Bytes that an extent of `len_bytes` occupies: even an empty one has a place of its own.
fn occupied_bytes(len_bytes: usize) -> usize {
    whole_granules(len_bytes).max(GRANULE)
}

/// Rounds up to whole granules. Saturates for lengths that no arena can have.
const fn whole_granules(len_bytes: usize) -> usize {
    len_bytes.div_ceil(GRANULE).saturating_mul(GRANULE)
}

#[cfg(test)]
mod tests {
    use super::super::check::{Inconsistency, check};
    use super::*;
    use vmm::memory::PageSize;

    fn two_pages() -> Arc<Extents> {
        Extents::new(Span::map(8192, PageSize::Base).unwrap())
    }

    #[test]
    fn the_check_sees_free_ranges_that_were_not_merged() {
        let extents = two_pages();
        let mut front = extents.lock().free.remove(0).unwrap();
        let back = front.split_off(64);
        extents.lock().free.add(front);
        extents.lock().free.add(back);
        assert_eq!(check(&extents, &[]), Err(Inconsistency::NotMerged { at: 64 }));
    }

    #[test]
    fn the_check_sees_free_ranges_by_length_that_do_not_exist() {
        let extents = two_pages();
        extents.lock().free.by_len.insert((64, 0));
        assert_eq!(check(&extents, &[]), Err(Inconsistency::FreeOrdersDiffer));
    }

    #[test]
    fn the_check_sees_a_wrong_total_of_free_bytes() {
        let extents = two_pages();
        extents.lock().free.total_bytes += 64;
        let error = Inconsistency::Total { what: "free", booked: 8256, counted: 8192 };
        assert_eq!(check(&extents, &[]), Err(error));
    }
}
