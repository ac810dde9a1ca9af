//! Runs guests, in this process or in ones of their own, until they end, the time is over, or the user stops them.

use std::io::{self, Write};
use std::time::{Duration, Instant};

use vmm::Announce;

use crate::console::Console;
use crate::{EXIT_INTERRUPTED, Error, announce, interrupt};
use cloner::machine::{GuestEnding, Machine};

/// A running guest.
pub(super) struct WatchedGuest {
    /// What messages call it.
    pub(super) name: &'static str,
    pub(super) machine: Machine,
}

/// The number of a clone, and when the clone was requested.
#[derive(Clone, Copy)]
pub(super) struct CloneLabel {
    pub(super) number: usize,
    pub(super) started: Instant,
}

impl CloneLabel {
    pub(super) fn say(self, what: impl std::fmt::Display) -> Result<(), Error> {
        let after = self.started.elapsed().as_secs_f64() * 1e3;
        say(&format!("cloner: clone {} {what} after {after:.1} ms", self.number))
    }

    /// Waits until the guest has confirmed who it is, if it is a guest that does.
    pub(super) fn wait_confirmed(
        self,
        announce: Announce,
        console: &Console,
        guest: &WatchedGuest,
    ) -> Result<(), Error> {
        if announce != Announce::OnConsole {
            return Ok(());
        }
        let identity = guest.machine.identity();
        let confirmed = |line: &str| identity.is_confirmed_by(line).then_some(());
        let over = || guest.machine.is_silent();
        let heard = console.wait_until(over, 0, announce::CONFIRM_LIMIT, confirmed);
        if heard.is_some() {
            return self.say("has reseeded its random numbers");
        }
        // If the guest has crashed, that explains more than its silence.
        guest.has_ended()?;
        let wanted = format!("{} reseeded", identity.to_command().trim_end());
        Err(Error::silent("a clone", &wanted, announce::CONFIRM_LIMIT, None))
    }
}

pub(super) fn console_of(number: usize) -> Console {
    // Leaked: one short text per clone, for as long as the process lives.
    let prefix: &'static str = format!("clone {number:<2}| ").leak();
    Console::shown(prefix)
}

/// Waits until the guests have ended, the time is over, or the user presses Ctrl-C.
pub(super) fn watch(guests: &[WatchedGuest], limit: Option<Duration>) -> Result<u8, Error> {
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

impl WatchedGuest {
    /// Waits a moment for the guest to end; if it does, prints how.
    pub(super) fn has_ended(&self) -> Result<bool, Error> {
        const MOMENT: Duration = Duration::from_millis(50);
        let guest = self.name;
        match self.machine.wait_timeout(MOMENT).map_err(Error::machine(guest))? {
            None => Ok(false),
            Some(GuestEnding { message, orderly: true }) => {
                say(&format!("cloner: {guest}: {message}"))?;
                Ok(true)
            }
            Some(GuestEnding { message, .. }) => Err(Error::Crashed { guest, message }),
        }
    }
}

pub(super) fn say(line: &str) -> Result<(), Error> {
    writeln!(io::stdout(), "{line}").map_err(Error::Output)
}
