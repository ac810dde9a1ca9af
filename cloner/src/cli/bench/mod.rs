//! `cloner bench`: how fast the parts are, on this machine and the user's own data.

mod codec;
mod incremental;
mod lazy;
mod passes;
mod pulse;
mod report;
mod spread;
mod table;

use clap::Subcommand;

use super::Error;

/// Options of `cloner bench`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Encode and decode a raw memory image beside memcpy, lz4 and zstd on the same pages.
    Codec(codec::Args),
    /// Clone a guest whose memory arrives while it runs, beside clones that wait for it.
    Lazy(lazy::Args),
    /// Save a running guest again and again, reading only what has changed, beside full snapshots.
    Incremental(incremental::Args),
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    match &args.command {
        Command::Codec(args) => codec::run(args),
        Command::Lazy(args) => lazy::run(args),
        Command::Incremental(args) => incremental::run(args),
    }
}

#[cfg(test)]
mod tests;
