//! `cloner-bench branch`: branches machines off one that never stops writing, and compares this with the way through the pool in
//! the same run.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::thread;
use std::time::{Duration, Instant};

use guest_images::pulse::{Params, Status, check, layout};
use serde::Serialize;
use vmm::memory::{Backing, PageSize};
use vmm::{Announce, Vm};

use super::dirtying::GuestArgs;
use super::times::Milliseconds;
use cloner::admission::CopyLimits;
use cloner::pool::{ProvidedPool, hugepages};
use cloner::process::{BranchReport, FrozenGuest, GuestProcess};
use cloner::progress::Watch;
use cloner::restore::Restorer;
use cloner::save::{SaveOptions, Saver};
use cloner::walk::Threads;
use cloner_cli::columns::Columns;
use cloner_cli::console::Console;
use cloner_cli::pages::PoolArgs;
use cloner_cli::progress::Spinner;
use cloner_cli::size::Size;
use cloner_cli::threads;
use cloner_cli::{Error, interrupt};

const EXAMPLES: &str = "\
Examples:
  cloner-bench branch                                     a guest of 1 GiB that writes as fast as it can
  cloner-bench branch --memory 4G --dirty-rate 200M       one that writes 200 MiB per second
  cloner-bench branch --json | jq .branch.pause_ms

Each branch is frozen in turn, and so is the source, and every word is checked to be of one instant: a write by one that the
other saw would be found. The baseline freezes the source, saves it into the pool, decodes it and runs the result. Figures are of
one run on a machine that may be busy: compare them only with each other. The exit code is 1 if any branch mixed two instants.";

/// Longest wait for a guest to print something.
const PATIENCE: Duration = Duration::from_secs(300);
/// How long the source is left alone before each branch; the wait is extended if its huge pages are not back by then.
const QUIET: Duration = Duration::from_millis(300);
const MENDING: Duration = Duration::from_secs(3);
/// The source is checked and the baseline measured once in this many rounds.
const BASELINE_EVERY: u16 = 5;

/// Options of `cloner-bench branch`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    #[command(flatten)]
    guest: GuestArgs,
    /// Branches to make one after another, each when the one before has ended
    #[arg(long, value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..))]
    count: u16,
    /// Branches to make at the end, all alive at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    alive: u16,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: PoolArgs,
}

#[derive(Debug, Serialize)]
struct Branches {
    memory_bytes: u64,
    touched_bytes: u64,
    pages: String,
    /// The least memory that was on huge pages when a branch was requested.
    huge_bytes: u64,
    count: usize,
    pause_ms: Milliseconds,
    /// The part of the pause that `fork()` took.
    fork_ms: Milliseconds,
    to_return_ms: Milliseconds,
    to_first_output_ms: Milliseconds,
    /// Pauses of a source whose earlier branches are still alive, one right after the other.
    in_a_row_pause_ms: Option<Milliseconds>,
    in_a_row_to_first_output_ms: Option<Milliseconds>,
    /// The same by way of a live snapshot in the pool, which is decoded at once.
    pool_to_first_output_ms: Milliseconds,
    copy_bound_bytes: u64,
    equal: bool,
}

/// Everything that all rounds need.
struct Bench {
    params: Params,
    pages: PageSize,
    memory: vmm::memory::Layout,
    source: GuestProcess,
    pool: ProvidedPool,
    saver: Saver,
    restorer: Restorer,
    // Last, so that the guest is gone when its pages are given back.
    _reserved: Option<hugepages::ReservedHugePages>,
}

/// A branch that has printed something, and how long that took.
struct Timed {
    branch: GuestProcess,
    report: BranchReport,
    to_return: Duration,
    to_first_output: Duration,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let bench = Bench::set(args)?;
    let (mut timed, mut through_pool, mut huge) = (Vec::new(), Vec::new(), Vec::new());
    let mut mixed = Ok(());
    for round in 0..args.count {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        huge.push(bench.leave_alone()?);
        let one = bench.branch()?;
        mixed = mixed.and(bench.check(&frozen(&one.branch)?)?);
        timed.push(one.ended()?);
        if round.is_multiple_of(BASELINE_EVERY) {
            mixed = mixed.and(bench.check(&frozen(&bench.source)?)?);
            through_pool.push(bench.through_the_pool()?);
        }
    }
    bench.leave_alone()?;
    let mut row = Vec::new();
    let mut alive = Vec::new();
    for _ in 0..args.alive {
        let one = bench.branch()?;
        row.push((one.report, one.to_return, one.to_first_output));
        alive.push(one.branch);
    }
    for branch in alive {
        mixed = mixed.and(bench.check(&frozen(&branch)?)?);
        branch.end()?;
    }
    mixed = mixed.and(bench.check(&frozen(&bench.source)?)?);

