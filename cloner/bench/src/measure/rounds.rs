//! Times passes over many bytes in interleaved rounds.

use std::time::{Duration, Instant};

use cloner_codec::chunk::PAGE_BYTES;

use cloner::progress::Watch;

use super::{Error, buffer, gigabytes_per_second, median};

type Work<'a> = Box<dyn FnMut(&mut [u8]) -> Result<(), Error> + 'a>;

/// Passes that are timed against each other.
#[derive(Default)]
pub(crate) struct Rounds<'a> {
    passes: Vec<Pass<'a>>,
    target_bytes: usize,
}

/// Identifies one of the passes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PassId(usize);

struct Pass<'a> {
    name: String,
    bytes: usize,
    /// What must be in the target after the pass; `None` if the pass encodes.
    expected: Option<&'a [u8]>,
    work: Work<'a>,
    times: Vec<Duration>,
}

impl<'a> Rounds<'a> {
    /// Adds a pass that reads `bytes` bytes.
    pub(crate) fn encode(
        &mut self,
        name: impl Into<String>,
        bytes: usize,
        mut work: impl FnMut() -> Result<(), Error> + 'a,
    ) -> PassId {
        self.add(name.into(), bytes, None, Box::new(move |_| work()))
    }

    /// Adds a pass that writes `expected` to memory that may hold anything beforehand.
    pub(crate) fn decode(
        &mut self,
        name: impl Into<String>,
        expected: &'a [u8],
        work: impl FnMut(&mut [u8]) -> Result<(), Error> + 'a,
    ) -> PassId {
        self.target_bytes = self.target_bytes.max(expected.len());
        self.add(name.into(), expected.len(), Some(expected), Box::new(work))
    }

    fn add(&mut self, name: String, bytes: usize, expected: Option<&'a [u8]>, work: Work<'a>) -> PassId {
        self.passes.push(Pass { name, bytes, expected, work, times: Vec::new() });
        PassId(self.passes.len() - 1)
    }

    /// Number of bytes that all passes of this many rounds work on.
    #[must_use]
    pub(crate) fn bytes(&self, rounds: usize) -> u64 {
        let round: u64 = self.passes.iter().map(|pass| pass.bytes as u64).sum();
        // One more, because the first round warms up.
        round * (rounds as u64 + 1)
    }

    /// Runs every pass once without timing it, checks what it has decoded, then runs `rounds` timed rounds of all passes.
    ///
    /// All passes decode into the same memory, so that they have equal conditions.
    ///
    /// # Errors
    /// The error of a pass; [`Error::NotEqual`] if it decodes other bytes; or [`Error::Cancelled`].
    pub(crate) fn run(&mut self, rounds: usize, watch: Watch<'_>) -> Result<(), Error> {
        let mut target = buffer::TargetBuffer::new(self.target_bytes);
        for pass in &mut self.passes {
            // The pass before may have decoded exactly the bytes that this one must decode.
            target.fill(buffer::POISON);
            let len = pass.target_bytes();
            (pass.work)(&mut target[..len])?;
            pass.check(&target)?;
        }
        for _ in 0..rounds {
            for pass in &mut self.passes {
                let target = &mut target[..pass.target_bytes()];
                let started = Instant::now();
                (pass.work)(target)?;
                pass.times.push(started.elapsed());
                if watch.is_cancelled() {
                    return Err(Error::Cancelled);
                }
            }
        }
        Ok(())
    }

    /// Median speed of a pass in 10⁹ bytes per second; `None` if it had nothing to do.
    ///
    /// # Panics
    /// If the pass belongs to another [`Rounds`] that has more passes.
    #[must_use]
    pub(crate) fn gigabytes_per_second(&self, PassId(pass): PassId) -> Option<f64> {
        let Pass { bytes, times, .. } = &self.passes[pass];
        gigabytes_per_second(*bytes as u64, median(times))
    }
}

impl Pass<'_> {
    fn target_bytes(&self) -> usize {
        self.expected.map_or(0, <[u8]>::len)
    }

    fn check(&self, target: &[u8]) -> Result<(), Error> {
        let Some(expected) = self.expected else { return Ok(()) };
        let pages = expected.chunks(PAGE_BYTES).zip(target.chunks(PAGE_BYTES));
        match pages.enumerate().find(|(_, (expected, decoded))| expected != decoded) {
            None => Ok(()),
            Some((page, _)) => Err(Error::NotEqual { what: self.name.clone(), page }),
        }
    }
}

impl std::fmt::Debug for Rounds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.passes.iter().map(|pass| &pass.name)).finish()
    }
}
