//! The `cloner` program.

mod announce;
mod battery;
mod bench;
mod clone;
mod columns;
mod console;
mod demo;
mod emulated;
mod folder;
mod guest;
mod guests;
mod host;
mod inspect;
mod interrupt;
mod known;
mod memcpy;
mod pages;
mod pool;
mod progress;
mod run;
mod size;
mod terminal;

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use vmm::Ending;

use crate::{
    battery as power, compare, durable, flush, incremental, live, measure, pool as ram, process, restore,
    save, snapshot, walk,
};

/// Something failed.
const EXIT_FAILURE: u8 = 1;
/// The guest crashed: triple fault, emulation failure, or KVM gave up on it.
const EXIT_GUEST_CRASHED: u8 = 125;
/// Ended by Ctrl-C, as shells have it.
const EXIT_INTERRUPTED: u8 = 130;

/// Clones running virtual machines.
///
/// A source is paused for milliseconds, its memory encoded with bit markers into a pool of huge pages, and targets
/// are built from there.
#[derive(Debug, Parser)]
#[command(name = "cloner", version, after_help = EXIT_CODES, arg_required_else_help = true)]
pub struct Args {
    /// Say more on standard error: -v what happens, -vv in detail.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done; the guest ended in order
  1    something failed: the message says what
  2    the command line is wrong
  125  the guest crashed: triple fault, or an instruction this host cannot emulate
  130  interrupted by Ctrl-C
  N    `run`: the guest shut down with code N (it wrote N to I/O port 0xf4)";

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a guest, clone it through the pool, and show what it took.
    Demo(demo::Args),
    /// Boot a guest with its console on this terminal; Ctrl-A x leaves.
    Run(run::Args),
    /// Boot a guest, wait for its console to say something, clone it, and run source and clones side by side.
    Clone(clone::Args),
    /// Measure the parts: the coder beside lz4, zstd and memcpy; the ways to snapshot and to clone.
    Bench(bench::Args),
    /// What battery a pool needs, and what pool a battery protects.
    Battery(battery::Args),
    /// Look after the snapshots in a flush folder.
    Pool(pool::Args),
    /// Say what this host is, and what it lacks to boot and clone guests.
    Host(host::Args),
    /// Show what a memory image or an encoded chunk is made of: kinds of pages, classes of vectors, the ratio of each chunk.
    Inspect(inspect::Args),
    /// Become a process that is forked; started by cloner itself, with a socket as standard input.
    #[command(hide = true)]
    Zygote,
    /// Become the process of a guest; started by cloner itself, with a socket as standard input.
    #[command(hide = true)]
    Guest,
    /// The baseline of `bench fork`, which starts it.
    #[command(hide = true)]
    Floor { memory: String, state: String },
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{guest}")]
    Vm { guest: &'static str, source: vmm::Error },
    #[error("cannot read the flat image {}", path.display())]
    FlatImage { path: std::path::PathBuf, source: io::Error },
    #[error("pool")]
    Pool(#[from] ram::Error),
    #[error("guest memory on huge pages")]
    GuestPages(#[source] ram::Error),
    #[error("flush folder")]
    Flush(#[from] flush::Error),
    #[error("{name:?} is not safe")]
    NotSafe { name: String, source: flush::Error },
    #[error("flush folder {}", path.display())]
    Folder { path: std::path::PathBuf, source: io::Error },
    #[error("key")]
    Key(#[from] flush::KeyError),
    #[error("durable pool")]
    Durable(#[from] durable::Error),
    #[error("battery")]
    Battery(#[from] power::SpecError),
    #[error("snapshot in the pool")]
    Snapshot(#[from] snapshot::Error),
    #[error("the process that was to lose its power")]
    Child(#[source] io::Error),
    #[error("snapshot")]
    Save(#[from] save::Error),
    #[error("live snapshot")]
    Live(#[from] live::Error),
    #[error("restore")]
    Restore(#[from] restore::eager::Error),
    #[error("a process of this program, or the connection to it")]
    Program(#[source] io::Error),
    #[error("fork")]
    Fork(#[from] restore::fork::Error),
    #[error(transparent)]
    Forked(#[from] vmm::host::fork::Error),
    #[error("guest process")]
    Process(#[from] process::Error),
    #[error("incremental snapshot")]
    Incremental(#[from] incremental::Error),
    #[error("lazy restore")]
    Lazy(#[from] restore::lazy::Error),
    #[error("comparison")]
    Compare(#[from] compare::Error),
    #[error(transparent)]
    Measure(#[from] measure::Error),
    #[error(transparent)]
    Inspect(#[from] inspect::SourceError),
    #[error("cannot write {}", path.display())]
    Write { path: std::path::PathBuf, source: io::Error },
    #[error("threads")]
    Threads(#[from] walk::StartError),
    #[error("built-in guest")]
    Pulse(#[from] guest_images::pulse::Error),
    #[error("tiny-linux")]
    TinyLinux(#[from] guest_images::Error),
    #[error("{guest}: nothing like {wanted:?} on the console within {seconds} s")]
    Silent { guest: &'static str, wanted: String, seconds: u64 },
    #[error("{guest} ended too early")]
    Ended { guest: &'static str, source: Ending },
    #[error("{guest} ended too early: {message}")]
    Crashed { guest: &'static str, message: String },
    #[error("{0}")]
    NotVerified(String),
    #[error("terminal")]
    Terminal(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot catch signals")]
    Signals(#[from] ctrlc::Error),
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    fn source_vm(source: vmm::Error) -> Self {
        Self::Vm { guest: "the guest", source }
    }

    /// Waiting was in vain: because of the user, the guest, or the time.
    fn silent(guest: &'static str, wanted: &str, limit: std::time::Duration, ending: Option<Ending>) -> Self {
        match ending {
            _ if interrupt::requested() => Self::Interrupted,
            Some(source) => Self::Ended { guest, source },
            None => Self::Silent { guest, wanted: wanted.to_owned(), seconds: limit.as_secs() },
        }
    }

    fn exit_code(&self) -> u8 {
        let crashed = |ending: &Ending| !ending.is_orderly();
        match self {
            Self::Usage(_) => 2,
            Self::Ended { source, .. } if crashed(source) => EXIT_GUEST_CRASHED,
            Self::Crashed { .. } => EXIT_GUEST_CRASHED,
            Self::Vm { source: vmm::Error::Ended(ending), .. } if crashed(ending) => EXIT_GUEST_CRASHED,
            _ if interrupt::requested() => EXIT_INTERRUPTED,
            _ => EXIT_FAILURE,
        }
    }
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let args = Args::parse();
    start_logging(args.verbose);
    // Before anything that starts a thread: these fork.
    match &args.command {
        Command::Zygote => return served(|channel| Ok(restore::fork::serve(channel)?)),
        Command::Guest => return served(|channel| Ok(process::serve(channel)?)),
        Command::Floor { memory, state } => return floor(memory, state),
        _ => {}
    }
    let result = interrupt::install().map_err(Error::from).and_then(|()| match &args.command {
        Command::Demo(args) => demo::run(args),
        Command::Run(args) => run::run(args),
        Command::Clone(args) => clone::run(args),
        Command::Bench(args) => bench::run(args),
        Command::Battery(args) => battery::run(args),
        Command::Pool(args) => pool::run(args),
        Command::Host(args) => host::run(args),
        Command::Inspect(args) => inspect::run(args),
        Command::Zygote | Command::Guest | Command::Floor { .. } => Ok(EXIT_FAILURE),
    });
    match result {
        Ok(code) => ExitCode::from(code),
        // The reader of a pipe had enough.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn floor(memory: &str, state: &str) -> ExitCode {
    match bench::serve_floor(memory, state) {
        Ok(code) => ExitCode::from(code),
        Err(error) => {
            report(&error);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// Serves on standard input.
fn served(serve: impl FnOnce(OwnedFd) -> Result<(), Error>) -> ExitCode {
    let take = || {
        let channel = io::stdin().as_fd().try_clone_to_owned()?;
        // Children must not inherit a second copy: it would keep the connection open when this process is gone.
        rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
        Ok(channel)
    };
    let channel = match take() {
        Ok(channel) => channel,
        Err(error) => {
            report(&Error::Terminal(error));
            return ExitCode::from(EXIT_FAILURE);
        }
    };
    match serve(channel) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(&error);
            ExitCode::from(EXIT_FAILURE)
        }
    }
}

/// Prints an error and what led to it.
fn report(error: &Error) {
    // Without standard error there is nobody to tell.
    let _ = writeln!(io::stderr(), "cloner: {}", chain(error));
}

/// An error and what led to it, each cause once.
fn chain(error: &dyn std::error::Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !message.ends_with(&text) {
            message.push_str(": ");
            message.push_str(&text);
        }
        cause = error.source();
    }
    message
}

fn start_logging(verbose: u8) {
    let level = match verbose {
        0 => tracing::Level::WARN,
        1 => tracing::Level::INFO,
        2 => tracing::Level::DEBUG,
        _ => tracing::Level::TRACE,
    };
    tracing_subscriber::fmt()
        .with_max_level(level)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(verbose > 1)
        .init();
}
