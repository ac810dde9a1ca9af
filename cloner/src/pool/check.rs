//! The pool's books, audited against each other.

use std::sync::Arc;

use super::extents::Extents;
use super::stored::Stored;

/// What a check counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReport {
    /// Extents in use, whether visible, removed but still held, or not yet sealed.
    pub extents: usize,
    /// Bytes they occupy.
    pub used_bytes: usize,
    /// Free ranges, of which no two are adjacent.
    pub free_ranges: usize,
    /// Bytes they have.
    pub free_bytes: usize,
    /// Visible snapshots, each extent of which is in use.
    pub snapshots: usize,
}

/// A contradiction in the pool's books: a defect of this program or of the host's memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    /// Used and free ranges overlap, leave a gap, or end before or behind the arena.
    #[error("the next range should begin at {expected:#x} and begins at {found:#x}")]
    NotTiled {
        /// Where the range before it ends.
        expected: usize,
        /// Where the next one begins, or the arena ends.
        found: usize,
    },
    /// Two free ranges touch, so that neither is as long as it could be.
    #[error("two free ranges meet at {at:#x}")]
    NotMerged {
        /// Where.
        at: usize,
    },
    /// The free ranges by length are not those by place.
    #[error("the free ranges by length are not the free ranges by place")]
    FreeOrdersDiffer,
    /// A running total is not the sum of its parts.
    #[error("{booked} bytes are booked as {what}, the ranges have {counted}")]
    Total {
        /// Which total.
        what: &'static str,
        /// The running total.
        booked: usize,
        /// The sum.
        counted: usize,
    },
    /// More is promised than there is.
    #[error("{promised_bytes} bytes are promised, {free_bytes} are free")]
    Overpromised {
        /// Promised to reservations.
        promised_bytes: usize,
        /// Free.
        free_bytes: usize,
    },
    /// A visible snapshot has an extent that is not booked as in use.
    #[error("snapshot {name:?} has {occupied_bytes} bytes at {start:#x} that are not booked as in use")]
    NotLive {
        /// The snapshot.
        name: String,
        /// The extent's place.
        start: usize,
        /// The extent's length.
        occupied_bytes: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Free,
    Live,
}

/// Checks `extents` and the `snapshots` in them, which the caller holds so that they stay while it lasts.
///
/// Takes time in proportion to the number of extents, and holds their lock meanwhile.
pub(super) fn check(extents: &Extents, snapshots: &[Arc<Stored>]) -> Result<CheckReport, Inconsistency> {
    let state = extents.lock();

    let mut ranges: Vec<(usize, usize, Use)> =
        state.live.iter().map(|(&start, &len_bytes)| (start, len_bytes, Use::Live)).collect();
    ranges.extend(state.free.ranges().map(|(start, len_bytes)| (start, len_bytes, Use::Free)));
    ranges.sort_unstable();

    let mut end = 0;
    let mut last = Use::Live;
    let (mut used_bytes, mut free_bytes) = (0, 0);
    for &(start, len_bytes, kind) in &ranges {
        if start != end {
            return Err(Inconsistency::NotTiled { expected: end, found: start });
        }
        if (last, kind) == (Use::Free, Use::Free) {
            return Err(Inconsistency::NotMerged { at: start });
        }
        match kind {
            Use::Free => free_bytes += len_bytes,
            Use::Live => used_bytes += len_bytes,
        }
        end += len_bytes;
        last = kind;
    }
    if end != extents.capacity_bytes() {
        return Err(Inconsistency::NotTiled { expected: end, found: extents.capacity_bytes() });
    }

    if !state.free.agree() {
        return Err(Inconsistency::FreeOrdersDiffer);
    }
    for (what, booked, counted) in
        [("used", state.live_bytes, used_bytes), ("free", state.free.total_bytes(), free_bytes)]
    {
        if booked != counted {
            return Err(Inconsistency::Total { what, booked, counted });
        }
    }
    if state.promised_bytes > free_bytes {
        return Err(Inconsistency::Overpromised { promised_bytes: state.promised_bytes, free_bytes });
    }

    for stored in snapshots {
        for extent in stored.extents() {
            let (start, occupied_bytes) = (extent.start(), extent.occupied_bytes());
            if state.live.get(&start) != Some(&occupied_bytes) {
                return Err(Inconsistency::NotLive { name: stored.name().to_owned(), start, occupied_bytes });
            }
        }
    }

    let (extents, free_ranges) = (state.live.len(), state.free.ranges().len());
    Ok(CheckReport { extents, used_bytes, free_ranges, free_bytes, snapshots: snapshots.len() })
}
