//! Checks the pool's books against each other.

use std::sync::Arc;

use super::extents::Extents;
use super::stored::StoredSnapshot;

/// What a check counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckReport {
    /// Number of extents in use, whether visible, removed but still held, or not yet published.
    pub extents: usize,
    /// Bytes that these extents occupy.
    pub used_bytes: usize,
    /// Number of free ranges. No two of them are adjacent.
    pub free_ranges: usize,
    /// Bytes in these free ranges.
    pub free_bytes: usize,
    /// Number of visible snapshots. All their extents are in use.
    pub snapshots: usize,
}

/// A contradiction in the pool's books: a defect of this program or of the host's memory.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Inconsistency {
    /// Used and free ranges overlap, leave a gap, or do not end where the arena ends.
    #[error("the next range should begin at {expected:#x}, but begins at {found:#x}")]
    NotTiled {
        /// Offset at which the preceding range ends.
        expected: usize,
        /// Offset at which the next range begins, or the arena ends.
        found: usize,
    },
    /// Two free ranges touch, so that neither is as long as it could be.
    #[error("two free ranges meet at {at:#x}")]
    NotMerged {
        /// Offset at which the second of them begins.
        at: usize,
    },
    /// The free ranges ordered by length are not the same as those ordered by place.
    #[error("the free ranges ordered by length are not the same as those ordered by place")]
    FreeOrdersDiffer,
    /// A running total is not the sum of its parts.
    #[error("{booked} bytes are booked as {what}, but the ranges have {counted}")]
    Total {
        /// Which total is meant: "used" or "free".
        what: &'static str,
        /// The running total, in bytes.
        booked: usize,
        /// The sum over all ranges, in bytes.
        counted: usize,
    },
    /// More is promised than is free.
    #[error("{promised_bytes} bytes are promised, but only {free_bytes} are free")]
    Overpromised {
        /// Bytes promised to reservations.
        promised_bytes: usize,
        /// Bytes in the free ranges.
        free_bytes: usize,
    },
    /// A visible snapshot has an extent that is not booked as in use.
    #[error("snapshot {name:?} has {occupied_bytes} bytes at {start:#x} that are not booked as in use")]
    NotLive {
        /// Name of the snapshot.
        name: String,
        /// Offset of the extent in the arena.
        start: usize,
        /// Bytes that the extent occupies.
        occupied_bytes: usize,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Use {
    Free,
    Live,
}

/// Checks `extents` and the `snapshots` in them. The caller holds the snapshots, so none of them is freed during the check.
///
/// Takes time in proportion to the number of extents, and holds their lock meanwhile.
pub(super) fn check(
    extents: &Extents,
    snapshots: &[Arc<StoredSnapshot>],
) -> Result<CheckReport, Inconsistency> {
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
