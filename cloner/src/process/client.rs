//! A guest process as the process that asked for it sees it.

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

use super::boot::BootRequest;
use super::wire::{BranchAnswer, BranchRequest, GuestReport, GuestRequest};
use super::{Channel, Error};
use crate::admission::CopyLimits;

/// The sub-command by which the `cloner` program becomes a guest process.
const SUBCOMMAND: &str = "guest";

/// How long to wait for a process that no longer answers to say how its guest ended.
const END_REPORT_WAIT: Duration = Duration::from_secs(1);

/// A machine in a process of its own. Dropping this ends the process; if it was booted here, the drop also waits for it.
#[derive(Debug)]
pub struct GuestProcess {
    pid: u32,
    pidfd: OwnedFd,
    console: UnixStream,
    control: Channel,
    /// How the guest ended. The process reports that only once, so it is remembered here.
    end: OnceLock<GuestEnding>,
    // Dropped after `control`: closing that is what ends the process.
    reaped: Option<ChildProcess>,
}

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GuestEnding {
    /// What the guest did, as a phrase for a message.
    pub message: String,
    /// Whether the guest shut down or asked for a reset instead of crashing.
    pub orderly: bool,
}

/// What a branch cost its source.
#[derive(Debug, Clone, Copy)]
pub struct BranchReport {
    /// How long the source stood still: from the request to pause until it ran again.
    pub pause: Duration,
    /// The part of the pause that was `fork()`.
    pub fork_time: Duration,
    /// Bytes that source and branch share at first, and may come to have twice.
    pub copy_bound_bytes: u64,
}

impl GuestProcess {
    /// Boots a guest in a process of its own: `program`, which is `cloner` or a program that calls [`serve`](super::serve) when
    /// its argument is `guest`. When this returns, the machine is still being built; [`wait_running`](Self::wait_running) waits
    /// until it runs.
    ///
    /// # Errors
    /// [`Error::OverTemplate`] if the memory is to lie over a template, [`Error::Start`] if the program does not start, and
    /// [`Error::Channel`] if descriptors cannot be made or passed. If the process ends at once: [`Error::Ended`], or
    /// [`Error::Refused`] with the reason that it gave.
    pub fn boot(program: &Path, config: &Config) -> Result<Self, Error> {
        let (message, image) = BootRequest::of(config)?;
        let (console, their_console) = UnixStream::pair()?;
        let (control, theirs) = Channel::pair()?;
        let process = ChildProcess::spawn(program, SUBCOMMAND, theirs)
            .map_err(|source| Error::Start { program: program.display().to_string(), source })?;
        let pid = Pid::from_child(&process.0);
        let pidfd = pidfd_open(pid, PidfdFlags::empty()).map_err(io::Error::from)?;
        let pid = process.id();
        let guest = Self { pid, pidfd, console, control, end: OnceLock::new(), reaped: Some(process) };
        guest.ask(&GuestRequest::Boot(message), &[their_console.as_fd(), image.as_fd()])?;
        Ok(guest)
    }

    /// A guest process that another process has forked.
    pub(crate) const fn new(pid: u32, pidfd: OwnedFd, console: UnixStream, control: Channel) -> Self {
        Self { pid, pidfd, console, control, end: OnceLock::new(), reaped: None }
    }

    /// The process id of the guest's process.
    #[must_use]
    pub const fn pid(&self) -> u32 {
        self.pid
    }

    /// The guest's console: reading gives what the guest prints, and what is written is typed into it.
    #[must_use]
    pub const fn console(&self) -> &UnixStream {
        &self.console
    }

    /// Makes a second machine of this one as it is now, while it runs on: a guest process of its own, with the same memory,
    /// registers and devices, which can be branched in turn. When this returns, the branch is still being built.
    ///
    /// Before it runs, the branch's guest is told who it is in the way that `announce` says.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason, such as memory that is shared, or too little of it: this guest runs on.
    /// [`Error::GuestEnded`] if the guest has ended, [`Error::Ended`] if its process was killed, and [`Error::Channel`] if
    /// descriptors cannot be made or passed.
    pub fn branch(&self, announce: Announce, limits: CopyLimits) -> Result<(Self, BranchReport), Error> {
        self.request_branch(BranchRequest { announce, hold: false, copy_bytes: limits.copy_bytes })
    }

    pub(super) fn request_branch(&self, request: BranchRequest) -> Result<(Self, BranchReport), Error> {
        let (console, their_console) = UnixStream::pair()?;
        let (control, their_control) = Channel::pair()?;
        let (answers, their_answers) = Channel::pair()?;
        let fds = [their_console.as_fd(), their_control.as_fd(), their_answers.as_fd()];
        self.ask(&GuestRequest::Branch(request), &fds)?;
        // While this process holds copies of these ends, it could not notice that the other process is gone.
        drop((their_console, their_control, their_answers));
        let (answer, fds) = answers.receive_any::<BranchAnswer>()?.ok_or_else(|| self.how_it_ended())?;
        let (pid, report) = match answer {
            BranchAnswer::Branched { pid, pause_ns, fork_ns, copy_bound_bytes } => {
                let (pause, fork_time) = (Duration::from_nanos(pause_ns), Duration::from_nanos(fork_ns));
                (pid, BranchReport { pause, fork_time, copy_bound_bytes })
            }
            BranchAnswer::Refused(why) => return Err(Error::Refused(why)),
        };
        let [pidfd] = <[OwnedFd; 1]>::try_from(fds)
            .map_err(|_| Error::Refused(String::from("the answer came without its descriptor")))?;
        Ok((Self::new(pid, pidfd, console, control), report))
    }

