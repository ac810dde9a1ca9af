//! `cloner clone`: boot, wait for the console, clone, and let all run side by side.

use std::io::{self, Write};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use regex::Regex;
use vmm::memory::GuestMemory;
use vmm::{Announce, Ending, Identity, Vm};

use super::console::Console;
use super::guest::{BootArgs, MachineArgs};
use super::progress::{self, Spinner};
use super::size::Size;
use super::{EXIT_INTERRUPTED, Error, announce, interrupt};
use crate::live::Limits;
use crate::pool::{Pages, Pool, PoolConfig, Populate, hugepages};
use crate::restore::eager::EagerRestorer;
use crate::restore::fork::{End, ForkedVm, Template, Zygote};
use crate::restore::lazy;
use crate::save::Saver;
use crate::snapshot::Snapshot;

const EXAMPLES: &str = "\
Examples:
  cloner clone --kernel vmlinux --initrd rootfs.cpio --memory 512M --when 'login:' --clones 4
  cloner clone --kernel vmlinux --initrd rootfs.cpio --when 'ready' --clones 100 --fork
  cloner clone --kernel vmlinux --initrd rootfs.cpio --when 'ready' --announce console
  cloner clone --pulse --when 'beat 3' --for 2";

/// Options of `cloner clone`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    #[command(flatten)]
    boot: BootArgs,
    /// Clone when a line of the console matches this regular expression
    #[arg(long, value_name = "REGEX")]
    when: Regex,
    /// Seconds to wait for that line
    #[arg(long, value_name = "S", default_value_t = 300)]
    wait: u64,
    /// Decode the snapshot once and fork the clones from it, each in a process of its own
    #[arg(long)]
    fork: bool,
    /// Let each clone run at once: its memory arrives as it is touched, and the rest in the background
    #[arg(long, conflicts_with = "fork")]
    lazy: bool,
    /// Clones to build
    #[arg(long, value_name = "N", default_value_t = 2)]
    clones: usize,
    /// How each clone's guest is told who it is, before it runs: `console`, where an agent of yours obeys
    /// `clone GENERATION ID`, or the guest-physical address of 24 bytes (the built-in guest has its own)
    #[arg(long, value_name = "HOW", value_parser = announce::parse, conflicts_with = "pulse")]
    announce: Option<Announce>,
    /// End after so many seconds; else when all guests have ended, or with Ctrl-C
    #[arg(long = "for", value_name = "S")]
    seconds: Option<u64>,
    /// What the source does while its memory is saved (default: live; stop with --shared)
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    #[command(flatten)]
    pool: PoolArgs,
}

/// What the source does while its memory is saved.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// It runs on: its memory is frozen by `fork()`. Needs private memory, and room for what it writes meanwhile
    Live,
    /// It stands still
    Stop,
}

/// The pool.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Pool")]
pub(super) struct PoolArgs {
    /// Capacity of the pool (default: enough for what the guest can have touched)
    #[arg(long = "pool", value_name = "SIZE")]
    pub(super) capacity: Option<Size>,
    /// Make the pool of ordinary pages if huge ones cannot be had
    #[arg(long)]
    pub(super) ordinary_pages: bool,
}

/// A pool, and the huge pages that were set aside for it.
pub(super) struct OpenPool {
    // Before the pages: they are given back when it is gone.
    pub(super) pool: Arc<Pool>,
    _reserved: Option<hugepages::Reserved>,
}

impl PoolArgs {
    /// Sets huge pages aside and makes the pool of them. All come back when it is dropped.
    pub(super) fn open(&self, default_bytes: u64) -> Result<OpenPool, Error> {
        let bytes = self.capacity.map_or(default_bytes, |size| size.0);
        let too_large = || Error::Usage(format!("a pool of {bytes} bytes does not fit the address space"));
        let capacity_bytes = usize::try_from(bytes).map_err(|_| too_large())?;
        let wanted = capacity_bytes.div_ceil(vmm::sys::mmap::HUGE_PAGE_SIZE);
        let available = hugepages::HugePages::read().map_or(0, |pages| pages.available());
        let reserved = if available < wanted { hugepages::reserve(wanted - available).ok() } else { None };
        let pages = if self.ordinary_pages { Pages::HugeOrOrdinary } else { Pages::Huge };
        let pool = Pool::new(&PoolConfig { capacity_bytes, pages, populate: Populate::AtOnce })?;
        Ok(OpenPool { pool: Arc::new(pool), _reserved: reserved })
    }
}

