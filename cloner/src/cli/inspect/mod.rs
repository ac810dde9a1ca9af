//! `cloner inspect`: what a memory image is made of.

mod html;
mod map;
mod report;
mod table;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use self::report::Report;
use super::clone::threads;
use super::progress::{self, Spinner};
use super::{Error, interrupt};
use crate::measure::{HotEncoder, Image};

const EXAMPLES: &str = "\
Examples:
  cloner inspect memory.raw
  cloner inspect memory.raw --html memory.html     with a map of memory, one cell for each chunk
  cloner inspect memory.raw --json | jq .chunk_ratio";

/// Options of `cloner inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Raw memory image, a multiple of 4 KiB
    #[arg(value_name = "IMAGE")]
    image: PathBuf,
    /// Write a page with a map of memory, too; it needs nothing but a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let image = {
        let _spinner = Spinner::new(format!("reading {}", args.image.display()));
        Image::read(&args.image)?
    };
    let encoder = HotEncoder::new(threads())?;
    let progress = interrupt::progress();
    progress.start(image.bytes().len() as u64);
    let hot = progress::bar("encoding", &progress, || encoder.encode(&image, None, &progress))?;
    let report = Report::new(args.image.display().to_string(), hot.chunk_stats());
    if let Some(path) = &args.html {
        fs::write(path, html::page(&report)).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    let text = if args.json { report.json() } else { table::of(&report) };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::Output)?;
    Ok(0)
}

#[cfg(test)]
mod tests;
