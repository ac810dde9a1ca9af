//! The process that is forked.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::process::{PidfdFlags, pidfd_open};
use vmm::host::Host;

use super::wire::{Answer, Channel, Request};
use super::{Error, Template, guest};
use crate::sys::fork::{self, Side};

/// What a process has become when [`serve`] returns in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// The zygote: whoever wanted forks wants no more.
    Zygote,
    /// A fork: its guest has ended.
    Fork,
}

/// Makes this process a zygote: takes a template and then requests over `channel`, and returns once the other end is closed,
/// in the zygote and in every fork. The process must have no other thread.
///
/// # Errors
/// See [`Error`]. What concerns one fork is reported to whoever asked for it instead.
pub fn serve(channel: OwnedFd) -> Result<Role, Error> {
    let channel = Channel::from_fd(channel);
    let template = match set_up(&channel) {
        Ok(Some(template)) => template,
        Ok(None) => return Ok(Role::Zygote),
        Err(error) => {
            channel.send(&Answer::Failed(chain(&error)), &[])?;
            return Err(error);
        }
    };
    fork::forget_children();
    channel.send(&Answer::Ready, &[])?;
    while let Some((request, fds)) = channel.receive::<Request, 2>()? {
        let Request::Fork { announce } = request else {
            channel.send(&Answer::Failed(String::from("a zygote is set up once")), &[])?;
            continue;
        };
        match fork::fork() {
            Ok(Side::Child) => {
                drop(channel);
                let [console, control] = fds;
                guest::run(&template, announce, UnixStream::from(console), Channel::from_fd(control));
                return Ok(Role::Fork);
            }
            Ok(Side::Parent { child }) => {
                drop(fds);
                // The number cannot be another process's yet: numbers are dealt in turn, and this is the last one dealt.
                match pidfd_open(child, PidfdFlags::empty()) {
                    Ok(pidfd) => {
                        let pid = child.as_raw_nonzero().get().unsigned_abs();
                        channel.send(&Answer::Forked { pid }, &[pidfd.as_fd()])?;
                    }
                    Err(errno) => refuse(&channel, "the fork is gone", &errno.into())?,
                }
            }
            Err(error) => refuse(&channel, "cannot fork", &error)?,
        }
    }
    Ok(Role::Zygote)
}

fn refuse(channel: &Channel, what: &str, error: &io::Error) -> io::Result<()> {
    channel.send(&Answer::Failed(format!("{what}: {error}")), &[])
}

/// Everything that one fork after the other would have to do again.
fn set_up(channel: &Channel) -> Result<Option<Template>, Error> {
    let Some((request, [memory, state])) = channel.receive::<Request, 2>()? else { return Ok(None) };
    if !matches!(request, Request::SetUp) {
        return Err(Error::Refused(String::from("a zygote wants its template first")));
    }
    let template = Template::received(File::from(memory), File::from(state))?;
    Host::get().map_err(|error| Error::Refused(chain(&error)))?;
    Ok(Some(template))
}

/// An error and its causes in one line.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}
