//! What this program is started as by itself: the process of a guest, or one that is forked.

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
    /// Serves on standard input until the other side is gone. To be called before anything starts a thread: this forks.
    ///
    /// # Errors
    /// [`Error::Terminal`] if there is no standard input; what ended the service.
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
    // Children must not inherit a second copy: it would keep the connection open when this process is gone.
    rustix::stdio::dup2_stdin(File::open("/dev/null")?)?;
    Ok(channel)
}
