//! `cloner-bench live`: measures what a snapshot costs a guest that never stops writing, compared with stop mode in the same run.

use std::thread;
use std::time::{Duration, Instant};

use guest_images::pulse::{Params, check};
use serde::Serialize;
use vmm::Vm;
use vmm::memory::{Backing, PageSize};

use super::dirtying::GuestArgs;
use super::pulse::status;
use super::times::Milliseconds;
use cloner::admission::CopyLimits;
use cloner::moment::Moment;
use cloner::pool::{ProvidedPool, hugepages};
use cloner::progress::{Progress, Watch};
use cloner::restore::Restorer;
use cloner::save::{SaveOptions, Saved, Saver};
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;
use cloner_cli::columns::{Columns, number};
use cloner_cli::console::Console;
use cloner_cli::pages::PoolArgs;
use cloner_cli::size::Size;
use cloner_cli::threads;
use cloner_cli::{Error, interrupt, progress};

const EXAMPLES: &str = "\
Examples:
  cloner-bench live --memory 4G                           a guest that writes as fast as it can
  cloner-bench live --memory 1G --dirty-rate 200M         one that writes 200 MiB per second
  cloner-bench live --json | jq .live.pause_ms

Every snapshot is decoded and each word of it checked to be of one instant. Figures are of one run on a machine that may
be busy: compare them only with each other. The exit code is 1 if any snapshot mixed two instants.";

/// Longest wait for the guest to fill its memory.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// How long the guest's speed without a snapshot is measured each time.
const QUIET: Duration = Duration::from_millis(300);

/// Options of `cloner-bench live`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArgs,
    /// Live snapshots to take; every fifth is followed by one in stop mode
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: PoolArgs,
}

#[derive(Debug, Serialize)]
struct Live {
    memory_bytes: u64,
    touched_bytes: u64,
    pages: String,
    mechanism: &'static str,
    count: usize,
    pause_ms: Milliseconds,
    stop_pause_ms: f64,
    total_ms: f64,
    copied_bytes: Option<u64>,
    copy_bound_bytes: u64,
    /// Pages written per second without a snapshot, divided by pages written per second during one.
    guest_slowdown: Option<f64>,
    equal: bool,
}

/// Everything that all rounds need.
struct Bench {
    params: Params,
    pages: PageSize,
    source: Vm,
    pool: ProvidedPool,
    saver: Saver,
    restorer: Restorer,
    // Last, so that the guest is gone when its pages are given back.
    _reserved: Option<hugepages::ReservedHugePages>,
}

/// The measurements of all rounds.
#[derive(Default)]
struct Collected {
    pauses: Vec<Duration>,
    totals: Vec<Duration>,
    stop_pauses: Vec<Duration>,
    copied: Vec<u64>,
    bound: u64,
    quiet: Speed,
    during: Speed,
}

/// Pages written, and the time that took.
#[derive(Default)]
struct Speed {
    pages: u64,
    time: Duration,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let bench = Bench::set(args)?;
    let mut collected = Collected::default();
    let mut mixed = None;
    for round in 0..args.count {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        if let Err(violation) = bench.round(round, &mut collected)? {
            mixed.get_or_insert(violation);
        }
    }
    let report = bench.report(&collected, mixed.is_none());
    super::print("live", &report, args.json, || report.table())?;
    match mixed {
        None => Ok(0),
        Some(violation) => Err(Error::NotVerified(format!("a snapshot mixes two instants: {violation}"))),
    }
}

impl Bench {
    fn set(args: &Args) -> Result<Self, Error> {
        let (params, pages) = (args.guest.params()?, args.guest.pages());
        let pool = args.pool.open(args.guest.touched_bytes() + (16 << 20))?;
        // One more, for the copies that the guest's writing makes.
        let reserved = args.guest.reserve(2)?;
        let config = args.guest.config(&params)?;
        let console = Console::new();
        let source = Vm::boot(&config, console.writer()).map_err(Error::source_vm)?;
        source.start();
        {
            let _spinner = progress::Spinner::new(String::from("the guest fills its memory"));
            const READY: &str = "pulse: ready";
            let ready =
                console.wait_for(&source, 0, BOOT_LIMIT, |line| line.starts_with(READY).then_some(()));
            ready.ok_or_else(|| Error::silent("the guest", READY, BOOT_LIMIT, source.ending()))?;
        }
        let threads = Threads::new(threads())?;
        let (saver, restorer) = (Saver::new(&threads), Restorer::new(&threads));
        Ok(Self { params, pages, source, pool, saver, restorer, _reserved: reserved })
    }

