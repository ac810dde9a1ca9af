//! `cloner-bench incremental`: measures snapshots of a VM that was saved before, compared with full ones at the same instant.

use std::time::Instant;

use cloner_codec::chunk::PAGE_BYTES;
use guest_images::pulse::{DirtyRate, DirtyWork, Params, Work, WriteOrder};
use serde::Serialize;

use cloner::compare::Comparer;
use cloner::moment::{Moment, Series};
use cloner::progress::Watch;
use cloner::restore::Restorer;
use cloner::save::{SaveOptions, Saved, Saver};
use cloner::walk::Threads;

use super::pulse::Pulse;
use super::spread::Spread;
use cloner_cli::guest::{MachineArgs, random_nonce};
use cloner_cli::pages::PoolArgs;
use cloner_cli::size::Size;
use cloner_cli::threads;
use cloner_cli::{Error, interrupt};

const EXAMPLES: &str = "\
Examples:
  cloner-bench incremental --memory 2G                       1 % of what was touched is dirtied in between
  cloner-bench incremental --memory 2G --dirty 250           a quarter of it
  cloner-bench incremental --memory 1G --json | jq .incremental.time_ms

Each round lets the guest dirty its share once over, pauses it, saves what changed, saves everything as the baseline, and
compares a target built from the former with the source, byte for byte. Times are medians, from the request to the return, and
include the state of the vCPUs and devices. The exit code is 1 unless every target was equal.";

/// Options of `cloner-bench incremental`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Memory that the guest fills first (default: half of its memory)
    #[arg(long, value_name = "SIZE")]
    touched: Option<Size>,
    /// Thousandths of the filled memory to dirty between two snapshots
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=1000))]
    dirty: u16,
    /// Bytes to dirty per second (default: as many as the guest can)
    #[arg(long, value_name = "SIZE")]
    dirty_rate: Option<Size>,
    /// Snapshots to take after the first
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: PoolArgs,
}

/// What the bench prints. Bytes and times are medians over the snapshots.
#[derive(Debug, Serialize)]
struct Report {
    memory_bytes: u64,
    touched_bytes: u64,
    snapshots: u16,
    /// Bytes of the pages that have changed according to the logs.
    dirtied_bytes: u64,
    /// Bytes of the pages that were read.
    read_bytes: u64,
    time_ms: f64,
    /// Bytes that the snapshot takes in the pool.
    bytes: u64,
    full_time_ms: f64,
    full_bytes: u64,
    equal: bool,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let report = measure(args)?;
    super::print("incremental", &report, args.json, || report.to_string())?;
    if report.equal {
        Ok(0)
    } else {
        Err(Error::NotVerified(String::from("a target differs from its source")))
    }
}

fn measure(args: &Args) -> Result<Report, Error> {
    let memory_bytes = args.machine.memory.0;
    let touched = args.touched.map_or(memory_bytes / 2, |size| size.0) & !(PAGE_BYTES as u64 - 1);
    let rate = args.dirty_rate.map_or(DirtyRate::FullSpeed, |Size(bytes)| {
        DirtyRate::PagesPerSecond(u32::try_from(bytes / PAGE_BYTES as u64).unwrap_or(u32::MAX))
    });
    let work = Work::Dirty(DirtyWork {
        rate,
        working_set: args.dirty,
        order: WriteOrder::Random,
        words_per_page: 64,
    });
    let params = Params { work, beat_ms: 0, ..Params::new(random_nonce()?, touched) };

    // A full snapshot for the series and one for the baseline, in case nothing can be compressed.
    let pool = args.pool.open(2 * touched + (64 << 20))?;
    let threads = Threads::new(threads())?;
    let (saver, restorer, comparer) =
        (Saver::new(&threads), Restorer::new(&threads), Comparer::new(&threads));
    let source = Pulse::boot(&args.machine, &params)?;
    let watch = Watch::default().cancel(interrupt::cancel());

    let paused = source.vm.pause().map_err(Error::source_vm)?;
    let mut series = Series::begin(&paused)?;
    let options = SaveOptions::default().cancel(interrupt::cancel());
    let first = saver.save(series.next(&paused)?, pool.pool.reserve("first")?, &options)?.report;
    paused.resume();

    let (mut times, mut full_times) = (Vec::new(), Vec::new());
    let (mut dirtied, mut read, mut bytes, mut full_bytes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut equal = true;
    for number in 1..=args.count {
        source.let_dirty(params.working_set_pages())?;
        let reservation = pool.pool.reserve(&format!("next-{number}"))?;
        let full = pool.pool.reserve("full")?;
        let paused = source.vm.pause().map_err(Error::source_vm)?;

        let started = Instant::now();
        let Saved { snapshot, report } = saver.save(series.next(&paused)?, reservation, &options)?;
        times.push(started.elapsed());
        let started = Instant::now();
        let baseline = saver.save(Moment::of(&paused)?, full, &options)?.snapshot;
        full_times.push(started.elapsed());

        let memory = restorer.eager(&snapshot, args.machine.backing(), watch)?.memory;
        equal &= comparer.first_difference(paused.memory(), &memory)?.is_none();
        paused.resume();
        dirtied.push(report.changed.expect("not the first of the series").dirty_bytes);
        read.push(report.read_bytes);
        bytes.push(snapshot.occupied_bytes() as u64);
        full_bytes.push(baseline.occupied_bytes() as u64);
        pool.pool.remove("full")?;
        pool.pool.remove(snapshot.name())?;
    }
    let median_ms = |times: &[_]| Spread::milliseconds(times).expect("at least one round").p50;
    Ok(Report {
        memory_bytes,
        touched_bytes: first.touched_bytes,
        snapshots: args.count,
        dirtied_bytes: median(dirtied),
        read_bytes: median(read),
        time_ms: median_ms(&times),
        bytes: median(bytes),
        full_time_ms: median_ms(&full_times),
        full_bytes: median(full_bytes),
        equal,
    })
}

fn median(mut numbers: Vec<u64>) -> u64 {
    numbers.sort_unstable();
    numbers[numbers.len() / 2]
}

impl std::fmt::Display for Report {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        #[expect(clippy::cast_precision_loss, reason = "per cent, for people")]
        let per_cent = |part: u64, whole: u64| 100.0 * part as f64 / whole.max(1) as f64;
        writeln!(
            f,
            "source        {}, {} touched; medians of {} snapshots",
            Size(self.memory_bytes),
            Size(self.touched_bytes),
            self.snapshots
        )?;
        writeln!(
            f,
            "dirtied       {} = {:.2} % of what was touched; {} read",
            Size(self.dirtied_bytes),
            per_cent(self.dirtied_bytes, self.touched_bytes),
            Size(self.read_bytes)
        )?;
        writeln!(
            f,
            "time          {:.2} ms = {:.2} % of the {:.1} ms of a full snapshot",
            self.time_ms,
            100.0 * self.time_ms / self.full_time_ms,
            self.full_time_ms
        )?;
        writeln!(
            f,
            "in the pool   {} = {:.2} % of the {} of a full snapshot",
            Size(self.bytes),
            per_cent(self.bytes, self.full_bytes),
            Size(self.full_bytes)
        )?;
        write!(f, "targets       {}", if self.equal { "equal, byte for byte" } else { "NOT EQUAL" })
    }
}
