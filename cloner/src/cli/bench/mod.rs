//! `cloner bench`: how fast the parts are, on this machine and the user's own data.

mod codec;
mod flush;
mod passes;
mod report;
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
    /// Flush a snapshot and recover it, beside what the device itself can do.
    Flush(flush::Args),
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    match &args.command {
        Command::Codec(args) => codec::run(args),
        Command::Flush(args) => flush::run(args),
    }
}

#[cfg(test)]
mod tests;