/// Threads to encode and decode with.
pub(super) fn threads() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let config = args.machine.config(args.boot.kernel(args.machine.memory)?);
    let pool = args.pool.open(args.machine.memory.0 / 2 + (16 << 20))?;
    let saver = Saver::new(threads())?;
    let restorer = EagerRestorer::new(threads())?;

    let console = Console::shown("source  | ");
    let source = Vm::boot(&config, console.writer()).map_err(Error::source_vm)?;
    source.start();
    let limit = Duration::from_secs(args.wait);
    {
        let _spinner = Spinner::new(format!("waiting for /{}/", args.when));
        let matched = console.wait_for(&source, 0, limit, |line| args.when.is_match(line).then_some(()));
        matched.ok_or_else(|| Error::silent("the source", args.when.as_str(), limit, source.ending()))?;
    }

    let reservation = pool.pool.reserve("clone", 0)?;
    let progress = interrupt::progress();
    let default = if args.machine.shared { Mode::Stop } else { Mode::Live };
    let mode = args.mode.unwrap_or(default);
    let (snapshot, report, pause) = match mode {
        Mode::Live => {
            let save = || saver.save_live(&source, None, reservation, Limits::default(), &progress);
            let (snapshot, report) = progress::bar("encoding", &progress, save)?;
            (snapshot, report.save, report.pause)
        }
        Mode::Stop => {
            let paused = source.pause().map_err(Error::source_vm)?;
            let save = || saver.save(&paused, None, reservation, &progress);
            let (snapshot, report) = progress::bar("encoding", &progress, save)?;
            (snapshot, report, paused.resume())
        }
    };
    say(&format!(
        "cloner: the source stood still for {:.1} ms ({}); {} touched, {} in the pool ({})",
        pause.as_secs_f64() * 1e3,
        match mode {
            Mode::Live => "live, frozen by fork()",
            Mode::Stop => "until all was saved",
        },
        Size(report.touched_bytes),
        Size(snapshot.occupied_bytes() as u64),
        pool.pool.backing(),
    ))?;

    let announce = args.announce.or_else(|| args.boot.announce());
    if announce.is_none() {
        say("cloner: the clones are not told who they are, and draw equal random numbers: --announce")?;
    }
    let mut guests = vec![Guest::Here("source", source)];
    if args.fork {
        guests.extend(fork(&restorer, &snapshot, args.clones, announce)?);
    } else {
        for number in 1..=args.clones {
            let started = Instant::now();
            let memory = if args.lazy {
                lazy::memory_for(&snapshot, args.machine.backing(), &lazy::Options::default())?.0
            } else {
                let progress = interrupt::progress();
                let decode = || restorer.memory_for(&snapshot, args.machine.backing(), &progress);
                progress::bar("decoding", &progress, decode)?.0
            };
            guests.push(restore(&snapshot, memory, announce, Number { number, started })?);
        }
    }
    watch(&guests, args.seconds.map(Duration::from_secs))
}

/// A guest that runs.
enum Guest {
    /// In this process, and what it is called.
    Here(&'static str, Vm),
    /// In its own, and the thread that reads its console.
    Fork(ForkedVm, JoinHandle<io::Result<u64>>),
}

/// Which clone it is, and when it was asked for.
#[derive(Clone, Copy)]
struct Number {
    number: usize,
    started: Instant,
}

impl Number {
    fn say(self, what: impl std::fmt::Display) -> Result<(), Error> {
        let after = self.started.elapsed().as_secs_f64() * 1e3;
        say(&format!("cloner: clone {} {what} after {after:.1} ms", self.number))
    }

