//! The instant at which a VM can be saved.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use crate::interrupt;
use crate::memory::{FrozenMemory, GuestMemory, frozen};
use crate::state::{VmState, VmStateV1};
use crate::sys::kvm;
use crate::vm::{Error, Vm};

/// A VM that stands still: no vCPU runs, no device changes. Dropping it lets the VM run on, if it was running.
#[derive(Debug)]
#[must_use = "the VM runs on as soon as this is dropped"]
pub struct Paused<'vm> {
    vm: &'vm Vm,
    was_running: bool,
    started: Instant,
    // Last: the next one may pause when this VM has been let go.
    _turn: MutexGuard<'vm, ()>,
}

impl<'vm> Paused<'vm> {
    pub(crate) const fn new(
        vm: &'vm Vm,
        turn: MutexGuard<'vm, ()>,
        was_running: bool,
        started: Instant,
    ) -> Self {
        Self { vm, was_running, started, _turn: turn }
    }

    /// Everything but memory.
    ///
    /// # Errors
    /// The kernel's. The VM is unharmed.
    pub fn save(&self) -> Result<VmState, Error> {
        // One reading for all vCPUs: their counters are told apart by nothing but their offsets to it.
        let host_tsc = kvm::host_tsc();
        let state = VmStateV1 {
            memory_bytes: self.memory().layout().size_bytes(),
            vcpus: self.vm.threads().each(|vcpu| vcpu.save(host_tsc))?,
            interrupts: interrupt::save(self.vm.machine().fd())?,
            devices: self.vm.devices().save(),
        };
        Ok(VmState::try_from(state)?)
    }

    /// The memory, which stays as it is until the VM is resumed.
    #[must_use]
    pub fn memory(&self) -> &'vm GuestMemory {
        self.vm.machine().memory()
    }

    /// The memory as it is now, for as long as the result lives, whatever the VM does meanwhile.
    ///
    /// What it costs: the copying of this process's page tables now (milliseconds per GiB in 4 KiB pages, a tenth of that in huge
    /// ones), and later one more page of 4 KiB for each that the VM writes first.
    ///
    /// # Errors
    /// See [`frozen::Error`]. The VM is unharmed.
    pub fn freeze(&self) -> Result<FrozenMemory, frozen::Error> {
        FrozenMemory::of(self.memory())
    }

    /// Time since the pause was asked for.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets the VM run on, and says how long it stood still.
    pub fn resume(self) -> Duration {
        let started = self.started;
        drop(self);
        started.elapsed()
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if self.was_running {
            self.vm.run();
        }
    }
}
