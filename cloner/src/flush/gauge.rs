//! What the flush device can do, by what it did last.
//!
//! Two numbers: bytes per second while writing, and seconds for making one file durable at all. A device that got slower is believed
//! at once, one that got faster by and by: the battery's budget is only as good as this.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::rate::{Rate, as_f64, seconds};
use crate::sync::lock;

/// Keeps the rate. Any thread may report to it.
#[derive(Debug)]
pub struct Gauge {
    readings: Mutex<Readings>,
    /// Fewer bytes say nothing about the device.
    sample_bytes: u64,
}

#[derive(Debug)]
struct Readings {
    rate: Rate,
    /// Written and not yet evaluated.
    bytes: u64,
    time: Duration,
}

/// How much of a better reading is believed.
const OPTIMISM: f64 = 0.25;

impl Gauge {
    /// A gauge that starts with `rate`, and evaluates writes when they add up to `sample_bytes`.
    #[must_use]
    pub fn new(rate: Rate, sample_bytes: u64) -> Self {
        Self { readings: Mutex::new(Readings { rate, bytes: 0, time: Duration::ZERO }), sample_bytes }
    }

    /// The rate as it is known now.
    pub fn rate(&self) -> Rate {
        self.lock().rate
    }

    /// So many bytes were written in such a time.
    pub(super) fn wrote(&self, bytes: u64, time: Duration) {
        let mut readings = self.lock();
        readings.bytes += bytes;
        readings.time += time;
        if readings.bytes >= self.sample_bytes && !readings.time.is_zero() {
            let found = as_f64(readings.bytes) / readings.time.as_secs_f64();
            let known = readings.rate.bytes_per_second;
            readings.rate.bytes_per_second = found.min(known + (found - known) * OPTIMISM);
            (readings.bytes, readings.time) = (0, Duration::ZERO);
        }
    }

    /// Believes a measurement made on purpose, as far as any.
    pub(super) fn measured(&self, Rate { bytes_per_second, commit }: Rate) {
        let rate = &mut self.lock().rate;
        let known = rate.bytes_per_second;
        rate.bytes_per_second = bytes_per_second.min(known + (bytes_per_second - known) * OPTIMISM);
        let known = rate.commit.as_secs_f64();
        rate.commit = seconds(commit.as_secs_f64().max(known + (commit.as_secs_f64() - known) * OPTIMISM));
    }

    /// Forgets what was, for a device that is another one.
    pub(super) fn reset(&self, rate: Rate) {
        *self.lock() = Readings { rate, bytes: 0, time: Duration::ZERO };
    }

    /// A file was made durable in such a time, beside its bytes.
    pub(super) fn committed(&self, time: Duration) {
        let rate = &mut self.lock().rate;
        let (found, known) = (time.as_secs_f64(), rate.commit.as_secs_f64());
        rate.commit = seconds(found.max(known + (found - known) * OPTIMISM));
    }

    fn lock(&self) -> MutexGuard<'_, Readings> {
        lock(&self.readings)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slower_is_believed_at_once_and_faster_by_and_by() {
        let start = Rate { bytes_per_second: 1000.0, commit: Duration::from_millis(10) };
        let gauge = Gauge::new(start, 100);
        gauge.wrote(99, Duration::from_secs(9));
        assert_eq!(gauge.rate(), start, "too little to say anything");
        gauge.wrote(1, Duration::from_secs(1));
        assert!((gauge.rate().bytes_per_second - 10.0).abs() < 1e-9);
        gauge.wrote(1000, Duration::from_secs(1));
        assert!((gauge.rate().bytes_per_second - 257.5).abs() < 1e-9);
        gauge.committed(Duration::from_millis(50));
        assert_eq!(gauge.rate().commit, Duration::from_millis(50));
        gauge.committed(Duration::from_millis(10));
        assert_eq!(gauge.rate().commit, Duration::from_millis(40));
    }
}
