//! The benches, one file for each thing that is measured, and what their reports share.

pub(crate) mod branch;
pub(crate) mod codec;
mod dirtying;
pub(crate) mod flush;
pub(crate) mod fork;
pub(crate) mod incremental;
pub(crate) mod lazy;
pub(crate) mod live;
mod passes;
mod pulse;
mod report;
mod spread;
mod table;
mod times;

use std::collections::BTreeMap;
use std::io::{self, Write};

use cloner_cli::Error;
use serde::Serialize;

/// Prints a report: either a JSON object that holds it under the name of the bench, or its text for people.
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

#[cfg(test)]
mod tests;