    /// Takes and checks one live snapshot, and in some rounds one in stop mode.
    fn round(&self, round: u16, collected: &mut Collected) -> Result<Result<(), check::Violation>, Error> {
        self.measured(&mut collected.quiet, || {
            thread::sleep(QUIET);
            Ok(())
        })?;
        let name = format!("live-{round}");
        let reservation = self.pool.pool.reserve(&name)?;
        let progress = Progress::default();
        let options = SaveOptions::default().progress(&progress).cancel(interrupt::cancel());
        let Saved { snapshot, report } = self.measured(&mut collected.during, || {
            let moment = Moment::live(&self.source, CopyLimits::default())?;
            let save = || self.saver.save(moment, reservation, &options);
            Ok(progress::bar("encoding", &progress, save)?)
        })?;
        let report = report.live.expect("the source ran on");
        collected.pauses.push(report.pause);
        collected.totals.push(report.total_time);
        collected.copied.extend(report.copied_bytes);
        collected.bound = report.copy_bound_bytes;
        let checked = self.check(&snapshot)?;
        drop(snapshot);
        self.pool.pool.remove(&name)?;

        if round.is_multiple_of(5) {
            let reservation = self.pool.pool.reserve("stop")?;
            let paused = self.source.pause().map_err(Error::source_vm)?;
            let options = SaveOptions::default().cancel(interrupt::cancel());
            self.saver.save(Moment::of(&paused)?, reservation, &options)?;
            collected.stop_pauses.push(paused.resume());
            self.pool.pool.remove("stop")?;
        }
        Ok(checked)
    }

    /// Adds to `speed` what the guest writes while `work` runs.
    fn measured<T>(&self, speed: &mut Speed, work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
        let (started, before) = (Instant::now(), self.written()?);
        let result = work()?;
        speed.time += started.elapsed();
        speed.pages += self.written()? - before;
        Ok(result)
    }

    /// Number of pages the guest has written since it booted.
    fn written(&self) -> Result<u64, Error> {
        Ok(status(self.source.memory())?.cpus.iter().map(|cpu| cpu.sequence).sum())
    }

    /// Checks that every word of the snapshot is of one instant.
    fn check(&self, snapshot: &Snapshot) -> Result<Result<(), check::Violation>, Error> {
        let watch = Watch::default().cancel(interrupt::cancel());
        let backing = Backing::Private(PageSize::Transparent);
        let memory = self.restorer.eager(snapshot, backing, watch)?.memory;
        let status = status(&memory)?;
        let read = |address, buffer: &mut [u8]| {
            memory.read(address, buffer).expect("the guest had memory at all addresses it filled");
        };
        Ok(check::verify(&self.params, &status, memory.layout().low_bytes(), read))
    }

    fn report(&self, collected: &Collected, equal: bool) -> Live {
        let Collected { pauses, totals, stop_pauses, copied, bound, quiet, during } = collected;
        Live {
            memory_bytes: self.source.memory().layout().size_bytes(),
            touched_bytes: self.params.touched_pages() * 4096,
            pages: self.pages.to_string(),
            mechanism: "fork",
            count: pauses.len(),
            pause_ms: Milliseconds::of(pauses),
            stop_pause_ms: Milliseconds::of(stop_pauses).p50,
            total_ms: Milliseconds::of(totals).p50,
            copied_bytes: copied.iter().max().copied(),
            copy_bound_bytes: *bound,
            guest_slowdown: quiet.per_second().zip(during.per_second()).map(|(quiet, during)| quiet / during),
            equal,
        }
    }
}

impl Speed {
    fn per_second(&self) -> Option<f64> {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let speed = self.pages as f64 / self.time.as_secs_f64();
        (self.pages > 0).then_some(speed)
    }
}

impl Live {
    fn table(&self) -> String {
        let mut columns = Columns::new(["", "p50", "p99", "max"]);
        let Milliseconds { p50, p99, max } = self.pause_ms;
        columns.row([String::from("source paused, live, ms"), ms(p50), ms(p99), ms(max)]);
        columns.row([String::from("source paused, stop mode, ms"), ms(self.stop_pause_ms)]);
        columns.row([String::from("whole snapshot, live, ms"), ms(self.total_ms)]);
        let copied =
            self.copied_bytes.map_or_else(|| String::from("not shown to this user"), |b| Size(b).to_string());
        format!(
            "guest     {}, {} written at random, {}\n\
             live      {} snapshots, memory frozen by {}\n\
             copied    {copied} at most; bound {}\n\
             slowdown  {} × while a snapshot is taken\n\
             equal     {}\n\n{columns}",
            Size(self.memory_bytes),
            Size(self.touched_bytes),
            self.pages,
            self.count,
            self.mechanism,
            Size(self.copy_bound_bytes),
            number(self.guest_slowdown),
            if self.equal { "every word of every snapshot is of one instant" } else { "NO" },
        )
    }
}

fn ms(milliseconds: f64) -> String {
    format!("{milliseconds:.2}")
}
