//! `cloner-bench lazy`: compares clones whose memory arrives while they run with clones that wait for it.

use std::time::{Duration, Instant};

use cloner_codec::chunk::{CHUNK_PAGES, PAGE_BYTES};
use guest_images::pulse::{DirtyRate, DirtyWork, Params, Work, WriteOrder};
use serde::Serialize;
use vmm::Vm;
use vmm::memory::GuestMemory;

use cloner::compare::Comparer;
use cloner::moment::Moment;
use cloner::progress::Watch;
use cloner::restore::Restorer;
use cloner::restore::lazy::{self, LazyOptions, Restored, WorkingSet};
use cloner::save::{SaveOptions, Saved, Saver};
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;

use super::pulse::Pulse;
use super::spread::Spread;
use cloner_cli::console::Console;
use cloner_cli::guest::{MachineArgs, default_touched, random_nonce};
use cloner_cli::pages::{self, PoolArgs};
use cloner_cli::progress::Spinner;
use cloner_cli::size::Size;
use cloner_cli::threads;
use cloner_cli::{Error, interrupt};

const EXAMPLES: &str = "\
Examples:
  cloner-bench lazy --memory 8G --touched 256M      compare with: --memory 1G --touched 256M
  cloner-bench lazy --memory 4G --touched 2G        where waiting for all memory hurts
  cloner-bench lazy --memory 1G --granule 1         one page for each fault
  cloner-bench lazy --json | jq .lazy.fault_us

Each round builds a lazy clone, asks it for its nonce, waits for the first byte of the answer, then for all of its memory; then
it does the same with an eager clone. Times start at the request and include building the VM. At the end, one clone sums up all it
has touched without a background fill, and another one with the pages that the first one faulted on as its working set. The source
is paused meanwhile; the exit code is 1 unless a lazy memory, once complete, was equal to the source's, byte for byte.";

/// Options of `cloner-bench lazy`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Memory that the guest fills first (default: a quarter of its memory)
    #[arg(long, value_name = "SIZE")]
    touched: Option<Size>,
    /// Pages to fetch per fault, a power of two from 1 to 512 (default: 16; always 512 on huge pages)
    #[arg(long, value_name = "PAGES")]
    granule: Option<usize>,
    /// Bytes per second that a clone dirties while its memory arrives (default: none)
    #[arg(long, value_name = "SIZE")]
    dirty_rate: Option<Size>,
    /// Lazy clones to build
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Eager clones to build, for comparison
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    eager: u16,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: PoolArgs,
}

/// What the bench prints. Times are in milliseconds unless the name says otherwise.
#[derive(Debug, Serialize)]
struct Report {
    memory_bytes: u64,
    touched_bytes: u64,
    granule_pages: usize,
    to_first_output_ms: Spread,
    /// The part of it that making the memory takes, median.
    memory_ms: f64,
    /// The part of it that building the VM takes, median: page-table based KVM needs eight bytes for each page of the guest.
    build_ms: f64,
    /// Median for eager clones.
    eager_to_first_output_ms: f64,
    /// Number of faults of a clone that sums up all touched memory, without a background fill.
    faults: usize,
    /// Time per fault of that clone, from when the fault is noticed until its page is there.
    fault_us: Option<Spread>,
    /// Time from the request until all memory is there, median.
    complete_ms: f64,
    working_set: WorkingSetReport,
    equal: bool,
}

/// The figures of the same clone, once more, with the pages that the first one faulted on as its working set.
#[derive(Debug, Serialize)]
struct WorkingSetReport {
    pages: usize,
    faults: usize,
    /// Time from the request until the sum is known, without the working set and with it.
    sum_ms: f64,
    sum_ms_with: f64,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let report = measure(args)?;
    super::print("lazy", &report, args.json, || report.to_string())?;
    if report.equal {
        Ok(0)
    } else {
        Err(Error::NotVerified(String::from("a target differs from its source")))
    }
}

fn measure(args: &Args) -> Result<Report, Error> {
    lazy::check()?;
    let memory_bytes = args.machine.memory.0;
    let touched =
        args.touched.map_or(default_touched(memory_bytes), |size| size.0) & !(PAGE_BYTES as u64 - 1);
    let work = args.dirty_rate.map_or(Work::Idle, |Size(bytes)| {
        let rate = DirtyRate::PagesPerSecond(u32::try_from(bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX));
        Work::Dirty(DirtyWork { rate, working_set: 250, order: WriteOrder::Random, words_per_page: 64 })
    });
    let params = Params { work, beat_ms: 0, ..Params::new(random_nonce()?, touched) };
    let pool = args.pool.open(touched + (32 << 20))?;
    // For the source and one clone at a time.
    let huge = args.machine.hugepages.then(|| pages::for_guests(args.machine.memory, 2));
    let _huge = huge.transpose()?;
    let threads = Threads::new(threads())?;
    let (saver, restorer, comparer) =
        (Saver::new(&threads), Restorer::new(&threads), Comparer::new(&threads));
    let source = Pulse::boot(&args.machine, &params)?;
    let paused = source.vm.pause().map_err(Error::source_vm)?;
    let options = SaveOptions::default().cancel(interrupt::cancel());
    let Saved { snapshot, report: saved } =
        saver.save(Moment::of(&paused)?, pool.pool.reserve("template")?, &options)?;

    let options = LazyOptions {
        granule_pages: args.granule.unwrap_or(LazyOptions::default().granule_pages),
        ..LazyOptions::default()
    };
    let bench = Bench { args, snapshot, restorer, options };
    let spinner = Spinner::new(String::from("cloning"));
    let rounds = bench.rounds()?;
    let (faults, working_set) = bench.working_set()?;
    drop(spinner);

    let Restored { memory, fill } = bench.lazy(&bench.options)?;
    fill.wait().map_err(lazy::Error::from)?;
    let equal = comparer.first_difference(paused.memory(), &memory)?.is_none();
    let median_ms = |times: &[_]| Spread::milliseconds(times).expect("at least one round").p50;
    Ok(Report {
        memory_bytes,
        touched_bytes: saved.touched_bytes,
        granule_pages: if args.machine.hugepages { CHUNK_PAGES } else { bench.options.granule_pages },
        to_first_output_ms: Spread::milliseconds(&rounds.first_output).expect("at least one round"),
        memory_ms: median_ms(&rounds.memory),
        build_ms: median_ms(&rounds.build),
        eager_to_first_output_ms: median_ms(&rounds.eager_first_output),
        faults: faults.len(),
        fault_us: Spread::of(&faults, Duration::from_micros(1)),
        complete_ms: median_ms(&rounds.complete),
        working_set,
        equal,
    })
}

