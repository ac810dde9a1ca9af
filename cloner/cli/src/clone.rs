//! `cloner clone`: boot, wait for the console, clone, and let all run side by side.

use std::time::{Duration, Instant};

use regex::Regex;
use vmm::config::Config;
use vmm::host::Host;
use vmm::memory::GuestMemory;
use vmm::{Announce, Vm};

use crate::console::Console;
use crate::guest::{BootArgs, MachineArgs};
use crate::guests::{CloneLabel, WatchedGuest, console_of, say, watch};
use crate::pages::PoolArgs;
use crate::progress::{self, Spinner};
use crate::size::Size;
use crate::{Error, announce, interrupt, threads};
use cloner::admission::CopyLimits;
use cloner::machine::Machine;
use cloner::moment::Moment;
use cloner::process::GuestProcess;
use cloner::process::fork::Zygote;
use cloner::progress::{Progress, Watch};
use cloner::restore::{Restorer, lazy};
use cloner::save::{SaveOptions, Saved, Saver};
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;

const EXAMPLES: &str = "\
Examples:
  cloner clone --kernel vmlinux --initrd rootfs.cpio --memory 512M --when 'login:' --clones 4
  cloner clone --kernel vmlinux --initrd rootfs.cpio --when 'ready' --clones 100 --fork
  cloner clone --kernel vmlinux --initrd rootfs.cpio --when 'ready' --clones 3 --branch
  cloner clone --kernel vmlinux --initrd rootfs.cpio --when 'ready' --announce console
  cloner clone --pulse --when 'beat 3' --for 2";

/// How messages refer to the source.
const THE_SOURCE: &str = "the source";
/// How messages refer to a clone.
const A_CLONE: &str = "a clone";

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
    /// Branch the clones directly off the running source, which has a process of its own: nothing is encoded or decoded
    #[arg(long, conflicts_with_all = ["fork", "lazy", "mode", "shared"])]
    branch: bool,
    /// Let each clone run at once: its memory arrives as it is touched, and the rest in the background
    #[arg(long, conflicts_with = "fork")]
    lazy: bool,
    /// Clones to build
    #[arg(long, value_name = "N", default_value_t = 2)]
    clones: usize,
    /// How each clone's guest is told who it is, before it runs: `console`, where an agent of yours must obey
    /// `clone GENERATION ID`, or the guest-physical address of 24 bytes (the built-in guest has its own)
    #[arg(long, value_name = "HOW", value_parser = announce::parse, conflicts_with = "pulse")]
    announce: Option<Announce>,
    /// End after this many seconds (default: when all guests have ended, or with Ctrl-C)
    #[arg(long = "for", value_name = "S")]
    seconds: Option<u64>,
    /// What the source does while its memory is saved (default: live; stop with --shared)
    #[arg(long, value_enum)]
    mode: Option<Mode>,
    #[command(flatten)]
    pool: PoolArgs,
}

impl Args {
    /// How the clones are told who they are. Warns about what their guests may notice: that nothing tells them, or that time jumps.
    fn announced(&self) -> Result<Announce, Error> {
        if Host::get().is_ok_and(|host| !host.keeps_guest_tsc()) {
            say(
                "cloner: guests see this host's own time stamp counter; in a clone that uses it, time jumps by the snapshot's age",
            )?;
        }
        let announce = self.announce.unwrap_or_else(|| self.boot.announce());
        if announce == Announce::Never {
            say(
                "cloner: the clones are not told who they are, so they draw equal random numbers; --announce tells them",
            )?;
        }
        Ok(announce)
    }
}

