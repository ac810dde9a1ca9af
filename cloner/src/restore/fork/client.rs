//! The side that wants forks: of a zygote.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use vmm::Announce;

use super::wire::{Answer, Request};
use super::{Error, Template};
use crate::process::{Channel, GuestProcess};

/// The sub-command by which the `cloner` program becomes a zygote.
pub(super) const SUBCOMMAND: &str = "zygote";

/// A process that makes forks of one template. Dropping it ends it; forks live on.
#[derive(Debug)]
pub struct Zygote {
    // `None` only while it is being dropped: closing the channel is what ends the process.
    channel: Option<Channel>,
    process: Child,
}

impl Zygote {
    /// Starts `program`, which is `cloner` or a program that calls [`serve`](super::serve) when its argument is `zygote`, and
    /// hands it the template.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(program: &Path, template: &Template) -> Result<Self, Error> {
        let (channel, theirs) = Channel::pair()?;
        let process = Command::new(program)
            .arg(SUBCOMMAND)
            .stdin(Stdio::from(theirs.into_fd()))
            .stdout(Stdio::null())
            // Ctrl-C is for the one that waits at the terminal; it closes the channel then.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        let zygote = Self { channel: Some(channel), process };
        let fds = [template.file().as_fd(), template.saved_state().as_fd()];
        match zygote.ask::<0>(&Request::SetUp, &fds)? {
            (Answer::Ready, []) => Ok(zygote),
            (answer, _) => Err(refused(answer)),
        }
    }

    /// Makes a fork. It is building itself when this returns; [`GuestProcess::wait_running`] tells when it runs.
    ///
    /// Its guest is told who it is before it runs, if `announce` says how.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn fork(&self, announce: Option<Announce>) -> Result<GuestProcess, Error> {
        let (console, their_console) = UnixStream::pair()?;
        let (control, their_control) = Channel::pair()?;
        let fds = [their_console.as_fd(), their_control.as_fd()];
        match self.ask::<1>(&Request::Fork { announce }, &fds)? {
            (Answer::Forked { pid }, [pidfd]) => Ok(GuestProcess::new(pid, pidfd, console, control)),
            (answer, _) => Err(refused(answer)),
        }
    }

    /// The zygote's process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Asks; `N` descriptors come with the answer that is hoped for.
    fn ask<const N: usize>(
        &self,
        request: &Request,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(Answer, [OwnedFd; N]), Error> {
        let channel = self.channel.as_ref().ok_or(Error::ZygoteEnded)?;
        channel.send(request, fds)?;
        let (answer, fds) = channel.receive_any::<Answer>()?.ok_or(Error::ZygoteEnded)?;
        if let Answer::Failed(why) = answer {
            return Err(Error::Refused(why));
        }
        let fds =
            fds.try_into().map_err(|_| Error::Refused(String::from("an answer without its descriptor")))?;
        Ok((answer, fds))
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        self.channel = None;
        // It ends at once, having nothing to clean up. An error means that somebody else has waited for it.
        if let Err(error) = self.process.wait() {
            tracing::debug!(%error, "the zygote was gone");
        }
    }
}

fn refused(answer: Answer) -> Error {
    match answer {
        Answer::Failed(why) => Error::Refused(why),
        Answer::Ready | Answer::Forked { .. } => {
            Error::Refused(String::from("an answer to another question"))
        }
    }
}
