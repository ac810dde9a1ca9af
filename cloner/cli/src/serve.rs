//! The subcommands with which this program starts itself: as the process of a guest, or as one that is forked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use clap::Subcommand;
use cloner::process;

use crate::Error;

/// Subcommands for processes that the library starts, with a socket as standard input.
#[derive(Debug, Subcommand)]
pub enum Serve {
    /// Become a process that is forked; started by cloner itself, with a socket as standard input.
    #[command(hide = true)]
    Zygote,
    /// Become the process of a guest; started by cloner itself, with a socket as standard input.
    #[command(hide = true)]
    Guest,
}

impl Serve {
    /// Serves on standard input until the other side closes it. Call it before anything starts a thread, because it forks.
    ///
    /// # Errors
    /// [`Error::Terminal`] if standard input cannot be used; otherwise the error that ended the service.
    pub fn run(&self) -> Result<u8, Error> {
        let channel = take_stdin().map_err(Error::Terminal)?;
        match self {
            Self::Zygote => process::fork::serve(channel)?,
            Self::Guest => process::serve(channel)?,
        }
        Ok(0)
    }
}

fn take_stdin() -> io::Result<OwnedFd> {
    let channel = io::stdin().as_fd().try_clone_to_owned()?;
    // Children must not inherit a second copy: it would keep the connection open after this process has ended.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(channel)
}