    /// Waits until the guest has taken note of who it is, if it says so at all.
    fn wait_confirmed(
        self,
        announce: Option<Announce>,
        identity: Identity,
        console: &Console,
        guest: &Guest,
    ) -> Result<(), Error> {
        if announce != Some(Announce::OnConsole) {
            return Ok(());
        }
        let confirmed = |line: &str| identity.is_confirmed_by(line).then_some(());
        let heard = console.wait_until(|| guest.is_over(), 0, announce::CONFIRM_LIMIT, confirmed);
        if heard.is_some() {
            return self.say("has reseeded its random numbers");
        }
        // A crash is the better reason.
        guest.has_ended()?;
        let wanted = format!("{} reseeded", identity.to_command().trim_end());
        Err(Error::silent("a clone", &wanted, announce::CONFIRM_LIMIT, None))
    }
}

/// A clone with memory of its own.
fn restore(
    snapshot: &Snapshot,
    memory: GuestMemory,
    announce: Option<Announce>,
    clone: Number,
) -> Result<Guest, Error> {
    let console = console_of(clone.number);
    let error = |source| Error::Vm { guest: "a clone", source };
    let vm = Vm::restore(snapshot.state(), memory, console.writer()).map_err(error)?;
    if let Some(announce) = announce {
        vm.announce(announce).map_err(|source| error(source.into()))?;
    }
    vm.start();
    clone.say(format_args!("({}) runs", vm.identity()))?;
    let (identity, guest) = (vm.identity(), Guest::Here("a clone", vm));
    clone.wait_confirmed(announce, identity, &console, &guest)?;
    Ok(guest)
}

/// Clones over one template.
fn fork(
    restorer: &EagerRestorer,
    snapshot: &Snapshot,
    clones: usize,
    announce: Option<Announce>,
) -> Result<Vec<Guest>, Error> {
    let started = Instant::now();
    let progress = interrupt::progress();
    let decode = || Template::new(restorer, snapshot, &progress);
    let template = progress::bar("decoding", &progress, decode)?;
    let program = std::env::current_exe().map_err(Error::Program)?;
    let zygote = Zygote::start(&program, &template)?;
    say(&format!("cloner: the template is ready after {:.1} ms", started.elapsed().as_secs_f64() * 1e3))?;
    let mut guests = Vec::with_capacity(clones);
    for number in 1..=clones {
        let clone = Number { number, started: Instant::now() };
        let vm = zygote.fork(announce)?;
        let identity = vm.wait_running()?;
        clone.say(format_args!("({identity}) runs as process {}", vm.pid()))?;
        let mut printed = vm.console().try_clone().map_err(Error::Program)?;
        let console = console_of(number);
        let mut shown = console.writer();
        // Ends with the fork.
        let reader = thread::spawn(move || io::copy(&mut printed, &mut shown));
        let guest = Guest::Fork(vm, reader);
        clone.wait_confirmed(announce, identity, &console, &guest)?;
        guests.push(guest);
    }
    Ok(guests)
}

fn console_of(number: usize) -> Console {
    // Leaked: one short text per clone, for as long as the process lives.
    let prefix: &'static str = format!("clone {number:<2}| ").leak();
    Console::shown(prefix)
}

/// Waits for the guests to end, the time to be over, or Ctrl-C.
fn watch(guests: &[Guest], limit: Option<Duration>) -> Result<u8, Error> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    for guest in guests {
        while !guest.has_ended()? {
            if interrupt::requested() {
                return Ok(EXIT_INTERRUPTED);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(0);
            }
        }
    }
    Ok(0)
}

impl Guest {
    /// Whether it will print no more.
    fn is_over(&self) -> bool {
        match self {
            Self::Here(_, vm) => vm.ending().is_some(),
            Self::Fork(_, reader) => reader.is_finished(),
        }
    }

    /// Waits a moment for its end, and says how it was.
    fn has_ended(&self) -> Result<bool, Error> {
        const MOMENT: Duration = Duration::from_millis(50);
        match self {
            Self::Here(guest, vm) => match vm.wait_timeout(MOMENT) {
                None => return Ok(false),
                Some(ending @ (Ending::Reset | Ending::Shutdown { .. })) => {
                    say(&format!("cloner: {guest}: {ending}"))?;
                }
                Some(source) => return Err(Error::Ended { guest, source }),
            },
            Self::Fork(vm, _) => match vm.wait_timeout(MOMENT)? {
                None => return Ok(false),
                Some(End { message, orderly: true }) => say(&format!("cloner: a clone: {message}"))?,
                Some(End { message, .. }) => return Err(Error::ForkCrashed(message)),
            },
        }
        Ok(true)
    }
}

fn say(line: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{line}").map_err(Error::Output)
}
