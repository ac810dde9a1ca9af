//! A guest process from outside.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use vmm::{Announce, Config, Identity};

use super::boot::Boot;
use super::wire::{Answer, BranchRequest, Report, Request};
use super::{Channel, Error};
use crate::moment::Limits;

/// The sub-command by which the `cloner` program becomes a guest process.
const SUBCOMMAND: &str = "guest";

/// How long a process whose guest has ended may take to say how.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// A machine in a process of its own. Dropping it ends it; if it was booted here, its process is waited for.
#[derive(Debug)]
pub struct GuestProcess {
    pid: u32,
    pidfd: OwnedFd,
    console: UnixStream,
    control: Channel,
    /// How its guest ended, which it says once.
    end: OnceLock<End>,
    // After `control`, whose end is what ends the process.
    reaped: Option<Reaped>,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// What the guest did, in words.
    pub message: String,
    /// Whether it shut down or asked for a reset, rather than crash.
    pub orderly: bool,
}

/// What a branch cost its source.
#[derive(Debug, Clone, Copy)]
pub struct BranchReport {
    /// How long the source stood still: from the moment it was to stop to the moment it ran again.
    pub pause: Duration,
    /// The part of the pause that was `fork()`.
    pub fork_time: Duration,
    /// Bytes the two share now, and may come to have twice.
    pub copy_bound_bytes: u64,
}

impl GuestProcess {
    /// Boots a guest in a process of its own: `program`, which is `cloner` or a program that calls [`serve`](super::serve) when its
    /// argument is `guest`. It is building itself when this returns; [`wait_running`](Self::wait_running) tells when it runs.
    ///
    /// # Errors
    /// See [`Error`].
    pub fn boot(program: &Path, config: &Config) -> Result<Self, Error> {
        let (message, image) = Boot::of(config)?;
        let (console, their_console) = UnixStream::pair()?;
        let (control, theirs) = Channel::pair()?;
        let process = Reaped::spawn(program, SUBCOMMAND, theirs)
            .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        let pid = Pid::from_child(&process.0);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let pid = process.id();
        let guest = Self { pid, pidfd, console, control, end: OnceLock::new(), reaped: Some(process) };
        guest.ask(&Request::Boot(message), &[their_console.as_fd(), image.as_fd()])?;
        Ok(guest)
    }

    /// A process that somebody else has made.
    pub(crate) const fn new(pid: u32, pidfd: OwnedFd, console: UnixStream, control: Channel) -> Self {
        Self { pid, pidfd, console, control, end: OnceLock::new(), reaped: None }
    }

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

    /// Makes a second machine of this one as it is now, while it runs on: a guest process of its own, with the same memory,
    /// registers and devices, which can be branched in turn. It is building itself when this returns.
    ///
    /// Its guest is told who it is before it runs, if `announce` says how.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, such as memory that is shared, or too little of it: this guest runs on.
    /// [`Error::GuestEnded`] if it has ended, [`Error::Ended`] if its process was killed.
    pub fn branch(&self, announce: Option<Announce>, limits: Limits) -> Result<(Self, BranchReport), Error> {
        self.order(BranchRequest { announce, hold: false, copy_bytes: limits.copy_bytes })
    }

