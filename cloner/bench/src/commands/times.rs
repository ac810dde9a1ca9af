//! Times, in the form in which the benches report them.

use std::time::Duration;

use serde::Serialize;

use crate::measure::percentile;

/// Percentiles of how long something took, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Milliseconds {
    /// Half of the times are at most this long.
    pub(super) p50: f64,
    /// 99 of 100 times are at most this long.
    pub(super) p99: f64,
    /// The longest time.
    pub(super) max: f64,
}

impl Milliseconds {
    /// The percentiles of these times, of which there must be at least one.
    pub(super) fn of(times: &[Duration]) -> Self {
        let mut sorted = times.to_vec();
        sorted.sort_unstable();
        let at = |percent| milliseconds(percentile(&sorted, percent));
        Self { p50: at(50), p99: at(99), max: at(100) }
    }
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
