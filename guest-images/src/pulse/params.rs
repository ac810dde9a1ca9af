//! What the host asks the guest to do.

use super::Error;
use super::layout::{FILL_START, HIGH_START, PAGE_SIZE, PAGE_WORDS, offset, params as field};

/// The parameters that decide everything `pulse` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Params {
    /// A number that the guest moves to its memory and wipes from the image: a guest that knows it has that memory.
    pub nonce: u64,
    /// The number that all content of the filled memory derives from.
    pub seed: u64,
    /// Bytes to fill from [`FILL_START`] on, a multiple of the page size.
    pub touched_bytes: u64,
    /// What the filled pages hold.
    pub mix: Mix,
    /// Milliseconds between beats, up to 500,000. With 0 there are no beats, and a guest without work wakes up only for
    /// console input.
    pub beat_ms: u32,
    /// What the vCPUs do after the ready line.
    pub work: Work,
}

/// Thousandths of the filled pages by kind; they add up to 1000. A page's kind is drawn from its number and the seed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mix {
    /// Share of pages of zeros (written, so that the memory is there).
    pub zero: u16,
    /// Share of pages that repeat one word.
    pub fill: u16,
    /// Share of pages with one of sixteen structured contents.
    pub duplicate: u16,
    /// Share of pages of small integers, pointers, text and zeros.
    pub structured: u16,
    /// Share of pages that cannot be compressed.
    pub random: u16,
}

/// What the vCPUs do after the ready line, besides beats and commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// They sleep.
    Idle,
    /// They dirty the filled memory.
    Dirty(DirtyWork),
    /// They hold distinct values in all registers, compare them over and over, and report with every beat.
    SelfTest,
}

/// How memory is dirtied. Each vCPU has an equal slice of the working set to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirtyWork {
    /// How many pages are dirtied per second.
    pub rate: DirtyRate,
    /// Thousandths of the filled memory that are dirtied, from its start: 0 to 1000.
    pub working_set: u16,
    /// The order of the pages.
    pub order: WriteOrder,
    /// Words rewritten in a page, spread evenly over it: a power of two from 1 to 512.
    pub words_per_page: u16,
}

/// How fast pages are dirtied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DirtyRate {
    /// This many pages per second, for all vCPUs together, in steps of 10 ms.
    PagesPerSecond(u32),
    /// As many pages as the vCPUs can.
    FullSpeed,
}

/// Order of dirtying. Either way each page of a slice is written once per round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOrder {
    /// One page after the other.
    Sequential,
    /// In the order of a fixed permutation that looks random.
    Random,
}

/// Ticks per second while dirtying at a given rate.
const PACING_HZ: u64 = 100;
/// The LAPIC timer of KVM counts nanoseconds; the guest divides them by 128.
const TIMER_HZ: u64 = 1_000_000_000 / 128;
const MAX_BEAT_MS: u32 = 500_000;

impl Mix {
    /// All pages are structured.
    pub const STRUCTURED: Self = Self { zero: 0, fill: 0, duplicate: 0, structured: 1000, random: 0 };
    /// All pages are random.
    pub const RANDOM: Self = Self { zero: 0, fill: 0, duplicate: 0, structured: 0, random: 1000 };

    /// As measured of an idle Debian with services: 69 % zero, 1 % same-filled, 0.5 % duplicate, 30 %
    /// unique. Three quarters of the unique pages are structured, so that they pack about as well as Debian's.
    #[must_use]
    pub const fn realistic() -> Self {
        Self { zero: 685, fill: 10, duplicate: 5, structured: 225, random: 75 }
    }

    /// Upper ends of the first four kinds, on a scale of 0 to 1000.
    pub(super) fn ends(&self) -> [u64; 4] {
        let zero = u64::from(self.zero);
        let fill = zero + u64::from(self.fill);
        let duplicate = fill + u64::from(self.duplicate);
        [zero, fill, duplicate, duplicate + u64::from(self.structured)]
    }
}

impl Params {
    /// An idle guest that fills `touched_bytes` with the realistic mix and beats every 100 ms.
    #[must_use]
    pub const fn new(nonce: u64, touched_bytes: u64) -> Self {
        Self { nonce, seed: 1, touched_bytes, mix: Mix::realistic(), beat_ms: 100, work: Work::Idle }
    }

