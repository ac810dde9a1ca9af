//! The side that wants forks: of a zygote.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vmm::Announce;

use super::wire::{Answer, Request};
use super::{Error, Template};
use crate::process::{Channel, GuestProcess, Reaped};

/// The sub-command by which the `cloner` program becomes a zygote.
pub(super) const SUBCOMMAND: &str = "zygote";

/// A process that makes forks of one template. Dropping it ends it; forks live on.
#[derive(Debug)]
pub struct Zygote {
    // Before the process, which is waited for: closing the channel is what ends it.
    channel: Channel,
    process: Reaped,
}

impl Zygote {
    /// Starts `program`, which is `cloner` or a program that calls [`serve`](super::serve) when its argument is `zygote`, and
    /// hands it the template.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(program: &Path, template: &Template) -> Result<Self, Error> {
        let (channel, theirs) = Channel::pair()?;
        let process = Reaped::spawn(program, SUBCOMMAND, theirs)
            .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        let zygote = Self { channel, process };
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
        self.channel.send(request, fds)?;
        let (answer, fds) = self.channel.receive_any::<Answer>()?.ok_or(Error::ZygoteEnded)?;
        if let Answer::Failed(why) = answer {
            return Err(Error::Refused(why));
        }
        let fds =
            fds.try_into().map_err(|_| Error::Refused(String::from("an answer without its descriptor")))?;
        Ok((answer, fds))
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
