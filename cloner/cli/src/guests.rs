//! Runs guests, in this process or in ones of their own, until they end, the time is over, or the user stops them.

use std::io::{self, Write};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use vmm::{Announce, Ending, Identity, Vm};

use crate::console::Console;
use crate::{EXIT_INTERRUPTED, Error, announce, interrupt};
use cloner::process::{End, GuestProcess};

/// A running guest, and what messages call it.
pub(super) enum Guest {
    /// The guest runs in this process.
    Here(&'static str, Vm),
    /// The guest runs in a process of its own; the thread reads its console.
    There(&'static str, GuestProcess, JoinHandle<()>),
}

/// The number of a clone, and when the clone was requested.
#[derive(Clone, Copy)]
pub(super) struct Number {
    pub(super) number: usize,
    pub(super) started: Instant,
}

impl Number {
    pub(super) fn say(self, what: impl std::fmt::Display) -> Result<(), Error> {
        let after = self.started.elapsed().as_secs_f64() * 1e3;
        say(&format!("cloner: clone {} {what} after {after:.1} ms", self.number))
    }

    /// Waits until the guest has confirmed who it is, if it is a guest that does.
    pub(super) fn wait_confirmed(
        self,
        announce: Option<Announce>,
        identity: Identity,
        console: &Console,
        guest: &Guest,
    ) -> Result<(), Error> {
        if announce != Some(Announce::OnConsole) {
            return Ok(());
        }
        let confirmed = |line: &str| identity.is_confirmed_by(line).then_some(());
        let heard = console.wait_until(|| guest.is_over(), 0, announce::CONFIRM_LIMIT, confirmed);
        if heard.is_some() {
            return self.say("has reseeded its random numbers");
        }
        // If the guest has crashed, that explains more than its silence.
        guest.has_ended()?;
        let wanted = format!("{} reseeded", identity.to_command().trim_end());
        Err(Error::silent("a clone", &wanted, announce::CONFIRM_LIMIT, None))
    }
}

/// Shows what a guest in a process of its own prints. The thread that does this ends when the guest does.
pub(super) fn show(vm: &GuestProcess, console: &Console) -> Result<JoinHandle<()>, Error> {
    let mut printed = vm.console().try_clone().map_err(Error::Program)?;
    let mut shown = console.writer();
    // Whichever way the copy ends, there is nothing more to show.
    Ok(thread::spawn(move || drop(io::copy(&mut printed, &mut shown))))
}

pub(super) fn console_of(number: usize) -> Console {
    // Leaked: one short text per clone, for as long as the process lives.
    let prefix: &'static str = format!("clone {number:<2}| ").leak();
    Console::shown(prefix)
}

/// Waits until the guests have ended, the time is over, or the user presses Ctrl-C.
pub(super) fn watch(guests: &[Guest], limit: Option<Duration>) -> Result<u8, Error> {
    let deadline = limit.map(|limit| Instant::now() + limit);
    for guest in guests {
        while !guest.has_ended()? {
            if interrupt::requested() {
                return Ok(EXIT_INTERRUPTED);
            }
            if deadline.is_some_and(|deadline| Instant::now() >= deadline) {
                return Ok(0);
            }
        }
    }
    Ok(0)
}

impl Guest {
    /// Whether the guest has stopped printing for good.
    fn is_over(&self) -> bool {
        match self {
            Self::Here(_, vm) => vm.ending().is_some(),
            Self::There(_, _, reader) => reader.is_finished(),
        }
    }

    /// Waits a moment for the guest to end; if it does, prints how.
    pub(super) fn has_ended(&self) -> Result<bool, Error> {
        const MOMENT: Duration = Duration::from_millis(50);
        match self {
            Self::Here(guest, vm) => match vm.wait_timeout(MOMENT) {
                None => return Ok(false),
                Some(ending @ (Ending::Reset | Ending::Shutdown { .. })) => {
                    say(&format!("cloner: {guest}: {ending}"))?;
                }
                Some(source) => return Err(Error::Ended { guest, source }),
            },
            Self::There(guest, vm, _) => match vm.wait_timeout(MOMENT)? {
                None => return Ok(false),
                Some(End { message, orderly: true }) => say(&format!("cloner: {guest}: {message}"))?,
                Some(End { message, .. }) => return Err(Error::Crashed { guest, message }),
            },
        }
        Ok(true)
    }
}

pub(super) fn say(line: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{line}").map_err(Error::Output)
}
