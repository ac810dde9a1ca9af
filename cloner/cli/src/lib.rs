//! The `cloner` program: parse, call, print. As a library it holds what `cloner-bench` shares with it: options, guests, tables.

mod announce;
mod battery;
mod clone;
pub mod columns;
pub mod console;
mod demo;
mod emulated;
mod error;
mod exit_code;
pub mod folder;
pub mod guest;
mod guests;
mod host;
mod inspect;
pub mod interrupt;
pub mod known;
pub mod memcpy;
pub mod numbers;
pub mod pages;
mod pool;
pub mod progress;
mod run;
mod serve;
pub mod size;
mod terminal;

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};

pub use error::Error;
pub use serve::Serve;

use exit_code::{EXIT_FAILURE, EXIT_INTERRUPTED};

/// Clones running virtual machines.
///
/// A source is paused for milliseconds, its memory encoded with bit markers into a pool of huge pages, and targets
/// are built from there.
#[derive(Debug, Parser)]
#[command(name = "cloner", version, after_help = EXIT_CODES, arg_required_else_help = true)]
struct Args {
    /// Print more on standard error: -v shows what happens, -vv shows details.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

const EXIT_CODES: &str = "\
Exit codes:
  0    done; the guest ended in order
  1    something failed; the message says what
  2    the command line is not valid
  125  the guest crashed: triple fault, or an instruction this host cannot emulate
  130  interrupted by Ctrl-C
  N    `run`: the guest shut down with code N (it wrote N to I/O port 0xf4)";

#[derive(Debug, Subcommand)]
enum Command {
    /// Boot a guest, clone it through the pool, and show what that took.
    Demo(demo::Args),
    /// Boot a guest with its console on this terminal; Ctrl-A x leaves.
    Run(run::Args),
    /// Boot a guest, wait for a line on its console, clone it, and run source and clones side by side.
    Clone(clone::Args),
    /// Plan the battery that a pool needs, or the pool that a battery protects.
    Battery(battery::Args),
    /// Manage the snapshots in a flush folder.
    Pool(pool::Args),
    /// Show what this host can do, and what it lacks to boot and clone guests.
    Host(host::Args),
    /// Show what a memory image or an encoded chunk consists of: kinds of pages, classes of vectors, the ratio of each chunk.
    Inspect(inspect::Args),
    #[command(flatten)]
    Serve(Serve),
}

/// Number of threads to encode and decode with: one for each processor that this process may use.
#[must_use]
pub fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get)
}

/// Runs the program with the process's arguments.
#[must_use]
pub fn main() -> ExitCode {
    let Args { verbose, command } = Args::parse();
    start_logging(verbose);
    exit("cloner", command.run())
}

impl Command {
    fn run(&self) -> Result<u8, Error> {
        // Catching signals starts a thread, and these processes fork.
        if !matches!(self, Self::Serve(_)) {
            interrupt::install()?;
        }
        match self {
            Self::Demo(args) => demo::run(args),
            Self::Run(args) => run::run(args),
            Self::Clone(args) => clone::run(args),
            Self::Battery(args) => battery::run(args),
            Self::Pool(args) => pool::run(args),
            Self::Host(args) => host::run(args),
            Self::Inspect(args) => inspect::run(args),
            Self::Serve(serve) => serve.run(),
        }
    }
}

/// Prints on standard error what ended the program, if it failed, and returns the exit code.
#[must_use]
pub fn exit(program: &str, result: Result<u8, Error>) -> ExitCode {
    match result {
        Ok(code) => ExitCode::from(code),
        // The reader of a pipe has closed it, which is not a failure.
        Err(Error::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => {
            // If standard error is closed, there is no way to print it.
            let _ = writeln!(io::stderr(), "{program}: {}", cloner::chain(&error));
            ExitCode::from(error.exit_code())
        }
    }
}

/// Starts logging to standard error: warnings, and one level more for each `-v`.
pub fn start_logging(verbose: u8) {
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