    fn ask(&self, request: &GuestRequest, fds: &[std::os::fd::BorrowedFd<'_>]) -> Result<(), Error> {
        match self.control.send(request, fds) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(self.how_it_ended()),
            result => Ok(result?),
        }
    }

    /// Why a process that no longer answers has ended, as far as it could say.
    fn how_it_ended(&self) -> Error {
        match self.wait_timeout(END_REPORT_WAIT) {
            Ok(Some(end)) => Error::GuestEnded(end),
            Ok(None) => Error::Ended,
            Err(error) => error,
        }
    }

    /// Waits until the guest runs, and returns its identity.
    ///
    /// # Errors
    /// [`Error::Refused`] with the reason if the machine could not be built or has ended already, [`Error::Ended`] if its process
    /// was killed, [`Error::Channel`] if no valid report can be received.
    pub fn wait_running(&self) -> Result<Identity, Error> {
        match self.control.receive::<GuestReport, 0>()? {
            Some((GuestReport::Running(identity), [])) => Ok(identity),
            Some((GuestReport::Failed(why) | GuestReport::Ended { message: why, .. }, [])) => {
                Err(Error::Refused(why))
            }
            Some((GuestReport::Holding { .. }, [])) => {
                Err(Error::Refused(String::from("the guest holds still")))
            }
            None => Err(Error::Ended),
        }
    }

    /// Waits until the guest ends, but no longer than `limit`. `None` if it is still running.
    ///
    /// # Errors
    /// [`Error::Ended`] if its process was killed and could not say how the guest ended, [`Error::Refused`] with the reason if the
    /// machine could not be built, [`Error::Channel`] if the kernel refuses to wait or no valid report can be received.
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<GuestEnding>, Error> {
        if let Some(end) = self.end.get() {
            return Ok(Some(end.clone()));
        }
        let deadline = Instant::now() + limit;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if !readable(&self.control, left)? {
                return Ok(None);
            }
            match self.control.receive::<GuestReport, 0>()? {
                Some((GuestReport::Running(_) | GuestReport::Holding { .. }, [])) => {}
                Some((GuestReport::Ended { message, orderly }, [])) => {
                    return Ok(Some(self.end.get_or_init(|| GuestEnding { message, orderly }).clone()));
                }
                Some((GuestReport::Failed(why), [])) => return Err(Error::Refused(why)),
                None => return Err(Error::Ended),
            }
        }
    }

    /// Whether the guest's process still exists.
    ///
    /// # Errors
    /// [`Error::Channel`] with the kernel's reason if it cannot be asked about the process.
    pub fn is_alive(&self) -> Result<bool, Error> {
        Ok(!readable(&self.pidfd, Duration::ZERO)?)
    }

    /// Ends the guest, and waits until its process is gone.
    ///
    /// # Errors
    /// [`Error::Channel`] with the kernel's reason if it cannot wait for the process, which ends nevertheless.
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

    /// Lets a branch that holds still run.
    pub(super) fn let_run(&self) -> Result<(), Error> {
        self.ask(&GuestRequest::Run, &[])
    }
}

/// A child of this process. Dropping this waits for it, which takes no time: the child has been told to end by then, and it has
/// nothing to clean up.
#[derive(Debug)]
pub(crate) struct ChildProcess(Child);

impl ChildProcess {
    /// Starts `program` with one argument and its end of a channel as standard input.
    pub(crate) fn spawn(program: &Path, subcommand: &str, channel: Channel) -> io::Result<Self> {
        Command::new(program)
            .arg(subcommand)
            .stdin(Stdio::from(channel.into_fd()))
            .stdout(Stdio::null())
            // Ctrl-C is for the process that waits at the terminal, which then closes the channel.
            .process_group(0)
            .spawn()
            .map(Self)
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for ChildProcess {
    fn drop(&mut self) {
        if let Err(error) = self.0.wait() {
            // Something else in this process has waited for it.
            tracing::debug!(%error, "cannot wait for a child process");
        }
    }
}

/// Waits until there is something to read or the other end is closed, but no longer than `limit`. `false` if neither happened.
fn readable(fd: &impl AsFd, limit: Duration) -> Result<bool, Error> {
    let mut fds = [PollFd::new(fd, PollFlags::IN)];
    let timeout =
        Timespec::try_from(limit).map_err(|_| Error::Channel(io::ErrorKind::InvalidInput.into()))?;
    match poll(&mut fds, Some(&timeout)) {
        // The caller can ask again.
        Err(rustix::io::Errno::INTR) => Ok(false),
        result => Ok(result.map_err(io::Error::from)? > 0),
    }
}

#[cfg(test)]
mod tests;