    /// Number of pages that the guest fills.
    #[must_use]
    pub const fn touched_pages(&self) -> u64 {
        self.touched_bytes / PAGE_SIZE
    }

    /// Number of pages that are dirtied, by all vCPUs together. Each of `n` vCPUs has an `n`th of them, rounded down.
    #[must_use]
    pub fn working_set_pages(&self) -> u64 {
        match self.work {
            Work::Dirty(dirty) => self.touched_pages() * u64::from(dirty.working_set) / 1000,
            Work::Idle | Work::SelfTest => 0,
        }
    }

    /// The guest-physical address of filled page `index` in a guest with `low_bytes` of memory below the MMIO gap.
    #[must_use]
    pub const fn page_address(low_bytes: u64, index: u64) -> u64 {
        let address = FILL_START + index * PAGE_SIZE;
        if address < low_bytes { address } else { address - low_bytes + HIGH_START }
    }

    /// The parameter block, as it stands in the image.
    ///
    /// # Errors
    /// [`Error`] names the parameter that is out of its range.
    pub(super) fn to_bytes(self) -> Result<[u8; 8 * field::FIELDS], Error> {
        self.check()?;
        let Pace { tick_count, ticks_per_beat, credit_per_tick, cost_per_cpu } = self.pace();
        let (random, words) = match self.work {
            Work::Dirty(dirty) => {
                (u64::from(dirty.order == WriteOrder::Random), u64::from(dirty.words_per_page))
            }
            Work::Idle | Work::SelfTest => (0, 1),
        };
        let [zero_end, fill_end, duplicate_end, structured_end] = self.mix.ends();
        let fields = [
            (field::NONCE, self.nonce),
            (field::SEED, self.seed),
            (field::TOUCHED_PAGES, self.touched_pages()),
            (field::ZERO_END, zero_end),
            (field::FILL_END, fill_end),
            (field::DUPLICATE_END, duplicate_end),
            (field::STRUCTURED_END, structured_end),
            (field::TICK_COUNT, tick_count),
            (field::TICKS_PER_BEAT, ticks_per_beat),
            (field::CREDIT_PER_TICK, credit_per_tick),
            (field::COST_PER_CPU, cost_per_cpu),
            (field::WORKING_SET_PAGES, self.working_set_pages()),
            (field::RANDOM_ORDER, random),
            (field::STRIDE, PAGE_SIZE / words),
            (field::SELF_TEST, u64::from(self.work == Work::SelfTest)),
        ];
        let mut bytes = [0; 8 * field::FIELDS];
        for (address, value) in fields {
            let at = offset(address, field::START);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        Ok(bytes)
    }

    fn check(&self) -> Result<(), Error> {
        if !self.touched_bytes.is_multiple_of(PAGE_SIZE) {
            return Err(Error::TouchedBytes(self.touched_bytes));
        }
        let Mix { zero, fill, duplicate, structured, random } = self.mix;
        let total: u32 = [zero, fill, duplicate, structured, random].map(u32::from).iter().sum();
        if total != 1000 {
            return Err(Error::Mix(total));
        }
        if self.beat_ms > MAX_BEAT_MS {
            return Err(Error::Beat(self.beat_ms));
        }
        if let Work::Dirty(DirtyWork { working_set, words_per_page, .. }) = self.work {
            if working_set > 1000 {
                return Err(Error::WorkingSet(working_set));
            }
            if !words_per_page.is_power_of_two() || usize::from(words_per_page) > PAGE_WORDS {
                return Err(Error::WordsPerPage(words_per_page));
            }
        }
        Ok(())
    }

    /// One timer drives both beats and paced dirtying: it ticks at the faster of the two.
    fn pace(&self) -> Pace {
        let beat_ms = u64::from(self.beat_ms);
        let per_beat = Pace {
            tick_count: TIMER_HZ * beat_ms / 1000,
            ticks_per_beat: 1,
            credit_per_tick: 0,
            // More than the credit that a vCPU which does not dirty memory ever has.
            cost_per_cpu: 1,
        };
        match self.work {
            Work::Idle | Work::SelfTest => per_beat,
            Work::Dirty(DirtyWork { rate: DirtyRate::FullSpeed, .. }) => Pace { cost_per_cpu: 0, ..per_beat },
            Work::Dirty(DirtyWork { rate: DirtyRate::PagesPerSecond(pages), .. }) => Pace {
                tick_count: TIMER_HZ / PACING_HZ,
                ticks_per_beat: if beat_ms == 0 { 0 } else { (beat_ms * PACING_HZ / 1000).max(1) },
                credit_per_tick: u64::from(pages),
                cost_per_cpu: PACING_HZ,
            },
        }
    }
}

/// How the guest keeps time. A tick adds to a vCPU's credit; each page takes away its cost, times the number of vCPUs.
struct Pace {
    tick_count: u64,
    ticks_per_beat: u64,
    credit_per_tick: u64,
    cost_per_cpu: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn field(bytes: &[u8; 8 * field::FIELDS], address: u64) -> u64 {
        let at = offset(address, field::START);
        u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap())
    }

