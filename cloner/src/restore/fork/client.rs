//! The side that wants forks.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use vmm::{Announce, Identity};

use super::wire::{Answer, Channel, Report, Request};
use super::{Error, Template};

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

    /// Makes a fork. It is building itself when this returns; [`ForkedVm::wait_running`] tells when it runs.
    ///
    /// Its guest is told who it is before it runs, if `announce` says how.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn fork(&self, announce: Option<Announce>) -> Result<ForkedVm, Error> {
        let (console, their_console) = UnixStream::pair()?;
        let (control, their_control) = Channel::pair()?;
        let fds = [their_console.as_fd(), their_control.as_fd()];
        match self.ask::<1>(&Request::Fork { announce }, &fds)? {
            (Answer::Forked { pid }, [pidfd]) => Ok(ForkedVm { pid, pidfd, console, control }),
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

/// A clone in a process of its own. Dropping it ends it, in its own time.
#[derive(Debug)]
pub struct ForkedVm {
    pid: u32,
    pidfd: OwnedFd,
    console: UnixStream,
    control: Channel,
}

/// How a fork ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What the guest did, in words.
    pub message: String,
    /// Whether it shut down or asked for a reset, rather than crash.
    pub orderly: bool,
}

impl ForkedVm {
    /// Its process number.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// Its console: what is read was printed, what is written is typed.
    #[must_use]
    pub const fn console(&self) -> &UnixStream {
        &self.console
    }

    /// Waits until it runs, and tells who it is.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason if it could not be built, [`Error::ForkEnded`] if it was killed.
    pub fn wait_running(&self) -> Result<Identity, Error> {
        match self.control.receive::<Report, 0>()? {
            Some((Report::Running(identity), [])) => Ok(identity),
            Some((Report::Failed(why) | Report::Ended { message: why, .. }, [])) => Err(Error::Refused(why)),
            None => Err(Error::ForkEnded),
        }
    }

    /// Waits until it ends, but no longer than `limit`. `None` if it runs on.
    ///
    /// # Errors
    /// [`Error::ForkEnded`] if it was killed and could not say how it ended; the kernel's.
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<End>, Error> {
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(&self.control, left)? {
                return Ok(None);
            }
            match self.control.receive::<Report, 0>()? {
                Some((Report::Running(_), [])) => {}
                Some((Report::Ended { message, orderly }, [])) => return Ok(Some(End { message, orderly })),
                Some((Report::Failed(why), [])) => return Err(Error::Refused(why)),
                None => return Err(Error::ForkEnded),
            }
        }
    }

    /// Ends it, and waits until its process is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn end(self) -> Result<(), Error> {
        let Self { pidfd, console, control, .. } = self;
        drop((console, control));
        while !readable(&pidfd, Duration::from_secs(1))? {}
        Ok(())
    }
}

/// Waits until there is something to read, or nothing will ever be.
fn readable(fd: &impl AsFd, limit: Duration) -> Result<bool, Error> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let timeout =
        Timespec::try_from(limit).map_err(|_| Error::Channel(io::ErrorKind::InvalidInput.into()))?;
    match poll(&mut fds, Some(&timeout)) {
        // The caller asks again if it wants to.
        Err(rustix::io::Errno::INTR) => Ok(false),
        result => Ok(result.map_err(io::Error::from)? > 0),
    }
}