    pub(super) fn order(&self, order: BranchRequest) -> Result<(Self, BranchReport), Error> {
        let (console, their_console) = UnixStream::pair()?;
        let (control, their_control) = Channel::pair()?;
        let (answers, their_answers) = Channel::pair()?;
        let fds = [their_console.as_fd(), their_control.as_fd(), their_answers.as_fd()];
        self.ask(&Request::Branch(order), &fds)?;
        // Or nobody would be seen to be gone.
        drop((their_console, their_control, their_answers));
        let (answer, fds) = answers.receive_any::<Answer>()?.ok_or_else(|| self.how_it_ended())?;
        let (pid, report) = match answer {
            Answer::Branched { pid, pause_ns, fork_ns, copy_bound_bytes } => {
                let (pause, fork_time) = (Duration::from_nanos(pause_ns), Duration::from_nanos(fork_ns));
                (pid, BranchReport { pause, fork_time, copy_bound_bytes })
            }
            Answer::Refused(why) => return Err(Error::Refused(why)),
        };
        let [pidfd] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| Error::Refused(String::from("an answer without its descriptor")))?;
        Ok((Self::new(pid, pidfd, console, control), report))
    }

    fn ask(&self, request: &Request, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Error> {
        match self.control.send(request, fds) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(self.how_it_ended()),
            result => Ok(result?),
        }
    }

    /// Why a process that does not answer has ended, as far as it could say.
    fn how_it_ended(&self) -> Error {
        match self.wait_timeout(LAST_WORDS) {
            Ok(Some(end)) => Error::GuestEnded(end),
            Ok(None) => Error::Ended,
            Err(error) => error,
        }
    }

    /// Waits until it runs, and tells who it is.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason if it could not be built, [`Error::Ended`] if it was killed.
    pub fn wait_running(&self) -> Result<Identity, Error> {
        match self.control.receive::<Report, 0>()? {
            Some((Report::Running(identity), [])) => Ok(identity),
            Some((Report::Failed(why) | Report::Ended { message: why, .. }, [])) => Err(Error::Refused(why)),
            Some((Report::Holding { .. }, [])) => Err(Error::Refused(String::from("it holds still"))),
            None => Err(Error::Ended),
        }
    }

    /// Waits until it ends, but no longer than `limit`. `None` if it runs on.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was killed and could not say how it ended; the kernel's.
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<End>, Error> {
        if let Some(end) = self.end.get() {
            return Ok(Some(end.clone()));
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(&self.control, left)? {
                return Ok(None);
            }
            match self.control.receive::<Report, 0>()? {
                Some((Report::Running(_) | Report::Holding { .. }, [])) => {}
                Some((Report::Ended { message, orderly }, [])) => {
                    return Ok(Some(self.end.get_or_init(|| End { message, orderly }).clone()));
                }
                Some((Report::Failed(why), [])) => return Err(Error::Refused(why)),
                None => return Err(Error::Ended),
            }
        }
    }

    /// Whether its process is there.
    ///
    /// # Errors
    /// The kernel's.
    pub fn is_alive(&self) -> Result<bool, Error> {
        Ok(!readable(&self.pidfd, Duration::ZERO)?)
    }

    /// Ends it, and waits until its process is gone.
    ///
    /// # Errors
    /// The kernel's.
    pub fn end(self) -> Result<(), Error> {
        let Self { pidfd, console, control, reaped, .. } = self;
        drop((console, control));
        while !readable(&pidfd, Duration::from_secs(1))? {}
        drop(reaped);
        Ok(())
    }

    pub(super) fn another_pidfd(&self) -> io::Result<OwnedFd> {
        self.pidfd.try_clone()
    }

    pub(super) const fn control(&self) -> &Channel {
        &self.control
    }

    /// Lets one that holds still run.
    pub(super) fn let_run(&self) -> Result<(), Error> {
        self.ask(&Request::Run, &[])
    }
}

/// A child of this process, which is waited for when this is dropped: it ends at once by then, having nothing to clean up.
#[derive(Debug)]
pub(crate) struct Reaped(Child);

impl Reaped {
    /// Starts `program` with one argument and its end of a channel as standard input.
    pub(crate) fn spawn(program: &Path, subcommand: &str, channel: Channel) -> io::Result<Self> {
        Command::new(program)
            .arg(subcommand)
            .stdin(Stdio::from(channel.into_fd()))
            .stdout(Stdio::null())
            // Ctrl-C is for the one that waits at the terminal; it closes the channel then.
            .process_group(0)
            .spawn()
            .map(Self)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Reaped {
    fn drop(&mut self) {
        if let Err(error) = self.0.wait() {
            // Somebody else has waited for it.
            tracing::debug!(%error, "a child was gone");
        }
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