    let report = bench.report(&timed, &row, &through_pool, mixed.is_ok(), huge.into_iter().min());
    super::print("branch", &report, args.json, || report.table())?;
    match mixed {
        Ok(()) => Ok(0),
        Err(violation) => Err(Error::NotVerified(format!("a branch mixes two instants: {violation}"))),
    }
}

type Times = (BranchReport, Duration, Duration);

impl Timed {
    fn ended(self) -> Result<Times, Error> {
        self.branch.end()?;
        Ok((self.report, self.to_return, self.to_first_output))
    }
}

fn frozen(guest: &GuestProcess) -> Result<FrozenGuest, Error> {
    Ok(guest.freeze(CopyLimits::default())?.0)
}

impl Bench {
    fn set(args: &Args) -> Result<Self, Error> {
        let (params, pages) = (args.guest.params()?, args.guest.pages());
        let pool = args.pool.open(args.guest.touched_bytes() + (16 << 20))?;
        // One more for each machine that copies the pages by writing: a branch, what it is frozen into, the baseline.
        let reserved = args.guest.reserve(u64::from(args.alive.max(2)) + 2)?;
        let config = args.guest.config(&params)?;
        let program = std::env::current_exe().map_err(Error::Program)?;
        let source = GuestProcess::boot(&program, &config)?;
        source.wait_running()?;
        let _spinner = Spinner::new(String::from("the guest fills its memory"));
        wait_for_line(&source, "pulse: ready")?;
        let memory = config.layout().map_err(|error| Error::source_vm(error.into()))?;
        let threads = Threads::new(threads())?;
        let (saver, restorer) = (Saver::new(&threads), Restorer::new(&threads));
        Ok(Self { params, pages, memory, source, pool, saver, restorer, _reserved: reserved })
    }

    /// Lets the source run, and put its huge pages together if it has transparent ones. Returns how many bytes are then on
    /// huge pages.
    fn leave_alone(&self) -> Result<u64, Error> {
        thread::sleep(QUIET);
        let deadline = Instant::now() + MENDING;
        loop {
            let huge = self.huge_bytes()?;
            let wanted =
                if self.pages == PageSize::Transparent { self.params.touched_bytes / 10 * 9 } else { 0 };
            if huge >= wanted || Instant::now() > deadline {
                return Ok(huge);
            }
            thread::sleep(QUIET / 3);
        }
    }

    /// Number of bytes of the source that are on huge pages, transparent or reserved.
    fn huge_bytes(&self) -> Result<u64, Error> {
        let path = format!("/proc/{}/smaps_rollup", self.source.pid());
        let text = fs::read_to_string(path).map_err(Error::Program)?;
        let of = |name| text.lines().find_map(|line: &str| line.strip_prefix(name));
        let kib = |line: &str| line.trim().strip_suffix(" kB").and_then(|kib| kib.parse::<u64>().ok());
        Ok(["AnonHugePages:", "Private_Hugetlb:"].into_iter().filter_map(of).filter_map(kib).sum::<u64>()
            * 1024)
    }

    /// Makes a branch and asks it for its nonce as soon as it can be asked.
    fn branch(&self) -> Result<Timed, Error> {
        let requested = Instant::now();
        let (branch, report) = self.source.branch(Announce::Never, CopyLimits::default())?;
        let to_return = requested.elapsed();
        branch.console().write_all(b"n").map_err(Error::Program)?;
        branch.console().set_read_timeout(Some(PATIENCE)).map_err(Error::Program)?;
        branch.console().read_exact(&mut [0]).map_err(Error::Program)?;
        let to_first_output = requested.elapsed();
        branch.wait_running()?;
        let wanted = format!("nonce={:016x}", self.params.nonce);
        let line = read_line(&branch)?;
        if !line.contains(&wanted) {
            return Err(Error::NotVerified(format!("a branch answered {line:?}, not {wanted}")));
        }
        Ok(Timed { branch, report, to_return, to_first_output })
    }

    /// Measures the same by way of the pool.
    fn through_the_pool(&self) -> Result<Duration, Error> {
        const NAME: &str = "baseline";
        let reservation = self.pool.pool.reserve(NAME)?;
        let requested = Instant::now();
        let frozen = frozen(&self.source)?;
        let options = SaveOptions::default().cancel(interrupt::cancel());
        let snapshot = self.saver.save(frozen.moment(), reservation, &options)?.snapshot;
        let watch = Watch::default().cancel(interrupt::cancel());
        let memory = self.restorer.eager(&snapshot, Backing::Private(self.pages), watch)?.memory;
        let console = Console::new();
        let vm = Vm::restore(snapshot.state(), memory, console.writer()).map_err(Error::source_vm)?;
        vm.start();
        vm.console_input(b"n");
        let answered = console.wait_for(&vm, 0, PATIENCE, |line| line.contains("nonce=").then_some(()));
        answered.ok_or_else(|| Error::silent("the baseline", "nonce=", PATIENCE, vm.ending()))?;
        let first = console.first_byte().expect("a line was found");
        drop(snapshot);
        self.pool.pool.remove(NAME)?;
        Ok(first.duration_since(requested))
    }

