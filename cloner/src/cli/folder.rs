//! Flush folders on the command line.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::Error;
use crate::flush::files::RealFiles;
use crate::flush::{self, Folder, FolderOptions, Key, this_host};

/// How a folder is opened, besides where it is.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct FolderArgs {
    /// Key of a sealed folder: 32 bytes or 64 hexadecimal digits, readable by its owner alone
    #[arg(long = "key", value_name = "FILE")]
    key: Option<PathBuf>,
    /// Take over a folder that another host has made
    #[arg(long)]
    adopt: bool,
}

impl FolderArgs {
    /// The options for a folder of `host`.
    pub(super) fn options(&self, host: String) -> Result<FolderOptions, Error> {
        let key = self.key.as_deref().map(Key::read).transpose()?;
        Ok(FolderOptions { host, adopt: self.adopt, key })
    }

    /// Opens a folder of this host that must be there.
    pub(super) fn open(&self, path: &Path) -> Result<Folder, Error> {
        if !path.is_dir() {
            let source = std::io::ErrorKind::NotFound.into();
            return Err(Error::Folder { path: path.to_owned(), source });
        }
        open(path, &self.options(this_host())?)
    }
}

/// Opens a folder, which is made if there is none.
pub(super) fn open(path: &Path, options: &FolderOptions) -> Result<Folder, Error> {
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
