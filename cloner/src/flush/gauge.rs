//! Estimates what the flush device can do from what it did last.
//!
//! There are two numbers: bytes per second while writing, and seconds for making one file durable at all. A slower reading is
//! believed at once, a faster one little by little: the battery's budget is only as good as this estimate.

use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use crate::rate::{Rate, as_f64, seconds};
use crate::sync::lock;

/// Keeps the estimated rate. Any thread may report to it.
#[derive(Debug)]
pub struct Gauge {
    readings: Mutex<Readings>,
    /// How many bytes must be written before they say anything about the device.
    sample_bytes: u64,
}

#[derive(Debug)]
struct Readings {
    rate: Rate,
    /// Bytes that were written and not yet evaluated.
    bytes: u64,
    time: Duration,
}

/// How far a better reading moves the estimate towards itself.
const OPTIMISM: f64 = 0.25;

impl Gauge {
    /// Makes a gauge that starts with `rate`, and evaluates writes once they add up to `sample_bytes`.
    #[must_use]
    pub fn new(rate: Rate, sample_bytes: u64) -> Self {
        Self { readings: Mutex::new(Readings { rate, bytes: 0, time: Duration::ZERO }), sample_bytes }
    }

    /// The rate as estimated now.
    pub fn rate(&self) -> Rate {
        self.lock().rate
    }

    /// Reports that `bytes` bytes were written in `time`.
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

    /// Reports a measurement made on purpose. It is believed like any other reading.
    pub(super) fn measured(&self, Rate { bytes_per_second, commit }: Rate) {
        let rate = &mut self.lock().rate;
        let known = rate.bytes_per_second;
        rate.bytes_per_second = bytes_per_second.min(known + (bytes_per_second - known) * OPTIMISM);
        let known = rate.commit.as_secs_f64();
        rate.commit = seconds(commit.as_secs_f64().max(known + (commit.as_secs_f64() - known) * OPTIMISM));
    }

    /// Forgets all readings and starts again with `rate`, because the device is another one.
    pub(super) fn reset(&self, rate: Rate) {
        *self.lock() = Readings { rate, bytes: 0, time: Duration::ZERO };
    }

    /// Reports that making a file durable took `time`, not counting its bytes.
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
