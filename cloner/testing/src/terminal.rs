//! A terminal to run the program on.

use std::fs::{self, File};
use std::io::{self, Write};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

use crate::console::Console;
use crate::program::Executable;

const PATIENCE: Duration = Duration::from_secs(120);

/// A pseudo terminal: what a user would type into and read from.
pub struct Terminal {
    keyboard: File,
    /// What a user would see.
    pub screen: Console,
    /// The program's end, to look at the terminal's settings.
    end: File,
    settings: Termios,
}

impl Terminal {
    /// Opens a terminal with the default settings, but without echo.
    pub fn new() -> Self {
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
            // The copy ends with an error when no process has the other end open any longer.
            let _ = io::copy(&mut from, &mut output);
        });
        Self { keyboard, screen, end, settings }
    }

    /// Starts a program with all its streams on this terminal.
    pub fn start(&self, program: Executable, args: &[&str]) -> OnTerminal<'_> {
        let end = || Stdio::from(self.end.try_clone().unwrap());
        let child = program.command(args).stdin(end()).stdout(end()).stderr(end()).spawn().unwrap();
        OnTerminal { terminal: self, child }
    }

    /// Types these keys.
    pub fn type_keys(&self, keys: &str) {
        (&self.keyboard).write_all(keys.as_bytes()).unwrap();
    }

    /// Whether the program gets every key at once, even Ctrl-C.
    pub fn is_raw(&self) -> bool {
        !tcgetattr(&self.end).unwrap().local_modes.intersects(LocalModes::ICANON | LocalModes::ISIG)
    }

    /// Asserts that the terminal's settings are as they were before.
    #[track_caller]
    pub fn assert_restored(&self) {
        assert_eq!(format!("{:?}", tcgetattr(&self.end).unwrap()), format!("{:?}", self.settings));
    }
}

/// A program on a terminal. It is killed when this is dropped.
pub struct OnTerminal<'t> {
    terminal: &'t Terminal,
    child: Child,
}

impl OnTerminal<'_> {
    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits until the program has ended and returns its exit code.
    #[track_caller]
    pub fn finish(mut self) -> i32 {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status
                    .code()
                    .unwrap_or_else(|| panic!("{status}: {}", self.terminal.screen.transcript()));
            }
            assert!(Instant::now() < deadline, "still running: {}", self.terminal.screen.transcript());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for OnTerminal<'_> {
    fn drop(&mut self) {
        // The program has usually ended already, and then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
