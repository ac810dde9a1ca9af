//! `cloner pool`: manages the snapshots in a flush folder.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde::Serialize;

use crate::columns::Columns;
use crate::folder::{self, FolderArgs};
use crate::size::Size;
use crate::threads;
use crate::{Error, interrupt, progress};
use cloner::flush::{
    ANY_HOST, DroppedFile, FlushSettings, Flusher, Folder, Form, Gauge, Recoverer, Survey, SurveyLine,
};
use cloner::progress::{Progress, Watch};
use cloner::rate::Rate;
use cloner::walk::Threads;

const EXAMPLES: &str = "\
Examples:
  cloner pool ls --dir /var/lib/cloner
  cloner pool check --dir /var/lib/cloner                      reads and verifies every byte
  cloner pool export golden --dir /var/lib/cloner --to /mnt/usb
  cloner pool import --dir /var/lib/cloner --from /mnt/usb

Only one process at a time can use a folder. `check` exits with 1 if anything is damaged.";

/// Options of `cloner pool`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the snapshots, and files that are not snapshots.
    Ls(FolderLocation),
    /// Verify every byte of every snapshot, as recovery does; needs as much memory as they have together.
    Check(FolderLocation),
    /// Remove a snapshot. What other snapshots refer to is kept for them.
    Rm(RemoveArgs),
    /// Copy snapshots, and what they refer to, into a separate folder that any host may open.
    Export(ExportArgs),
    /// Copy all snapshots of another folder into this one.
    Import(ImportArgs),
}

/// The folder to work on.
#[derive(Debug, Clone, clap::Args)]
struct FolderLocation {
    /// The flush folder
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    #[command(flatten)]
    folder: FolderArgs,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct RemoveArgs {
    /// Name of the snapshot
    name: String,
    #[command(flatten)]
    at: FolderLocation,
}

#[derive(Debug, clap::Args)]
struct ExportArgs {
    /// Names of the snapshots
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    at: FolderLocation,
    /// Folder to copy to; encrypted with the same key, if there is one
    #[arg(long, value_name = "DIR")]
    to: PathBuf,
}

#[derive(Debug, clap::Args)]
struct ImportArgs {
    #[command(flatten)]
    at: FolderLocation,
    /// Folder to copy from; encrypted with the same key, if there is one
    #[arg(long, value_name = "DIR")]
    from: PathBuf,
}

/// What a command found or did.
#[derive(Debug, Default, Serialize)]
struct Report {
    snapshots: Vec<SurveyLine>,
    damaged: Vec<DamagedFile>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verified_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copied: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    removed: Vec<String>,
}

/// A file that is not a valid snapshot.
#[derive(Debug, Serialize)]
struct DamagedFile {
    file: String,
    name: Option<String>,
    why: String,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    // More than there are processors: recovery reads with one while it verifies with another.
    let threads = Threads::new(threads() * 2)?;
    let recoverer = Recoverer::new(&threads);
    let (at, report) = match &args.command {
        Command::Ls(at) => {
            let (_, survey) = survey(&recoverer, at)?;
            (at, Report::of(survey))
        }
        Command::Check(at) => (at, check(&recoverer, at)?),
        Command::Rm(RemoveArgs { name, at }) => {
            let (folder, _) = survey(&recoverer, at)?;
            must_list(&folder, name)?;
            folder.remove(name)?;
            (at, Report { removed: vec![name.clone()], ..Report::default() })
        }
        Command::Export(ExportArgs { names, at, to }) => {
            let (source, survey) = survey(&recoverer, at)?;
            names.iter().try_for_each(|name| must_list(&source, name))?;
            let target = folder::open(to, &at.folder.options(String::from(ANY_HOST))?)?;
            let wanted = |name: &str| names.iter().any(|wanted| wanted == name);
            (at, copy(&threads, &recoverer, (&source, &survey), target, wanted)?)
        }
        Command::Import(ImportArgs { at, from }) => {
            let source = FolderLocation { dir: from.clone(), ..at.clone() };
            let (source, survey) = survey(&recoverer, &source)?;
            let target = folder::open(&at.dir, &at.folder.options(cloner::flush::this_host()?)?)?;
            (at, copy(&threads, &recoverer, (&source, &survey), target, |_| true)?)
        }
    };
    let text = if at.json {
        serde_json::to_string_pretty(&report).expect("plain structs of numbers and strings")
    } else {
        report.text(&at.dir)
    };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::Output)?;
    let damaged = !report.damaged.is_empty() && matches!(args.command, Command::Check(_));
    Ok(if damaged { crate::exit_code::EXIT_FAILURE } else { 0 })
}

