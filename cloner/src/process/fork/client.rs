//! A zygote as the process that asks it for forks sees it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;

use vmm::Announce;

use super::Error;
use super::wire::{ZygoteAnswer, ZygoteRequest};
use crate::process::{Channel, ChildProcess, GuestProcess};
use crate::restore::Template;

/// The sub-command by which the `cloner` program becomes a zygote.
pub(super) const SUBCOMMAND: &str = "zygote";

/// A process that makes forks of one template. Dropping it ends it; forks live on.
#[derive(Debug)]
pub struct Zygote {
    // Dropped before the process, which is then waited for: closing the channel is what ends it.
    channel: Channel,
    process: ChildProcess,
}

impl Zygote {
    /// Starts `program`, which is `cloner` or a program that calls [`serve`](super::serve) when its argument is `zygote`, and
    /// passes it the template. Returns when the zygote is ready to fork.
    ///
    /// # Errors
    /// [`Error::Start`] if the program does not start, [`Error::Refused`] with the reason if it cannot use the template or this
    /// host, [`Error::ZygoteEnded`] if it ends without an answer, [`Error::Channel`] if messages cannot be passed.
    pub fn start(program: &Path, template: &Template) -> Result<Self, Error> {
        let (channel, theirs) = Channel::pair()?;
        let process = ChildProcess::spawn(program, SUBCOMMAND, theirs)
            .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        let zygote = Self { channel, process };
        let fds = [template.file().as_fd(), template.saved_state().as_fd()];
        match zygote.ask::<0>(&ZygoteRequest::SetUp, &fds)? {
            (ZygoteAnswer::Ready, []) => Ok(zygote),
            (answer, _) => Err(refused(answer)),
        }
    }

    /// Makes a fork. When this returns, its machine is still being built; [`GuestProcess::wait_running`] waits until it runs.
    ///
    /// Before it runs, the fork's guest is told who it is in the way that `announce` says.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason if the zygote cannot fork, [`Error::ZygoteEnded`] if it is gone, [`Error::Channel`] if
    /// messages or descriptors cannot be passed. Errors in the fork itself are reported by [`GuestProcess::wait_running`].
    pub fn fork(&self, announce: Announce) -> Result<GuestProcess, Error> {
        let (console, their_console) = UnixStream::pair()?;
        let (control, their_control) = Channel::pair()?;
        let fds = [their_console.as_fd(), their_control.as_fd()];
        match self.ask::<1>(&ZygoteRequest::Fork { announce }, &fds)? {
            (ZygoteAnswer::Forked { pid }, [pidfd]) => Ok(GuestProcess::new(pid, pidfd, console, control)),
            (answer, _) => Err(refused(answer)),
        }
    }

    /// The process id of the zygote.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Sends a request and waits for the answer, which comes with `N` descriptors if the request succeeded.
    fn ask<const N: usize>(
        &self,
        request: &ZygoteRequest,
        fds: &[BorrowedFd<'_>],
    ) -> Result<(ZygoteAnswer, [OwnedFd; N]), Error> {
        self.channel.send(request, fds)?;
        let (answer, fds) = self.channel.receive_any::<ZygoteAnswer>()?.ok_or(Error::ZygoteEnded)?;
        if let ZygoteAnswer::Failed(why) = answer {
            return Err(Error::Refused(why));
        }
        let fds = fds
            .try_into()
            .map_err(|_| Error::Refused(String::from("the answer came without its descriptor")))?;
        Ok((answer, fds))
    }
}

fn refused(answer: ZygoteAnswer) -> Error {
    match answer {
        ZygoteAnswer::Failed(why) => Error::Refused(why),
        ZygoteAnswer::Ready | ZygoteAnswer::Forked { .. } => {
            Error::Refused(String::from("the answer belongs to a different request"))
        }
    }
}
