//! Percentiles of repeated measurements.

use std::time::Duration;

use serde::Serialize;

use crate::measure::percentile;

/// Half of the measurements are at most `p50`, and 99 of 100 are at most `p99`; of fewer than 100, all are.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Spread {
    pub(super) p50: f64,
    pub(super) p99: f64,
}

impl Spread {
    /// The percentiles of these times, in `unit`s; `None` if there are no times.
    pub(super) fn of(times: &[Duration], unit: Duration) -> Option<Self> {
        let mut times = times.to_vec();
        times.sort_unstable();
        let at = |per_cent| percentile(&times, per_cent).div_duration_f64(unit);
        (!times.is_empty()).then(|| Self { p50: at(50), p99: at(99) })
    }

    pub(super) fn milliseconds(times: &[Duration]) -> Option<Self> {
        Self::of(times, Duration::from_millis(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_measurements() {
        let times = |numbers: &[u64]| numbers.iter().map(|ms| Duration::from_millis(*ms)).collect::<Vec<_>>();
        let spread =
            |numbers: &[u64]| Spread::milliseconds(&times(numbers)).map(|spread| (spread.p50, spread.p99));
        assert_eq!(spread(&[]), None);
        assert_eq!(spread(&[7]), Some((7.0, 7.0)));
        assert_eq!(spread(&[3, 1, 2]), Some((2.0, 3.0)));
        assert_eq!(spread(&(1..=200).collect::<Vec<_>>()), Some((100.0, 198.0)));
    }
}
