//! `cloner host`: reports what this host can do, what it lacks, and what helps.
//!
//! ```text
//!   facts: read and tried ──► checks: judged, plain data in and out ──► report: a table, or JSON
//! ```

mod checks;
mod facts;
mod report;
mod trial;
mod ups;

use std::io::{self, Write};

use self::facts::HostFacts;
use self::report::Report;
use self::ups::Address;
use crate::{EXIT_FAILURE, Error};

const EXAMPLES: &str = "\
Each check is `ok`, `works, slower` or `missing`, with what was found, what it is for, and the command that helps.
Most checks try things out: a guest of 4 MiB is booted and cloned. Nothing is changed, and no privileges are needed.
Exit code 1 means that guests cannot be booted and cloned here.

Examples:
  cloner host
  cloner host --json | jq '.checks[] | select(.verdict != \"ok\")'
  cloner host --ups ups@localhost";

/// Options of `cloner host`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Also query this UPS of a NUT server
    #[arg(long, value_name = "NAME@HOST[:PORT]")]
    ups: Option<Address>,
    /// Print one JSON object instead: the checks, and the facts they are based on
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let facts = HostFacts::gather(args.ups.as_ref());
    let report = Report::new(checks::judge(&facts), facts);
    let text = if args.json { report.json() } else { report.to_string() };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::Output)?;
    Ok(if report.is_usable() { 0 } else { EXIT_FAILURE })
}
