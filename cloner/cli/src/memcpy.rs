//! Measures how fast the machine copies memory: the yardstick for encoding and decoding.

use std::hint::black_box;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

const ROUNDS: usize = 5;
/// More than any cache holds, and little enough to be copied in milliseconds.
const BYTES_PER_THREAD: usize = 64 << 20;

/// Bytes per second that `threads` threads copy together, each in memory of its own: the median of five rounds.
pub fn bytes_per_second(threads: usize) -> f64 {
    let barrier = Barrier::new(threads);
    let rounds: Vec<Vec<Duration>> = thread::scope(|scope| {
        let handles: Vec<_> = (0..threads).map(|_| scope.spawn(|| copy_rounds(&barrier))).collect();
        handles.into_iter().map(|handle| handle.join().expect("copying does not panic")).collect()
    });
    // A round takes as long as its slowest thread.
    let slowest = |round: usize| rounds.iter().map(|times| times[round]).max().unwrap_or_default();
    let mut times: Vec<Duration> = (0..ROUNDS).map(slowest).collect();
    times.sort_unstable();
    #[expect(clippy::cast_precision_loss, reason = "some hundred MiB")]
    let bytes = (BYTES_PER_THREAD * threads) as f64;
    bytes / times[ROUNDS / 2].as_secs_f64()
}

fn copy_rounds(barrier: &Barrier) -> Vec<Duration> {
    // Not zeros: both buffers must really be populated.
    let source = vec![1_u8; BYTES_PER_THREAD];
    let mut target = vec![2_u8; BYTES_PER_THREAD];
    (0..ROUNDS)
        .map(|_| {
            barrier.wait();
            let started = Instant::now();
            black_box(&mut target[..]).copy_from_slice(black_box(&source[..]));
            started.elapsed()
        })
        .collect()
}
