//! A zygote as the process that asks it for forks sees it.

use std::io;
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
        self.channel.send(request, fds).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => Error::ZygoteEnded,
            _ => error.into(),
        })?;
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

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::thread;

    use super::*;

    /// A zygote whose channel a test answers. The process beside it has nothing to do with it.
    fn zygote() -> (Zygote, Channel) {
        let (channel, theirs) = Channel::pair().unwrap();
        let (_, stdin) = Channel::pair().unwrap();
        let process = ChildProcess::spawn(Path::new("/bin/true"), SUBCOMMAND, stdin).unwrap();
        (Zygote { channel, process }, theirs)
    }

    /// What a fork comes to if the zygote does this with the request.
    fn fork(answer: impl FnOnce(Channel, Vec<OwnedFd>) + Send + 'static) -> Result<GuestProcess, Error> {
        let (zygote, theirs) = zygote();
        let answering = thread::spawn(move || {
            let (_, fds) = theirs.receive_any::<ZygoteRequest>().unwrap().unwrap();
            answer(theirs, fds);
        });
        let result = zygote.fork(Announce::Never);
        answering.join().unwrap();
        result
    }

    #[test]
    fn a_zygote_that_ends_at_any_point_of_a_request_has_ended() {
        let (gone, theirs) = zygote();
        drop(theirs);
        for _ in 0..2 {
            assert!(matches!(gone.fork(Announce::Never), Err(Error::ZygoteEnded)));
        }
        assert!(matches!(fork(|_, _| ()), Err(Error::ZygoteEnded)), "after it took the request");
        let (unread, theirs) = zygote();
        let ending = thread::spawn(move || {
            // The request is there, and is never read.
            let mut fds = [rustix::event::PollFd::new(&theirs, rustix::event::PollFlags::IN)];
            rustix::event::poll(&mut fds, None).unwrap();
        });
        assert!(
            matches!(unread.fork(Announce::Never), Err(Error::ZygoteEnded)),
            "before it took the request"
        );
        ending.join().unwrap();
    }

    #[test]
    fn an_answer_without_its_descriptor_or_to_something_else_is_refused() {
        let forked = ZygoteAnswer::Forked { pid: 1 };
        let file = File::open("/proc/self/stat").unwrap();
        for (answer, fds, part) in [
            (forked, 0, "without its descriptor"),
            (ZygoteAnswer::Forked { pid: 1 }, 2, "without its descriptor"),
            (ZygoteAnswer::Ready, 1, "a different request"),
            (ZygoteAnswer::Failed(String::from("no room")), 0, "no room"),
        ] {
            let file = file.try_clone().unwrap();
            let result = fork(move |theirs, _| theirs.send(&answer, &vec![file.as_fd(); fds]).unwrap());
            let error = result.map(|_| ()).unwrap_err();
            assert!(matches!(&error, Error::Refused(why) if why.contains(part)), "{error}");
        }
        let pidfd = File::open("/proc/self/stat").unwrap();
        let forked = fork(move |theirs, fds| {
            assert_eq!(fds.len(), 2, "console and control");
            theirs.send(&ZygoteAnswer::Forked { pid: 77 }, &[pidfd.as_fd()]).unwrap();
        });
        assert_eq!(forked.unwrap().pid(), 77);
    }
}
