//! Flush folders on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, interrupt, progress};
use cloner::flush::files::RealFiles;
use cloner::flush::{
    self, Cleaning, Folder, FolderOptions, Form, Key, RecoverReport, Recoverer, Survey, Surveyed, this_host,
};
use cloner::pool::{Pages, Pool, PoolConfig, Populate};

/// How a folder is opened, besides where it is.
#[derive(Debug, Clone, clap::Args)]
pub struct FolderArgs {
    /// Key of a sealed folder: 32 bytes or 64 hexadecimal digits, readable by its owner alone
    #[arg(long = "key", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take over a folder that another host has made
    #[arg(long)]
    adopt: bool,
}

impl FolderArgs {
    /// The options for a folder of `host`.
    pub fn options(&self, host: String) -> Result<FolderOptions, Error> {
        let key = self.key.as_deref().map(Key::read).transpose()?;
        Ok(FolderOptions { host, adopt: self.adopt, key })
    }

    /// Opens a folder of this host that must be there.
    pub fn open(&self, path: &Path) -> Result<Folder, Error> {
        if !path.is_dir() {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::Folder { path: path.to_owned(), source });
        }
        open(path, &self.options(this_host())?)
    }
}

/// Opens a folder, which is made if there is none.
pub fn open(path: &Path, options: &FolderOptions) -> Result<Folder, Error> {
    let files = RealFiles::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => {
            Error::Flush(flush::Error::Busy { folder: path.display().to_string() })
        }
        _ => Error::Folder { path: path.to_owned(), source },
    })?;
    if !files.is_direct() {
        tracing::warn!(folder = %path.display(), "goes through the page cache: its file system allows nothing else");
    }
    Ok(Folder::open(Arc::new(files), options)?)
}

/// Reads the snapshots that are wanted, and what they refer to, into `pool`.
pub fn load(
    recoverer: &Recoverer,
    folder: &Folder,
    pool: &Pool,
    wanted: impl Fn(&str) -> bool,
) -> Result<RecoverReport, Error> {
    let progress = interrupt::progress();
    let recover = || recoverer.recover(folder, pool, (wanted, Cleaning::Keep), &progress);
    Ok(progress::bar("reading", &progress, recover)?)
}

/// Ordinary memory that holds a folder's snapshots, taken as it is used.
pub fn scratch_pool(survey: &Survey) -> Result<Pool, Error> {
    /// What cold chunks can get to when they are hot again; seldom more than twice as much.
    const COLD_FACTOR: u64 = 4;
    let bytes = |one: &Surveyed| match one.form {
        Form::Hot => one.file_bytes,
        Form::Cold => one.file_bytes.saturating_mul(COLD_FACTOR),
    };
    let bytes: u64 = survey.snapshots.iter().map(bytes).sum::<u64>() + (2 << 20);
    let capacity_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(Pool::new(&PoolConfig { capacity_bytes, pages: Pages::Ordinary, populate: Populate::OnFirstUse })?)
}
