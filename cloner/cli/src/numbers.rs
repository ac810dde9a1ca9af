//! Arithmetic on measurements.

use std::time::Duration;

use cloner_codec::chunk::PageKind;
use cloner_codec::hot::ChunkStats;
use serde::Serialize;

/// How many pages were coded in each way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[expect(missing_docs, reason = "the kinds of `PageKind`")]
pub struct PageCounts {
    pub zero: u64,
    pub fill: u64,
    pub dup: u64,
    pub parent: u64,
    pub patch: u64,
    pub word_marked: u64,
    pub byte_marked: u64,
    pub raw: u64,
}

impl PageCounts {
    /// The counts of an image, all pages of which count as touched.
    #[must_use]
    pub fn of(stats: &ChunkStats) -> Self {
        let pages = |kind| stats[kind].pages;
        Self {
            zero: pages(PageKind::Untouched) + pages(PageKind::Zero),
            fill: pages(PageKind::Fill),
            dup: pages(PageKind::Dup),
            parent: pages(PageKind::Parent),
            patch: pages(PageKind::Patch),
            word_marked: pages(PageKind::WordMarked),
            byte_marked: pages(PageKind::ByteMarked),
            raw: pages(PageKind::Raw),
        }
    }

    /// Number of pages that no page marker stands for, so that their vectors are coded.
    #[must_use]
    pub const fn unique(&self) -> u64 {
        self.word_marked + self.byte_marked + self.raw
    }
}

/// Converts a number for people, to whom the last digits of large numbers do not matter.
#[must_use]
pub fn as_f64(number: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a number for people")]
    let number = number as f64;
    number
}

/// `left` divided by `right`; `None` if `right` is zero.
#[must_use]
pub fn quotient(left: u64, right: u64) -> Option<f64> {
    (right > 0).then(|| as_f64(left) / as_f64(right))
}

/// Speed in units of 10⁹ bytes per second; `None` if there are no bytes or no time has passed.
#[must_use]
pub fn gigabytes_per_second(bytes: u64, time: Duration) -> Option<f64> {
    let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    quotient(bytes, nanoseconds).filter(|_| bytes > 0)
}

/// The middle of the times, or the mean of the two in the middle; zero if there are none.
#[must_use]
pub fn median(times: &[Duration]) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let middle = sorted.len() / 2;
    match sorted[..] {
        [] => Duration::ZERO,
        _ if sorted.len().is_multiple_of(2) => (sorted[middle - 1] + sorted[middle]) / 2,
        _ => sorted[middle],
    }
}

/// The smallest value that `percent` of all values do not exceed; zero if there are none.
///
/// # Panics
/// If `percent` is more than 100.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    assert!(percent <= 100, "{percent} of 100");
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or_default()
}