struct Bench<'a> {
    args: &'a Args,
    snapshot: Snapshot,
    restorer: Restorer,
    options: LazyOptions,
}

#[derive(Default)]
struct Rounds {
    first_output: Vec<Duration>,
    memory: Vec<Duration>,
    build: Vec<Duration>,
    eager_first_output: Vec<Duration>,
    complete: Vec<Duration>,
}

impl Bench<'_> {
    fn lazy(&self, options: &LazyOptions) -> Result<Restored, Error> {
        Ok(self.restorer.lazy(&self.snapshot, self.args.machine.backing(), options)?)
    }

    /// Starts a clone that has been asked to do something.
    fn start(&self, memory: GuestMemory, command: &[u8]) -> Result<Pulse, Error> {
        let console = Console::new();
        let vm = Vm::restore(self.snapshot.state(), memory, console.writer())
            .map_err(|source| Error::Vm { guest: "a clone", source })?;
        // Typed before the guest runs, so that its answer is the first thing it does.
        vm.console_input(command);
        vm.start();
        Ok(Pulse { vm, console })
    }

    /// Waits for the answer; returns the time from `requested` to its first byte.
    fn first_output(&self, clone: &Pulse, requested: Instant) -> Result<Duration, Error> {
        clone.wait_for(0, "pulse: nonce=")?;
        Ok(clone.console.first_byte().expect("it has answered") - requested)
    }

    fn rounds(&self) -> Result<Rounds, Error> {
        let mut rounds = Rounds::default();
        for round in 0..self.args.count.max(self.args.eager) {
            if round < self.args.count {
                let requested = Instant::now();
                let Restored { memory, fill } = self.lazy(&self.options)?;
                rounds.memory.push(requested.elapsed());
                let started = Instant::now();
                let clone = self.start(memory, b"n")?;
                rounds.build.push(started.elapsed());
                rounds.first_output.push(self.first_output(&clone, requested)?);
                fill.wait().map_err(lazy::Error::from)?;
                rounds.complete.push(fill.time().expect("it is complete"));
            }
            if round < self.args.eager {
                let requested = Instant::now();
                let backing = self.args.machine.backing();
                let watch = Watch::default().cancel(interrupt::cancel());
                let memory = self.restorer.eager(&self.snapshot, backing, watch)?.memory;
                let clone = self.start(memory, b"n")?;
                rounds.eager_first_output.push(self.first_output(&clone, requested)?);
            }
        }
        Ok(rounds)
    }

    /// Returns how long each fault took without a working set, and the report on the clone that had one.
    fn working_set(&self) -> Result<(Vec<Duration>, WorkingSetReport), Error> {
        let sum = |working_set| {
            let options = LazyOptions { background: None, working_set, ..self.options.clone() };
            let requested = Instant::now();
            let Restored { memory, fill } = self.lazy(&options)?;
            let clone = self.start(memory, b"s")?;
            clone.wait_for(0, "pulse: sum=")?;
            Ok::<_, Error>((fill.faults(), requested.elapsed().as_secs_f64() * 1e3))
        };
        let (faults, sum_ms) = sum(None)?;
        let working_set = WorkingSet::recorded(&self.snapshot, &faults);
        let pages = working_set.pages().len();
        let (faults_with, sum_ms_with) = sum(Some(working_set))?;
        let report = WorkingSetReport { pages, faults: faults_with.len(), sum_ms, sum_ms_with };
        Ok((faults.iter().map(|fault| fault.time).collect(), report))
    }
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Spread { p50, p99 } = self.to_first_output_ms;
        let WorkingSetReport { pages, faults, sum_ms, sum_ms_with } = &self.working_set;
        writeln!(
            f,
            "source         {}, {} touched; {} pages for each fault",
            Size(self.memory_bytes),
            Size(self.touched_bytes),
            self.granule_pages
        )?;
        writeln!(
            f,
            "first output   {p50:.1} ms, p99 {p99:.1} (memory {:.1}, VM {:.1}); eager {:.1} ms, {:.1} times as long",
            self.memory_ms,
            self.build_ms,
            self.eager_to_first_output_ms,
            self.eager_to_first_output_ms / p50
        )?;
        writeln!(f, "complete       after {:.1} ms", self.complete_ms)?;
        write!(f, "on demand      the sum of all after {sum_ms:.0} ms, with {} faults", self.faults)?;
        match self.fault_us {
            Some(Spread { p50, p99 }) => writeln!(f, " of {p50:.0} µs, p99 {p99:.0}")?,
            None => writeln!(f)?,
        }
        writeln!(f, "working set    of {pages} pages: after {sum_ms_with:.0} ms, with {faults} faults")?;
        write!(f, "target         {}", if self.equal { "equal, byte for byte" } else { "NOT EQUAL" })
    }
}