/// What the source does while its memory is saved.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum Mode {
    /// It runs on: its memory is frozen by `fork()`. Needs private memory, and room for what it writes meanwhile
    Live,
    /// It is paused until all is saved
    Stop,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let config = args.machine.config(args.boot.kernel(args.machine.memory)?);
    if args.branch {
        return branch(args, &config);
    }
    if args.lazy {
        // Checked now, rather than when the guest has booted and is saved.
        lazy::check()?;
    }
    let pool = args.pool.open(args.machine.memory.0 / 2 + (16 << 20))?;
    let threads = Threads::new(threads())?;
    let (saver, restorer) = (Saver::new(&threads), Restorer::new(&threads));

    let console = Console::shown("source  | ");
    let source = Vm::boot(&config, console.writer()).map_err(Error::source_vm)?;
    source.start();
    let limit = Duration::from_secs(args.wait);
    {
        let _spinner = Spinner::new(format!("waiting for /{}/", args.when));
        let matched = console.wait_for(&source, 0, limit, |line| args.when.is_match(line).then_some(()));
        matched.ok_or_else(|| Error::silent(THE_SOURCE, args.when.as_str(), limit, source.ending()))?;
    }

    let reservation = pool.pool.reserve("clone")?;
    let default = if args.machine.shared { Mode::Stop } else { Mode::Live };
    let mode = args.mode.unwrap_or(default);
    let save = |moment| {
        let progress = Progress::default();
        let options = SaveOptions::default().progress(&progress).cancel(interrupt::cancel());
        progress::bar("encoding", &progress, || saver.save(moment, reservation, &options))
    };
    let (Saved { snapshot, report }, pause) = match mode {
        Mode::Live => {
            let saved = save(Moment::live(&source, CopyLimits::default())?)?;
            let pause = saved.report.live.as_ref().expect("the source ran on").pause;
            (saved, pause)
        }
        Mode::Stop => {
            let paused = source.pause().map_err(Error::source_vm)?;
            let saved = save(Moment::of(&paused)?)?;
            (saved, paused.resume())
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

    let announce = args.announced()?;
    let mut guests = vec![WatchedGuest { name: THE_SOURCE, machine: Machine::here(source) }];
    if args.fork {
        guests.extend(fork(&restorer, &snapshot, args.clones, announce)?);
    } else {
        for number in 1..=args.clones {
            let started = Instant::now();
            let memory = if args.lazy {
                restorer.lazy(&snapshot, args.machine.backing(), &lazy::LazyOptions::default())?.memory
            } else {
                let progress = Progress::default();
                let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
                let decode = || restorer.eager(&snapshot, args.machine.backing(), watch);
                progress::bar("decoding", &progress, decode)?.memory
            };
            guests.push(restore(&snapshot, memory, announce, CloneLabel { number, started })?);
        }
    }
    watch(&guests, args.seconds.map(Duration::from_secs))
}

/// Restores a clone that has memory of its own.
fn restore(
    snapshot: &Snapshot,
    memory: GuestMemory,
    announce: Announce,
    clone: CloneLabel,
) -> Result<WatchedGuest, Error> {
    let console = console_of(clone.number);
    let machine = Machine::restore(snapshot.state(), memory, announce, console.writer());
    known(machine.map_err(Error::machine(A_CLONE))?, announce, &console, clone)
}

/// Forks clones from one template.
fn fork(
    restorer: &Restorer,
    snapshot: &Snapshot,
    clones: usize,
    announce: Announce,
) -> Result<Vec<WatchedGuest>, Error> {
    let started = Instant::now();
    let progress = Progress::default();
    let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
    let decode = || restorer.template(snapshot, watch);
    let template = progress::bar("decoding", &progress, decode)?;
    let program = std::env::current_exe().map_err(Error::Program)?;
    let zygote = Zygote::start(&program, &template)?;
    say(&format!("cloner: the template is ready after {:.1} ms", started.elapsed().as_secs_f64() * 1e3))?;
    let mut guests = Vec::with_capacity(clones);
    for number in 1..=clones {
        let clone = CloneLabel { number, started: Instant::now() };
        let console = console_of(number);
        let machine = Machine::apart(zygote.fork(announce)?, console.writer());
        guests.push(known(machine.map_err(Error::machine(A_CLONE))?, announce, &console, clone)?);
    }
    Ok(guests)
}

/// Boots a source in a process of its own, and branches the clones off it.
fn branch(args: &Args, config: &Config) -> Result<u8, Error> {
    let announce = args.announced()?;
    let program = std::env::current_exe().map_err(Error::Program)?;
    let console = Console::shown("source  | ");
    let machine = Machine::apart(GuestProcess::boot(&program, config)?, console.writer());
    let source = WatchedGuest { name: THE_SOURCE, machine: machine.map_err(Error::machine(THE_SOURCE))? };
    {
        let limit = Duration::from_secs(args.wait);
        let _spinner = Spinner::new(format!("waiting for /{}/", args.when));
        let over = || source.machine.is_silent();
        let matched = console.wait_until(over, 0, limit, |line| args.when.is_match(line).then_some(()));
        if matched.is_none() {
            // If the source has ended, its ending explains more than its silence.
            source.has_ended()?;
            return Err(Error::silent(THE_SOURCE, args.when.as_str(), limit, None));
        }
    }
    let mut guests = Vec::with_capacity(args.clones + 1);
    for number in 1..=args.clones {
        let clone = CloneLabel { number, started: Instant::now() };
        let console = console_of(number);
        let (machine, report) = source
            .machine
            .branch(announce, CopyLimits::default(), console.writer())
            .map_err(Error::machine(THE_SOURCE))?;
        guests.push(known(machine, announce, &console, clone)?);
        let pause = report.pause.as_secs_f64() * 1e3;
        say(&format!("cloner: the source stood still for {pause:.1} ms (fork() of its process)"))?;
    }
    guests.insert(0, source);
    watch(&guests, args.seconds.map(Duration::from_secs))
}

/// Returns a clone that runs, once it knows who it is.
fn known(
    machine: Machine,
    announce: Announce,
    console: &Console,
    clone: CloneLabel,
) -> Result<WatchedGuest, Error> {
    let identity = machine.identity();
    match machine.pid() {
        Some(pid) => clone.say(format_args!("({identity}) runs as process {pid}"))?,
        None => clone.say(format_args!("({identity}) runs"))?,
    }
    let guest = WatchedGuest { name: A_CLONE, machine };
    clone.wait_confirmed(announce, console, &guest)?;
    Ok(guest)
}