    /// Checks that every word is of one instant.
    fn check(&self, guest: &FrozenGuest) -> Result<Result<(), check::Violation>, Error> {
        let mut bytes = [0; Status::LEN];
        guest.memory().read_guest(layout::STATUS, &mut bytes).map_err(cloner::process::Error::from)?;
        let status = Status::from_bytes(&bytes)?;
        let failed = std::cell::Cell::new(None);
        let read = |address, buffer: &mut [u8]| {
            if let Err(error) = guest.memory().read_guest(address, buffer) {
                failed.set(Some(error));
            }
        };
        let verdict = check::verify(&self.params, &status, self.memory.low_bytes(), read);
        match failed.take() {
            Some(error) => Err(cloner::process::Error::from(error).into()),
            None => Ok(verdict),
        }
    }

    fn report(
        &self,
        timed: &[Times],
        row: &[Times],
        through_pool: &[Duration],
        equal: bool,
        huge_bytes: Option<u64>,
    ) -> Branches {
        let of = |times: &[Times], pick: fn(&Times) -> Duration| {
            Milliseconds::of(&times.iter().map(pick).collect::<Vec<_>>())
        };
        let bounds = timed.iter().map(|(report, ..)| report.copy_bound_bytes);
        Branches {
            memory_bytes: self.memory.size_bytes(),
            touched_bytes: self.params.touched_bytes,
            pages: self.pages.to_string(),
            huge_bytes: huge_bytes.unwrap_or(0),
            count: timed.len(),
            pause_ms: of(timed, |(report, ..)| report.pause),
            fork_ms: of(timed, |(report, ..)| report.fork_time),
            to_return_ms: of(timed, |(_, to_return, _)| *to_return),
            to_first_output_ms: of(timed, |(.., to_first_output)| *to_first_output),
            in_a_row_pause_ms: (!row.is_empty()).then(|| of(row, |(report, ..)| report.pause)),
            in_a_row_to_first_output_ms: (!row.is_empty()).then(|| of(row, |(.., output)| *output)),
            pool_to_first_output_ms: Milliseconds::of(through_pool),
            copy_bound_bytes: bounds.max().unwrap_or(0),
            equal,
        }
    }
}

/// Waits for a line that starts with `start`.
fn wait_for_line(guest: &GuestProcess, start: &str) -> Result<(), Error> {
    guest.console().set_read_timeout(Some(PATIENCE)).map_err(Error::Program)?;
    loop {
        if read_line(guest)?.starts_with(start) {
            return Ok(());
        }
    }
}

fn read_line(guest: &GuestProcess) -> Result<String, Error> {
    let mut line = String::new();
    // What the reader buffers beyond the line is lost, which does not matter: guests here print one line at a time.
    BufReader::new(guest.console()).read_line(&mut line).map_err(Error::Program)?;
    if line.is_empty() {
        return Err(cloner::process::Error::Ended.into());
    }
    Ok(line)
}

impl Branches {
    fn table(&self) -> String {
        let mut columns = Columns::new(["milliseconds", "p50", "p99", "max"]);
        let rows = [
            ("source paused", Some(self.pause_ms)),
            ("of that fork()", Some(self.fork_ms)),
            ("request to return", Some(self.to_return_ms)),
            ("request to first output", Some(self.to_first_output_ms)),
            ("one right after the other, all alive: paused", self.in_a_row_pause_ms),
            ("  request to first output", self.in_a_row_to_first_output_ms),
            ("through the pool, to first output", Some(self.pool_to_first_output_ms)),
        ];
        for (name, times) in rows {
            let Some(Milliseconds { p50, p99, max }) = times else { continue };
            columns.row([String::from(name), format!("{p50:.2}"), format!("{p99:.2}"), format!("{max:.2}")]);
        }
        format!(
            "guest     {}, {} written at random, {} ({} on huge ones)\n\
             branches  {}, by fork() of the guest's process\n\
             shared    {} at first\n\
             equal     {}\n\n{columns}",
            Size(self.memory_bytes),
            Size(self.touched_bytes),
            self.pages,
            Size(self.huge_bytes),
            self.count,
            Size(self.copy_bound_bytes),
            if self.equal { "every word of source and branches is of one instant" } else { "NO" },
        )
    }
}
