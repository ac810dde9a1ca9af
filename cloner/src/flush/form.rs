//! Chooses the form that is safe sooner: hot, as the chunks are in the pool, or cold.
//!
//! The hot form costs nothing but its bytes. The cold form has fewer bytes, but each chunk must be decoded and compressed first,
//! while the device writes the ones before it; so it takes the longer of both times. What compressing costs and saves is measured
//! on a few chunks of the snapshot itself, unless the snapshot is too small for the choice to matter.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::transcoder::Transcoder;
use super::{Error, Form};
use crate::battery::Clock;
use crate::pool::StoredSnapshot;
use crate::rate::{Rate, as_f64, seconds};
use crate::walk::Walker;

/// A snapshot whose hot form takes less time to write than this is written hot, without measuring.
const NOT_WORTH_A_LOOK: Duration = Duration::from_millis(100);
/// Number of chunks to measure, per thread.
const SAMPLES: usize = 1;

/// The form that was chosen, and why.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FormChoice {
    /// The form that was chosen.
    pub form: Form,
    /// Expected time to write the snapshot hot, at the device's rate.
    pub hot: Duration,
    /// Expected time to transcode and write the snapshot cold; `None` if that was not measured.
    pub cold: Option<Duration>,
}

/// Sizes of a sample before and after transcoding, and the time that took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sample {
    pub(super) hot_bytes: u64,
    pub(super) cold_bytes: u64,
    pub(super) time: Duration,
}

/// Chooses the form for a snapshot that has `hot_bytes` bytes in its hot form. Without a sample, that is hot.
pub(super) fn choose(rate: Rate, hot_bytes: u64, sample: Option<Sample>) -> FormChoice {
    let hot = seconds(as_f64(hot_bytes) / rate.bytes_per_second);
    let Some(Sample { hot_bytes: sampled, cold_bytes, time }) = sample.filter(|sample| sample.hot_bytes > 0)
    else {
        return FormChoice { form: Form::Hot, hot, cold: None };
    };
    let scale = as_f64(hot_bytes) / as_f64(sampled);
    let written = seconds(as_f64(cold_bytes) * scale / rate.bytes_per_second);
    let cold = written.max(seconds(time.as_secs_f64() * scale));
    FormChoice { form: if cold < hot { Form::Cold } else { Form::Hot }, hot, cold: Some(cold) }
}

/// Chooses the form for a snapshot, and measures a sample first if the choice matters.
pub(super) fn choose_for(
    stored: &StoredSnapshot,
    rate: Rate,
    walker: &Walker<Transcoder>,
    clock: &dyn Clock,
) -> Result<FormChoice, Error> {
    let hot_bytes = stored.len_bytes() as u64;
    if seconds(as_f64(hot_bytes) / rate.bytes_per_second) < NOT_WORTH_A_LOOK {
        return Ok(choose(rate, hot_bytes, None));
    }
    let chunks = stored.chunks();
    let samples = (walker.threads() * SAMPLES).min(chunks.len()).max(1);
    let sampled: Vec<_> = chunks.iter().step_by(chunks.len().div_ceil(samples).max(1)).collect();
    let cold_bytes = AtomicU64::new(0);
    let started = clock.now();
    walker.walk(&sampled, |transcoder, chunk| {
        let cold = transcoder.cold_form(stored, chunk)?;
        cold_bytes.fetch_add(cold.len() as u64, Ordering::Relaxed);
        Ok::<(), Error>(())
    })?;
    let sample = Sample {
        hot_bytes: sampled.iter().map(|chunk| chunk.bytes().len() as u64).sum(),
        cold_bytes: cold_bytes.into_inner(),
        time: clock.now().saturating_sub(started),
    };
    Ok(choose(rate, hot_bytes, Some(sample)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_form_is_the_one_that_is_safe_sooner() {
        let rate = |bytes_per_second| Rate { bytes_per_second, commit: Duration::ZERO };
        // The cold form has a third of the bytes; it is transcoded at 1000 bytes of the hot form per second.
        let sample = Some(Sample { hot_bytes: 300, cold_bytes: 100, time: Duration::from_millis(300) });
        for (device, form, cold) in
            [(10.0, Form::Cold, 100.0), (500.0, Form::Cold, 3.0), (2000.0, Form::Hot, 3.0)]
        {
            let choice = choose(rate(device), 3000, sample);
            assert_eq!((choice.form, choice.cold.unwrap().as_secs_f64()), (form, cold), "{device} bytes/s");
        }
        let grows = Some(Sample { hot_bytes: 100, cold_bytes: 120, time: Duration::ZERO });
        assert_eq!(choose(rate(10.0), 3000, grows).form, Form::Hot);
        assert_eq!(choose(rate(10.0), 3000, None).form, Form::Hot);
    }
}
