//! `cloner inspect`: shows what a memory image, a snapshot or an encoded chunk consists of.

mod escape;
mod html;
mod map;
mod report;
mod source;
mod table;

use std::fs;
use std::io::{self, Write};
use std::path::PathBuf;

use self::report::Report;
use self::source::InspectSource;
use crate::Error;
use crate::folder::FolderArgs;

impl From<source::Error> for Error {
    fn from(error: source::Error) -> Self {
        Self::Other(Box::new(error))
    }
}

const EXAMPLES: &str = "\
Examples:
  cloner inspect memory.raw
  cloner inspect memory.raw --html memory.html     with a map of memory, one cell for each chunk
  cloner inspect memory.raw --json | jq .chunk_ratio
  cloner inspect chunk                             an encoded chunk, hot or cold, as FORMAT.md describes it
  cloner inspect /var/lib/cloner --snapshot web    a snapshot in a flush folder

The first bytes of a file tell what it is. If they are not a chunk's, the file is an image, and is encoded to see the result.";

/// Options of `cloner inspect`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Raw memory image (a multiple of 4 KiB), encoded chunk, or flush folder
    #[arg(value_name = "IMAGE|FOLDER")]
    image: PathBuf,
    /// Which snapshot of a flush folder to show, if it holds several
    #[arg(long, value_name = "NAME")]
    snapshot: Option<String>,
    #[command(flatten)]
    folder: FolderArgs,
    /// Also write a page with a map of memory; it needs only a browser
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let source = if args.image.is_dir() || args.snapshot.is_some() {
        InspectSource::read_snapshot(&args.image, args.snapshot.as_deref(), &args.folder)?
    } else {
        InspectSource::read(&args.image)?
    };
    let mut name = args.image.display().to_string();
    if let InspectSource::Snapshot(snapshot) = &source {
        name = format!("{} in {name}", snapshot.name());
    }
    let report = Report::new(name, source.what(), &source.chunks(&args.image)?);
    if let Some(path) = &args.html {
        fs::write(path, html::page(&report)).map_err(|source| Error::Write { path: path.clone(), source })?;
    }
    let text = if args.json { report.json() } else { table::of(&report) };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::Output)?;
    Ok(0)
}

#[cfg(test)]
mod tests;