fn survey(recoverer: &Recoverer, at: &FolderLocation) -> Result<(Folder, Survey), Error> {
    let folder = at.folder.open(&at.dir)?;
    let survey = recoverer.survey(&folder)?;
    Ok((folder, survey))
}

fn must_list(folder: &Folder, name: &str) -> Result<(), Error> {
    if folder.lists(name) {
        return Ok(());
    }
    Err(cloner::flush::Error::NotFound { folder: folder.place(), name: name.to_owned() }.into())
}

fn check(recoverer: &Recoverer, at: &FolderLocation) -> Result<Report, Error> {
    let (folder, survey) = survey(recoverer, at)?;
    let pool = folder::scratch_pool(&survey)?;
    let found = folder::load(recoverer, &folder, &pool, |_| true)?;
    let mut report = Report::of(Survey { dropped: found.dropped, ..survey });
    report.snapshots.retain(|one| found.recovered.iter().any(|recovered| recovered.name == one.name));
    report.verified_bytes = Some(found.read_bytes);
    Ok(report)
}

/// Copies through memory, so that what arrives has been verified, and is encrypted anew.
fn copy(
    threads: &Threads,
    recoverer: &Recoverer,
    (source, survey): (&Folder, &Survey),
    target: Folder,
    wanted: impl Fn(&str) -> bool,
) -> Result<Report, Error> {
    let pool = Arc::new(folder::scratch_pool(survey)?);
    let found = folder::load(recoverer, source, &pool, &wanted)?;
    if let Some(DroppedFile { name, file, why }) =
        found.dropped.into_iter().find(|dropped| dropped.name.is_some())
    {
        return Err(Error::NotSafe { name: name.unwrap_or(file), source: why });
    }
    recoverer.survey(&target)?;
    let all = pool.all();
    for stored in &all {
        if target.lists(stored.name()) {
            let (folder, name) = (target.place(), stored.name().to_owned());
            return Err(cloner::flush::Error::NameOnDisk { folder, name }.into());
        }
    }
    let rate = Rate { bytes_per_second: 1e9, commit: Duration::ZERO };
    let settings = FlushSettings { form: Some(Form::Hot), ..FlushSettings::default() };
    let gauge = Gauge::new(rate, 16 << 20);
    let flusher = Flusher::new(threads, Arc::clone(&pool), Arc::new(target), gauge, settings)?;
    let progress = Progress::default();
    let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
    let mut copied = Vec::new();
    for stored in &all {
        let safe = progress::bar("copying", &progress, || flusher.flush_snapshot(stored, watch));
        let safe = safe.map_err(|failure| Error::NotSafe { name: failure.name, source: failure.why })?;
        copied.extend(safe.into_iter().map(|safe| safe.name));
    }
    Ok(Report { copied, ..Report::default() })
}

impl Report {
    fn of(survey: Survey) -> Self {
        let damaged = survey.dropped.iter().map(DamagedFile::of).collect();
        Self { snapshots: survey.snapshots, damaged, ..Self::default() }
    }

    fn text(&self, dir: &Path) -> String {
        let mut table = Columns::new([
            dir.display().to_string(),
            String::from("file"),
            String::from("form"),
            String::from("priority"),
            String::from("refers to"),
        ]);
        for one in &self.snapshots {
            let name = if one.listed { one.name.clone() } else { format!("({}, removed)", one.name) };
            table.row([
                name,
                Size(one.file_bytes).to_string(),
                one.form.to_string(),
                one.labels.priority.0.to_string(),
                one.dependencies.join(" "),
            ]);
        }
        let mut text = String::new();
        if !table.is_empty() {
            text = table.to_string();
        }
        let mut lines: Vec<String> = Vec::new();
        lines.extend(self.damaged.iter().map(|damaged| format!("dropped   {}", damaged.why)));
        lines.extend(self.removed.iter().map(|name| format!("removed   {name}")));
        lines.extend(self.copied.iter().map(|name| format!("copied    {name}")));
        if let Some(bytes) = self.verified_bytes {
            lines.push(format!("verified  {} in {} snapshots", Size(bytes), self.snapshots.len()));
        }
        if text.is_empty() && lines.is_empty() {
            lines.push(format!("{} holds no snapshots", dir.display()));
        }
        text + &lines.join("\n")
    }
}

impl DamagedFile {
    fn of(dropped: &DroppedFile) -> Self {
        let mut why = dropped.why.to_string();
        let mut cause = std::error::Error::source(&dropped.why);
        while let Some(error) = cause {
            why = format!("{why}: {error}");
            cause = error.source();
        }
        Self { file: dropped.file.clone(), name: dropped.name.clone(), why }
    }
}
