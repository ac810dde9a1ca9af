//! The guest of the benches: `pulse`, booted and ready.

use std::borrow::Cow;
use std::thread;
use std::time::{Duration, Instant};

use guest_images::pulse::{self, Params, Status, layout};
use vmm::Vm;
use vmm::config::Kernel;
use vmm::memory::GuestMemory;

use cloner_cli::console::Console;
use cloner_cli::guest::MachineArgs;
use cloner_cli::progress::Spinner;
use cloner_cli::{Error, interrupt};

/// Longest wait for the guest to become ready or to do its work: filling memory takes about a second per GiB.
const LIMIT: Duration = Duration::from_secs(300);

/// A running guest, and what it has printed.
pub(super) struct Pulse {
    pub(super) vm: Vm,
    pub(super) console: Console,
}

impl Pulse {
    /// Boots the guest and waits until it has filled its memory.
    pub(super) fn boot(machine: &MachineArgs, params: &Params) -> Result<Self, Error> {
        let kernel = Kernel::Flat { image: Cow::Owned(pulse::image(params)?) };
        let console = Console::new();
        let vm = Vm::boot(&machine.config(kernel), console.writer()).map_err(Error::source_vm)?;
        vm.start();
        let guest = Self { vm, console };
        let _spinner = Spinner::new(String::from("booting pulse"));
        guest.wait_for(0, "pulse: ready")?;
        Ok(guest)
    }

    /// Waits for a line from `position` on that starts with `start`.
    pub(super) fn wait_for(&self, position: usize, start: &'static str) -> Result<(), Error> {
        let found =
            self.console.wait_for(&self.vm, position, LIMIT, |line| line.starts_with(start).then_some(()));
        found.ok_or_else(|| Error::silent("pulse", start, LIMIT, self.vm.ending()))
    }

    /// Number of pages that the guest has dirtied so far; a page counts every time it is written.
    pub(super) fn dirtied_pages(&self) -> Result<u64, Error> {
        Ok(status(self.vm.memory())?.cpus.iter().map(|cpu| cpu.sequence).sum())
    }

    /// Waits until the guest has dirtied `pages` more pages.
    pub(super) fn let_dirty(&self, pages: u64) -> Result<(), Error> {
        let (before, started) = (self.dirtied_pages()?, Instant::now());
        while self.dirtied_pages()? < before + pages {
            if interrupt::requested() || started.elapsed() > LIMIT {
                return Err(Error::silent("pulse", "dirty pages", LIMIT, self.vm.ending()));
            }
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

/// The status block in the guest's memory.
pub(super) fn status(memory: &GuestMemory) -> Result<Status, Error> {
    let mut bytes = [0; Status::LEN];
    let read = memory.read(layout::STATUS, &mut bytes);
    read.map_err(|source| Error::source_vm(source.into()))?;
    Ok(Status::from_bytes(&bytes)?)
}
