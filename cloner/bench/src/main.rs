//! The `cloner-bench` program: measures how fast the parts of cloner are, on this machine and the user's own data.

mod commands;
mod measure;
mod sys;

use std::process::ExitCode;

use clap::{ArgAction, Parser, Subcommand};
use cloner_cli::{Error, Serve, interrupt};

use commands::{branch, codec, flush, fork, incremental, lazy, live};

/// Measures cloner: the coder compared with lz4, zstd and memcpy; the ways to snapshot and to clone.
#[derive(Debug, Parser)]
#[command(name = "cloner-bench", version, arg_required_else_help = true)]
struct Args {
    /// Print more on standard error: -v shows what happens, -vv shows details.
    #[arg(short, long, action = ArgAction::Count, global = true)]
    verbose: u8,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Encode and decode a raw memory image, compared with memcpy, lz4 and zstd on the same pages.
    Codec(codec::Args),
    /// Branch machines off one that never stops writing, compared with the way through the pool.
    Branch(branch::Args),
    /// Fork a template many times, compared with the bare cost of the same KVM calls.
    Fork(fork::Args),
    /// Take snapshots of a guest that never stops writing, live and in stop mode.
    Live(live::Args),
    /// Flush a snapshot and recover it, compared with what the device itself can do.
    Flush(flush::Args),
    /// Clone a guest whose memory arrives while it runs, compared with clones that wait for it.
    Lazy(lazy::Args),
    /// Save a running guest again and again, reading only what has changed, compared with full snapshots.
    Incremental(incremental::Args),
    #[command(flatten)]
    Serve(Serve),
    /// The baseline of `fork`, started by that command.
    #[command(hide = true)]
    Floor { memory: String, state: String },
}

fn main() -> ExitCode {
    let Args { verbose, command } = Args::parse();
    cloner_cli::start_logging(verbose);
    cloner_cli::exit("cloner-bench", command.run())
}

impl Command {
    fn run(&self) -> Result<u8, Error> {
        // Catching signals starts a thread, and these processes fork.
        if !matches!(self, Self::Serve(_) | Self::Floor { .. }) {
            interrupt::install()?;
        }
        match self {
            Self::Codec(args) => codec::run(args),
            Self::Branch(args) => branch::run(args),
            Self::Fork(args) => fork::run(args),
            Self::Live(args) => live::run(args),
            Self::Flush(args) => flush::run(args),
            Self::Lazy(args) => lazy::run(args),
            Self::Incremental(args) => incremental::run(args),
            Self::Serve(serve) => serve.run(),
            Self::Floor { memory, state } => fork::serve_floor(memory, state),
        }
    }
}
