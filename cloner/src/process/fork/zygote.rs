//! The zygote itself: the process that forks are made from.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;

use vmm::host::Host;
use vmm::host::fork::{ForkSide, ForkedChild, fork};

use super::Error;
use super::wire::{ZygoteAnswer, ZygoteRequest};
use crate::chain;
use crate::process::{self, Channel};
use crate::restore::Template;
use crate::sys::fork::forget_children;

/// Makes this process a zygote: takes a template and then requests over `channel`, and returns once the other end is closed.
/// The process must have no other thread. In forks this does not return.
///
/// # Errors
/// [`Error::Channel`] if no valid request can be received or no answer sent. [`Error::Template`] if
/// the template cannot be used, [`Error::Refused`] if this host cannot run guests, or the first request is not the one that brings
/// the template. Errors that concern one fork are reported to its caller instead.
pub fn serve(channel: OwnedFd) -> Result<(), Error> {
    let channel = Channel::from_fd(channel);
    let template = match set_up(&channel) {
        Ok(Some(template)) => template,
        Ok(None) => return Ok(()),
        Err(error) => {
            channel.send(&ZygoteAnswer::Failed(chain(&error)), &[])?;
            return Err(error);
        }
    };
    forget_children();
    channel.send(&ZygoteAnswer::Ready, &[])?;
    while let Some((request, fds)) = channel.receive::<ZygoteRequest, 2>()? {
        let ZygoteRequest::Fork { announce } = request else {
            channel.send(&ZygoteAnswer::Failed(String::from("a zygote can be set up only once")), &[])?;
            continue;
        };
        match fork() {
            Ok(ForkSide::Child) => {
                drop(channel);
                let [console, control] = fds;
                process::run(UnixStream::from(console), Channel::from_fd(control), |output| {
                    process::restore(template.state(), template.memory()?, announce, output)
                });
            }
            Ok(ForkSide::Parent(ForkedChild { pid, pidfd })) => {
                drop(fds);
                channel.send(&ZygoteAnswer::Forked { pid }, &[pidfd.as_fd()])?;
            }
            Err(error) => channel.send(&ZygoteAnswer::Failed(chain(&error)), &[])?,
        }
    }
    Ok(())
}

/// Does everything that would otherwise have to be done for each fork. `None` if the other end was closed first.
fn set_up(channel: &Channel) -> Result<Option<Template>, Error> {
    let Some((request, [memory, state])) = channel.receive::<ZygoteRequest, 2>()? else { return Ok(None) };
    if !matches!(request, ZygoteRequest::SetUp) {
        return Err(Error::Refused(String::from("the first request to a zygote has to bring its template")));
    }
    let template = Template::received(File::from(memory), File::from(state))?;
    Host::get().map_err(|error| Error::Refused(chain(&error)))?;
    Ok(Some(template))
}
