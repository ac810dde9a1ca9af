//! Times as the benches report them.

use std::time::Duration;

use serde::Serialize;

use crate::measure::percentile;

/// How long something took, in milliseconds.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct Milliseconds {
    /// Half of the times are no longer.
    pub(super) p50: f64,
    /// 99 of 100 are no longer.
    pub(super) p99: f64,
    /// None is longer.
    pub(super) max: f64,
}

impl Milliseconds {
    /// Of at least one time.
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
