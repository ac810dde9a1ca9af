//! A fork: one virtual machine in a process of its own.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::thread;

use rustix::event::{PollFd, PollFlags, poll};
use vmm::{Announce, Vm};

use super::wire::{Channel, Report};
use super::zygote::chain;
use super::{Error, Template};
use crate::sys::fork::end_at_once;

/// Builds the machine, runs it to its end and says how it ended. If whoever wanted it is gone, the process ends at once.
pub(super) fn run(template: &Template, announce: Option<Announce>, console: UnixStream, control: Channel) {
    let vm = match build(template, announce, &console) {
        Ok(vm) => Arc::new(vm),
        Err(error) => {
            // Nobody left to tell.
            let _ = control.send(&Report::Failed(chain(&error)), &[]);
            return;
        }
    };
    vm.start();
    let control = Arc::new(control);
    let attended = control.send(&Report::Running(vm.identity()), &[]).and_then(|()| {
        let (vm, control) = (Arc::clone(&vm), Arc::clone(&control));
        thread::Builder::new().name(String::from("attend")).spawn(move || attend(&vm, &console, &control))
    });
    if attended.is_err() {
        end_at_once(1);
    }
    let ending = vm.wait();
    let report = Report::Ended { message: ending.to_string(), orderly: ending.is_orderly() };
    // As above.
    let _ = control.send(&report, &[]);
    // What the kernel does anyway when the process ends it does without anybody waiting for it.
    end_at_once(0);
}

fn build(template: &Template, announce: Option<Announce>, console: &UnixStream) -> Result<Vm, Error> {
    let output = Box::new(Output(console.try_clone()?));
    let vm = Vm::restore(template.state(), template.memory()?, output);
    let vm = vm.map_err(|error| Error::Refused(chain(&error)))?;
    if let Some(announce) = announce {
        vm.announce(announce)?;
    }
    Ok(vm)
}

/// The console, which somebody reads or nobody: a guest whose console is closed runs on.
struct Output(UnixStream);

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.0.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(bytes.len()),
            result => result,
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Types what comes over the console, and ends the process when the control channel is closed.
fn attend(vm: &Vm, mut console: &UnixStream, control: &Channel) {
    let mut typed = [0; 4096];
    let mut console_open = true;
    loop {
        let mut fds = [PollFd::new(control, PollFlags::empty()), PollFd::new(&console, PollFlags::IN)];
        let watched = if console_open { &mut fds[..] } else { &mut fds[..1] };
        match poll(watched, None) {
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => end_at_once(1),
        }
        // A hang-up is reported unasked: poll(2).
        if !fds[0].revents().is_empty() {
            end_at_once(0);
        }
        if console_open && !fds[1].revents().is_empty() {
            match console.read(&mut typed) {
                Ok(0) => console_open = false,
                Ok(count) => vm.console_input(&typed[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => console_open = false,
            }
        }
    }
}
