//! A machine in a process of its own, and its console.

use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cloner::admission::CopyLimits;
use cloner::process::{BranchReport, GuestProcess};
use guest_images::pulse::Status;
use vmm::{Announce, Config, Identity};

use crate::Executable;
use crate::console::{Console, value};

/// Longest wait for a line: far longer than anything takes on an idle machine.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// A guest process and what its guest prints. The process ends when this is dropped.
pub struct Process {
    vm: Option<GuestProcess>,
    /// What tells the machine from all others.
    pub identity: Identity,
    /// What the guest has printed.
    pub console: Console,
    typing: UnixStream,
    reader: Option<JoinHandle<()>>,
}

impl Process {
    /// Waits until the guest runs.
    #[track_caller]
    pub fn of(vm: GuestProcess) -> Self {
        let identity = vm.wait_running().unwrap();
        let (console, mut output) = Console::new(PATIENCE);
        let mut reading = vm.console().try_clone().unwrap();
        let typing = vm.console().try_clone().unwrap();
        // The thread ends when the guest's process does.
        let reader = thread::spawn(move || drop(io::copy(&mut reading, &mut output)));
        Self { vm: Some(vm), identity, console, typing, reader: Some(reader) }
    }

    /// Boots a machine in a process that runs `program`.
    #[track_caller]
    pub fn boot(program: Executable, config: &Config) -> Self {
        Self::of(GuestProcess::boot(program.path(), config).unwrap())
    }

    /// Branches the machine, which runs on.
    #[track_caller]
    pub fn branch(&self, announce: Announce) -> (Self, BranchReport) {
        let (vm, report) = self.vm().branch(announce, CopyLimits::default()).unwrap();
        (Self::of(vm), report)
    }

    /// The handle of the process.
    pub fn vm(&self) -> &GuestProcess {
        self.vm.as_ref().unwrap()
    }

    /// Does the same as [`Console::line`], for the text only.
    #[track_caller]
    pub fn line(&self, start: &str) -> String {
        self.console.line(start).text
    }

    /// Types this on the console.
    pub fn send(&self, typed: &str) {
        (&self.typing).write_all(typed.as_bytes()).unwrap();
    }

    /// Types this and waits for the line that starts with `answer`.
    #[track_caller]
    pub fn ask(&self, typed: &str, answer: &str) -> String {
        self.send(typed);
        self.line(answer)
    }

    /// Asks `pulse` for its nonce.
    #[track_caller]
    pub fn nonce(&self) -> u64 {
        value(&self.ask("n", "pulse: nonce="), "nonce", 16)
    }

    /// Asks `pulse` for the checksum of its memory.
    #[track_caller]
    pub fn sum(&self) -> u64 {
        value(&self.ask("s", "pulse: sum="), "sum", 16)
    }

    /// The number of the next beat of `pulse`.
    #[track_caller]
    pub fn beat(&self) -> u64 {
        let line = self.line("pulse: beat ");
        line.split(' ').nth(2).and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line:?}"))
    }

    /// Number of the process.
    pub fn pid(&self) -> u32 {
        self.vm().pid()
    }

    /// Ends the process and makes sure that it is gone.
    #[track_caller]
    pub fn end(mut self) {
        let pid = self.pid();
        self.vm.take().unwrap().end().unwrap();
        assert!(!is_running(pid));
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.vm.take());
        let _ = self.typing.shutdown(Shutdown::Both);
        let _ = self.reader.take().unwrap().join();
    }
}

/// Whether the process is neither gone nor about to be, as a zombie or a dead process is.
pub fn is_running(pid: u32) -> bool {
    let gone = |stat: &str| stat.contains(") Z ") || stat.contains(") X ");
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !gone(&stat))
}

/// Ends a process with SIGKILL.
pub fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

/// The first result that `attempt` has within ten seconds.
#[track_caller]
pub fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    (0..10_000)
        .find_map(|_| {
            attempt().or_else(|| {
                thread::sleep(Duration::from_millis(1));
                None
            })
        })
        .unwrap()
}

/// The address at which `pulse` looks for its identity.
pub const IN_STATUS: Announce = Announce::InMemory { address: Status::IDENTITY };
