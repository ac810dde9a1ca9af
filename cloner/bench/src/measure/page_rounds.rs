//! Times single pages in random order, each by itself.

use std::time::{Duration, Instant};

use cloner_codec::chunk::{PAGE_BYTES, Page};

use cloner::progress::Watch;

use super::percentile;
use super::{Error, PageTimes, advance, buffer, median};

/// Most pages decoded per round: enough for a reproducible 99th percentile.
const PAGES_MAX: usize = 8192;
/// Number of pairs of clock readings, taken to learn what a reading costs.
const CLOCK_PAIRS: usize = 1001;

type Work<'a> = Box<dyn FnMut(usize, &mut Page) -> Result<(), Error> + 'a>;

/// Ways to decode single pages, timed against each other.
pub(crate) struct PageRounds<'a> {
    expected: &'a [u8],
    passes: Vec<Pass<'a>>,
}

/// Identifies one of the ways.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PagePassId(usize);

struct Pass<'a> {
    name: String,
    work: Work<'a>,
    /// The 50th percentile of each round.
    p50: Vec<Duration>,
    p99: Vec<Duration>,
}

impl<'a> PageRounds<'a> {
    /// Starts with no ways; each will have to decode these pages.
    #[must_use]
    pub(crate) fn new(expected: &'a [u8]) -> Self {
        Self { expected, passes: Vec::new() }
    }

    /// Adds a way to decode the page with a given number.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        work: impl FnMut(usize, &mut Page) -> Result<(), Error> + 'a,
    ) -> PagePassId {
        self.passes.push(Pass { name: name.into(), work: Box::new(work), p50: Vec::new(), p99: Vec::new() });
        PagePassId(self.passes.len() - 1)
    }

    /// Number of bytes that all passes of this many rounds work on.
    #[must_use]
    pub(crate) fn bytes(&self, rounds: usize) -> u64 {
        let pages = (self.expected.len() / PAGE_BYTES).min(PAGES_MAX);
        // One more, because the first round warms up.
        (pages * PAGE_BYTES * self.passes.len() * (rounds + 1)) as u64
    }

    /// Runs a round that checks what is decoded, then `rounds` timed rounds. In each, every pass decodes the same pages in the same
    /// random order to their places in one large memory: unless the image fits in a near cache, neither record nor place is there.
    ///
    /// The clock is read before and after each page. That takes time, which would count against a decoder that needs a microsecond.
    /// So what two readings with nothing between them take (the median in the same round) is subtracted from every time.
    ///
    /// # Errors
    /// The error of a pass; [`Error::NotEqual`] if it decodes other bytes; or [`Error::Cancelled`].
    pub(crate) fn run(&mut self, rounds: usize, watch: Watch<'_>) -> Result<(), Error> {
        let mut target = buffer::TargetBuffer::new(self.expected.len());
        let places: &mut [Page] = target.as_chunks_mut().0;
        let expected: &[Page] = self.expected.as_chunks().0;
        let mut order: Vec<usize> = (0..places.len()).collect();
        let mut times = Vec::with_capacity(PAGES_MAX);
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        for round in 0..=rounds {
            random.shuffle(&mut order);
            let order = &order[..order.len().min(PAGES_MAX)];
            for pass in &mut self.passes {
                if round == 0 {
                    order.iter().for_each(|&page| places[page].fill(buffer::POISON));
                }
                let clock = clock_cost();
                times.clear();
                for &page in order {
                    let started = Instant::now();
                    (pass.work)(page, &mut places[page])?;
                    times.push(started.elapsed().saturating_sub(clock));
                }
                if round == 0 {
                    pass.check(order, places, expected)?;
                } else {
                    times.sort_unstable();
                    pass.p50.push(percentile(&times, 50));
                    pass.p99.push(percentile(&times, 99));
                }
                advance(watch, order.len() * PAGE_BYTES)?;
            }
        }
        Ok(())
    }

    /// The medians of the rounds' percentiles; `None` if there were no pages.
    ///
    /// # Panics
    /// If the pass belongs to another [`PageRounds`] that has more passes.
    #[must_use]
    pub(crate) fn times(&self, PagePassId(pass): PagePassId) -> Option<PageTimes> {
        let Pass { p50, p99, .. } = &self.passes[pass];
        let microseconds = |times| median(times).as_secs_f64() * 1e6;
        (!self.expected.is_empty())
            .then(|| PageTimes { p50: microseconds(p50.as_slice()), p99: microseconds(p99.as_slice()) })
    }
}

impl Pass<'_> {
    fn check(&self, order: &[usize], places: &[Page], expected: &[Page]) -> Result<(), Error> {
        match order.iter().find(|&&page| places[page] != expected[page]) {
            None => Ok(()),
            Some(&page) => Err(Error::NotEqual { what: self.name.clone(), page }),
        }
    }
}

impl std::fmt::Debug for PageRounds<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.passes.iter().map(|pass| &pass.name)).finish()
    }
}

fn clock_cost() -> Duration {
    let pairs: Vec<Duration> = (0..CLOCK_PAIRS).map(|_| Instant::now().elapsed()).collect();
    median(&pairs)
}

/// xorshift64, which gives the same order in every run.
struct Random(u64);

impl Random {
    fn shuffle(&mut self, items: &mut [usize]) {
        for last in (1..items.len()).rev() {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            let other = usize::try_from(self.0 % (last as u64 + 1)).expect("at most `last`");
            items.swap(last, other);
        }
    }
}
