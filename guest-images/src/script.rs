//! Scripts that build images, or find them in their cache, and say where they are.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why there is no image.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build script cannot be run.
    #[error("cannot run {}", script.display())]
    Run {
        /// The script.
        script: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The build script failed; it has said why on standard error.
    #[error("{} failed: {status}", script.display())]
    Failed {
        /// The script.
        script: PathBuf,
        /// How it ended.
        status: std::process::ExitStatus,
    },
    /// What the build script needs is not installed, and this user cannot install it.
    #[error("{} needs what only root can install: {missing}", script.display())]
    Missing {
        /// The script.
        script: PathBuf,
        /// Debian packages, separated by blanks.
        missing: String,
    },
    /// The build script did not name a file it should have.
    #[error("{} did not say where its {what} is", script.display())]
    Silent {
        /// The script.
        script: PathBuf,
        /// Which file.
        what: &'static str,
    },
}

/// What a script has printed: lines of the name of a file, its path and its SHA-256.
pub(crate) struct Output {
    script: PathBuf,
    text: String,
}

/// A script of this crate, beside the sources this library was built from.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs a script to its end. What it has to say to people goes to standard error.
pub(crate) fn run(script: PathBuf) -> Result<Output, Error> {
    let command = Command::new(&script).stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = command.map_err(|source| Error::Run { script: script.clone(), source })?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        let missing = text.lines().find_map(|line| line.strip_prefix("missing ")).map(str::to_owned);
        return Err(match missing {
            Some(missing) => Error::Missing { script, missing },
            None => Error::Failed { script, status: output.status },
        });
    }
    Ok(Output { script, text })
}

impl Output {
    /// The path of the file that the script calls `what`.
    pub(crate) fn path(&self, what: &'static str) -> Result<PathBuf, Error> {
        let line = self.text.lines().find_map(|line| line.strip_prefix(what)?.strip_prefix(' '));
        let path = line.and_then(|rest| rest.rsplit_once(' ')).map(|(path, _sha256)| PathBuf::from(path));
        path.ok_or_else(|| Error::Silent { script: self.script.clone(), what })
    }
}
