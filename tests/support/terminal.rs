//! A terminal to run the program on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use super::console::Console;
use super::program::cloner;

const PATIENCE: Duration = Duration::from_secs(120);

/// A pseudo terminal: what a user types into and reads from.
pub(crate) struct Terminal {
    keyboard: File,
    pub(crate) screen: Console,
    /// The end the program has, to look at the terminal's settings.
    end: File,
    settings: Termios,
}

impl Terminal {
    /// A terminal with settings as a user might have them: as they come, but without echo.
    pub(crate) fn new() -> Self {
        let pty = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&pty).unwrap();
        unlockpt(&pty).unwrap();
        let path = ptsname(&pty, Vec::new()).unwrap().into_string().unwrap();
        let end = fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
        let mut settings = tcgetattr(&end).unwrap();
        settings.local_modes &= !LocalModes::ECHO;
        tcsetattr(&end, OptionalActions::Now, &settings).unwrap();

        let keyboard = File::from(pty);
        let (screen, mut output) = Console::new(PATIENCE);
        let mut from = keyboard.try_clone().unwrap();
        thread::spawn(move || {
            // Ends with an error when nobody has the other end open any more.
            let _ = io::copy(&mut from, &mut output);
        });
        Self { keyboard, screen, end, settings }
    }

    /// Starts the program with all its streams on this terminal.
    pub(crate) fn start(&self, args: &[&str]) -> OnTerminal<'_> {
        let end = || Stdio::from(self.end.try_clone().unwrap());
        let child = cloner(args).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        OnTerminal { terminal: self, child }
    }

    pub(crate) fn type_keys(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    pub(crate) fn is_raw(&self) -> bool {
        !tcgetattr(&self.end).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Asserts that the terminal is as it was before.
    #[track_caller]
    pub(crate) fn assert_restored(&self) {
        assert_eq!(format!("{:?}", tcgetattr(&self.end).unwrap()), format!("{:?}", self.settings));
    }
}
