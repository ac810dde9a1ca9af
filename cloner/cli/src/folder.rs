//! Flush folders on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::{Error, interrupt, progress};
use cloner::flush::files::RealFiles;
use cloner::flush::{
    self, EncryptionKey, Folder, FolderOptions, Form, RecoverOptions, RecoverReport, Recoverer, Survey,
    SurveyLine, this_host,
};
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate};
use cloner::progress::{Progress, Watch};

/// How a folder is opened; its path is given elsewhere.
#[derive(Debug, Clone, clap::Args)]
pub struct FolderArgs {
    /// Key of an encrypted folder: 32 bytes or 64 hexadecimal digits, readable by its owner alone
    #[arg(long = "key", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take over a folder that another host has made
    #[arg(long)]
    adopt: bool,
}

impl FolderArgs {
    /// The options for opening a folder that belongs to `host`.
    pub fn options(&self, host: String) -> Result<FolderOptions, Error> {
        let key = self.key.as_deref().map(EncryptionKey::read).transpose()?;
        Ok(FolderOptions { host, adopt: self.adopt, key })
    }

    /// Opens a folder of this host, which must exist.
    pub fn open(&self, path: &Path) -> Result<Folder, Error> {
        if !path.is_dir() {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::Folder { path: path.to_owned(), source });
        }
        open(path, &self.options(this_host()?)?)
    }
}

/// Opens a folder, which is created if it is missing.
pub fn open(path: &Path, options: &FolderOptions) -> Result<Folder, Error> {
    let files = RealFiles::open(path).map_err(|source| match source.kind() {
        std::io::ErrorKind::WouldBlock => {
            Error::Flush(flush::Error::Busy { folder: path.display().to_string() })
        }
        _ => Error::Folder { path: path.to_owned(), source },
    })?;
    if !files.is_direct() {
        tracing::warn!(folder = %path.display(), "files go through the page cache: the file system has no direct I/O");
    }
    Folder::open(Arc::new(files), options).map_err(|error| match error {
        flush::Error::OtherHost { .. } => Error::NotAdopted(error),
        other => other.into(),
    })
}

/// Reads the wanted snapshots, and what they refer to, into `pool`.
pub fn load(
    recoverer: &Recoverer,
    folder: &Folder,
    pool: &Pool,
    wanted: impl Fn(&str) -> bool,
) -> Result<RecoverReport, Error> {
    let progress = Progress::default();
    let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
    let options = RecoverOptions { wanted: Some(&wanted), watch, ..RecoverOptions::default() };
    let recover = || recoverer.recover(folder, pool, &options);
    Ok(progress::bar("reading", &progress, recover)?)
}

/// A pool of ordinary memory, populated only as it is used, with room for a folder's snapshots.
pub fn scratch_pool(survey: &Survey) -> Result<Pool, Error> {
    /// How many times larger cold chunks can become when they are made hot again; seldom more than twice.
    const COLD_FACTOR: u64 = 4;
    let bytes = |one: &SurveyLine| match one.form {
        Form::Hot => one.file_bytes,
        Form::Cold => one.file_bytes.saturating_mul(COLD_FACTOR),
    };
    let bytes: u64 = survey.snapshots.iter().map(bytes).sum::<u64>() + (2 << 20);
    let capacity_bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(Pool::new(&PoolConfig { capacity_bytes, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse })?)
}
