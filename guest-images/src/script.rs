//! Running the scripts that build images, or find them in their cache, and print where they are.

use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why an image could not be built or found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The build script cannot be run.
    #[error("cannot run {}", script.display())]
    Run {
        /// Path of the script.
        script: PathBuf,
        /// The kernel's reason.
        source: io::Error,
    },
    /// The build script failed; it has printed the reason to standard error.
    #[error("{} failed: {status}", script.display())]
    Failed {
        /// Path of the script.
        script: PathBuf,
        /// The exit status or the signal it ended with.
        status: std::process::ExitStatus,
    },
    /// The build script needs packages that are not installed and that this user cannot install.
    #[error("{} needs packages that only root can install: {missing}", script.display())]
    Missing {
        /// Path of the script.
        script: PathBuf,
        /// Names of Debian packages, separated by blanks.
        missing: String,
    },
    /// The build script succeeded, but did not print where one of its files is.
    #[error("{} did not print where its {what} is", script.display())]
    Silent {
        /// Path of the script.
        script: PathBuf,
        /// The script's name for the file, such as `initramfs`.
        what: &'static str,
    },
}

/// The output of a script: one line per file, with its name, its path and its SHA-256.
pub(crate) struct Output {
    script: PathBuf,
    text: String,
}

/// The path of a script of this crate, beside the sources that this library was built from.
pub(crate) fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Runs a script to its end. Its messages for people go to standard error.
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
