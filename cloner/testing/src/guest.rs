//! A machine and its console.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use guest_images::pulse::{self, Params, Status, check, layout};
use vmm::config::{Config, Kernel};
use vmm::memory::GuestMemory;
use vmm::{Announce, Ending, Identity, Paused, Vm, VmState};

use crate::console::{Console, Line, value};

/// Far longer than anything takes on an idle machine: tests share two cores with each other and with builds.
const PATIENCE: Duration = Duration::from_secs(180);

/// A running machine, which ends when this is dropped.
pub struct Guest {
    /// The machine.
    pub vm: Vm,
    /// What the guest has printed.
    pub console: Console,
    /// The time at which the machine was made.
    pub since: Instant,
}

/// The configuration of a `pulse` with `params`, in private memory.
pub fn pulse(params: &Params, memory_bytes: u64, vcpus: u8) -> Config {
    let image = Cow::Owned(pulse::image(params).unwrap());
    Config { vcpus, ..Config::new(memory_bytes, Kernel::Flat { image }) }
}

impl Guest {
    /// Boots the machine described by `config` and lets it run.
    #[track_caller]
    pub fn boot(config: &Config) -> Self {
        let (console, output) = Console::new(PATIENCE);
        let vm = Vm::boot(config, output).unwrap();
        vm.start();
        Self { vm, console, since: Instant::now() }
    }

    /// Builds a machine that does not run yet.
    #[track_caller]
    pub fn restore(state: &VmState, memory: GuestMemory) -> Self {
        let (console, output) = Console::new(PATIENCE);
        Self { vm: Vm::restore(state, memory, output).unwrap(), console, since: Instant::now() }
    }

    /// Builds a machine and lets it run.
    #[track_caller]
    pub fn resume(state: &VmState, memory: GuestMemory) -> Self {
        let guest = Self::restore(state, memory);
        guest.vm.start();
        guest
    }

    /// Tells the guest who it is.
    #[track_caller]
    pub fn tell(&self, announce: Announce) -> Identity {
        self.vm.announce(announce).unwrap();
        self.vm.identity()
    }

    /// Pauses the machine until the result is dropped.
    #[track_caller]
    pub fn pause(&self) -> Paused<'_> {
        self.vm.pause().unwrap()
    }

    /// Types this on the console.
    pub fn send(&self, text: &str) {
        self.vm.console_input(text.as_bytes());
    }

    /// Does the same as [`Console::line`].
    #[track_caller]
    pub fn line(&self, start: &str) -> Line {
        self.console.line(start)
    }

    /// Waits until the guest ends.
    #[track_caller]
    pub fn end(&self) -> Ending {
        let end = self.vm.wait_timeout(PATIENCE);
        end.unwrap_or_else(|| {
            panic!("the guest has not ended within {PATIENCE:?}:\n{}", self.console.transcript())
        })
    }

    /// Waits for the next beat of `pulse` and returns its number.
    #[track_caller]
    pub fn beat(&self) -> u64 {
        beat_of(&self.line("pulse: beat ").text)
    }

    /// Asks `pulse` for its nonce.
    #[track_caller]
    pub fn nonce(&self) -> u64 {
        self.send("n");
        value(&self.line("pulse: nonce=").text, "nonce", 16)
    }

    /// Makes `pulse` compute the checksum of its filled memory.
    #[track_caller]
    pub fn sum(&self) -> u64 {
        self.send("s");
        value(&self.line("pulse: sum=").text, "sum", 16)
    }

    /// The numbers of all beats so far.
    pub fn beats(&self) -> Vec<u64> {
        let lines = self.console.lines();
        lines
            .iter()
            .filter(|line| line.text.starts_with("pulse: beat "))
            .map(|line| beat_of(&line.text))
            .collect()
    }
}

#[track_caller]
fn beat_of(line: &str) -> u64 {
    let number =
        line.strip_prefix("pulse: beat ").and_then(|rest| rest.split_once(' ')).map(|(number, _)| number);
    number.and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("no beat: {line:?}"))
}

/// The status block in the memory of a `pulse` that is ready.
#[track_caller]
pub fn status(memory: &GuestMemory) -> Status {
    let mut bytes = [0; Status::LEN];
    memory.read(layout::STATUS, &mut bytes).unwrap();
    Status::from_bytes(&bytes).unwrap()
}

/// Checks every word of the filled memory of a paused `pulse`.
#[track_caller]
pub fn verify(params: &Params, memory: &GuestMemory) {
    let read = |address, buffer: &mut [u8]| memory.read(address, buffer).unwrap();
    check::verify(params, &status(memory), memory.layout().low_bytes(), read).unwrap();
}