    fn dirtying(rate: DirtyRate) -> Params {
        let work =
            Work::Dirty(DirtyWork { rate, working_set: 250, order: WriteOrder::Random, words_per_page: 8 });
        Params { work, beat_ms: 250, ..Params::new(7, 4000 * PAGE_SIZE) }
    }

    #[test]
    fn block_says_what_was_asked_for() {
        let bytes = dirtying(DirtyRate::PagesPerSecond(5000)).to_bytes().unwrap();
        for (address, value) in [
            (field::NONCE, 7),
            (field::TOUCHED_PAGES, 4000),
            (field::WORKING_SET_PAGES, 1000),
            (field::STRIDE, 512),
            (field::RANDOM_ORDER, 1),
            // 100 ticks per second, each worth 50 pages of one vCPU.
            (field::TICK_COUNT, 78_125),
            (field::TICKS_PER_BEAT, 25),
            (field::CREDIT_PER_TICK, 5000),
            (field::COST_PER_CPU, 100),
        ] {
            assert_eq!(field(&bytes, address), value, "at {address:#x}");
        }
    }

    #[test]
    fn only_paced_work_ticks_faster_than_it_beats() {
        for params in [
            dirtying(DirtyRate::FullSpeed),
            Params { work: Work::SelfTest, ..dirtying(DirtyRate::FullSpeed) },
        ] {
            let bytes = params.to_bytes().unwrap();
            assert_eq!(field(&bytes, field::TICK_COUNT), 78_125 * 25);
            assert_eq!(field(&bytes, field::TICKS_PER_BEAT), 1);
        }
        let silent = Params { beat_ms: 0, ..Params::new(1, 0) }.to_bytes().unwrap();
        assert_eq!(field(&silent, field::TICK_COUNT), 0);
    }

    #[test]
    fn the_longest_beat_fits_the_timer() {
        let bytes = Params { beat_ms: MAX_BEAT_MS, ..Params::new(1, 0) }.to_bytes().unwrap();
        assert!(u32::try_from(field(&bytes, field::TICK_COUNT)).is_ok());
    }

    #[test]
    fn what_is_out_of_range_is_named() {
        let good = dirtying(DirtyRate::FullSpeed);
        let Work::Dirty(dirty) = good.work else { unreachable!() };
        let with = |dirty| Params { work: Work::Dirty(dirty), ..good };
        for (params, error) in [
            (Params { touched_bytes: 4097, ..good }, Error::TouchedBytes(4097)),
            (Params { mix: Mix { zero: 1, ..Mix::RANDOM }, ..good }, Error::Mix(1001)),
            (Params { beat_ms: MAX_BEAT_MS + 1, ..good }, Error::Beat(500_001)),
            (with(DirtyWork { working_set: 1001, ..dirty }), Error::WorkingSet(1001)),
            (with(DirtyWork { words_per_page: 0, ..dirty }), Error::WordsPerPage(0)),
            (with(DirtyWork { words_per_page: 24, ..dirty }), Error::WordsPerPage(24)),
            (with(DirtyWork { words_per_page: 1024, ..dirty }), Error::WordsPerPage(1024)),
        ] {
            assert_eq!(params.to_bytes(), Err(error));
        }
    }

    #[test]
    fn pages_go_on_above_the_gap() {
        let low_bytes = FILL_START + 3 * PAGE_SIZE;
        let addresses = [0, 2, 3, 4].map(|index| Params::page_address(low_bytes, index));
        let expected = [FILL_START, FILL_START + 2 * PAGE_SIZE, HIGH_START, HIGH_START + PAGE_SIZE];
        assert_eq!(addresses, expected);
    }
}
