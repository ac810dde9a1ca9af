//! How fast a device writes, and seconds as floating-point numbers.

use std::time::Duration;

/// Measured at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rate {
    /// Sequential writing.
    pub bytes_per_second: f64,
    /// Creating, syncing and committing one file, beside its bytes.
    pub commit: Duration,
}

impl Rate {
    /// Time for one file of `bytes` bytes.
    #[must_use]
    pub fn time_for(&self, bytes: u64) -> Duration {
        seconds(as_f64(bytes) / self.bytes_per_second) + self.commit
    }
}

/// A duration of any number of seconds: zero if it is negative or not a number, and the longest there is if it does not fit.
pub(crate) fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or(if seconds > 0.0 { Duration::MAX } else { Duration::ZERO })
}

pub(crate) fn as_f64(bytes: u64) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
    let bytes = bytes as f64;
    bytes
}
