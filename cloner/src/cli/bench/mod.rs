//! `cloner bench`: how fast the parts are, on this machine and the user's own data.

mod branch;
mod codec;
mod dirtying;
mod flush;
mod fork;
mod incremental;
mod lazy;
mod live;
mod passes;
mod pulse;
mod report;
mod spread;
mod table;
mod times;

use std::collections::BTreeMap;
use std::io::{self, Write};

use clap::Subcommand;
use serde::Serialize;

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
    /// Make second machines of one that never stops writing, beside the way through the pool.
    Branch(branch::Args),
    /// Fork a template many times, beside the bare cost of the same KVM calls.
    Fork(fork::Args),
    /// Take snapshots of a guest that never stops writing, live and in stop mode.
    Live(live::Args),
    /// Flush a snapshot and recover it, beside what the device itself can do.
    Flush(flush::Args),
    /// Clone a guest whose memory arrives while it runs, beside clones that wait for it.
    Lazy(lazy::Args),
    /// Save a running guest again and again, reading only what has changed, beside full snapshots.
    Incremental(incremental::Args),
}

pub(super) use fork::serve_floor;

/// Prints a report: one JSON object that holds it under the name of the bench, or its text for people.
fn print(
    name: &'static str,
    report: &impl Serialize,
    json: bool,
    text: impl FnOnce() -> String,
) -> Result<(), Error> {
    let text = if json {
        serde_json::to_string_pretty(&BTreeMap::from([(name, report)]))
            .expect("plain structs of numbers and strings")
    } else {
        text()
    };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::Output)
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    match &args.command {
        Command::Codec(args) => codec::run(args),
        Command::Branch(args) => branch::run(args),
        Command::Fork(args) => fork::run(args),
        Command::Live(args) => live::run(args),
        Command::Flush(args) => flush::run(args),
        Command::Lazy(args) => lazy::run(args),
        Command::Incremental(args) => incremental::run(args),
    }
}

#[cfg(test)]
mod tests;
