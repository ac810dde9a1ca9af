//! The instant at which a VM can be saved.

use std::sync::MutexGuard;
use std::time::{Duration, Instant};

use super::{Error, Vm};
use crate::host::Host;
use crate::interrupt;
use crate::memory::{self, DirtySet, Epoch, FrozenMemory, GuestMemory, dirty, frozen};
use crate::state::{self, VmState, VmStateV2};
use crate::vcpu::tsc;

/// A VM that stands still: no vCPU runs, no device changes. Dropping it lets the VM run on, if it was running.
#[derive(Debug)]
#[must_use = "the VM runs on as soon as this is dropped"]
pub struct Paused<'vm> {
    vm: &'vm Vm,
    was_running: bool,
    started: Instant,
    // Last: another pause may begin once this one has let the VM go.
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

    /// Saves everything but the memory, all of which is there when this returns: for a lazy clone, this waits until the rest has
    /// arrived. To keep the pause short, call [`GuestMemory::supply_all`] before it.
    ///
    /// # Errors
    /// [`Error::Memory`] if some of the memory will never arrive; [`Error::Vcpu`] or [`Error::Interrupt`] if KVM refuses to give
    /// its state; [`Error::State`] if it gave one that could not be restored. The VM is unharmed.
    pub fn save(&self) -> Result<VmState, Error> {
        self.memory().supply_all().map_err(memory::Error::from)?;
        let threads = self.vm.threads();
        let mut counters = tsc::at_one_instant(&threads.each(|vcpu| vcpu.read_tsc())?).into_iter();
        let state = VmStateV2 {
            producer: String::from(state::PRODUCER),
            virtualization: Host::get()?.virtualization(),
            memory_bytes: self.memory().layout().size_bytes(),
            generation: self.vm.identity().generation,
            vcpus: threads
                .each(|vcpu| vcpu.save(counters.next().expect("one counter was read of each vCPU")))?,
            interrupts: interrupt::save(self.vm.machine().fd(), self.vm.unstarted_timer().as_ref())?,
            devices: self.vm.devices().save(),
        };
        Ok(VmState::try_from(state)?)
    }

    /// The memory, which does not change until the VM is resumed.
    #[must_use]
    pub fn memory(&self) -> &'vm GuestMemory {
        self.vm.machine().memory()
    }

    /// Keeps the memory as it is now, for as long as the result lives, whatever the VM does meanwhile.
    ///
    /// The cost: copying this process's page tables now (milliseconds per GiB in 4 KiB pages, a tenth of that in huge
    /// ones), and later one more 4 KiB page for each page that the VM writes to for the first time.
    ///
    /// # Errors
    /// [`frozen::Error::NotPrivate`] if the memory is shared, [`frozen::Error::Lost`] if some of it will never arrive, otherwise
    /// the step that the kernel refused. The VM is unharmed.
    pub fn freeze(&self) -> Result<FrozenMemory, frozen::Error> {
        FrozenMemory::of(self.memory())
    }

    /// Proof that all vCPU threads are parked.
    pub(crate) fn parked(&self) -> Parked<'_> {
        Parked { threads: self.vm.threads().numbers(), _while: self }
    }

    /// Tracks dirty pages from now on, starting with none. Starts over if they were tracked already.
    ///
    /// While they are tracked, the guest's first write to each page costs a fault, and KVM maps its memory in 4 KiB pages.
    ///
    /// # Errors
    /// [`Error::Dirty`] if a [`DirtySet`] is taken at the moment, [`Error::Ioctl`] if KVM refuses. The VM is unharmed.
    pub fn track_dirty(&self) -> Result<Epoch, Error> {
        dirty::track(self.memory(), || {
            self.log_dirty(true)?;
            // A log that was on already is not empty.
            (0..self.memory().regions().len()).try_for_each(|region| self.dirty_log(region).map(drop))
        })
    }

    /// Stops tracking dirty pages.
    ///
    /// # Errors
    /// As for [`Paused::track_dirty`].
    pub fn untrack_dirty(&self) -> Result<(), Error> {
        dirty::untrack(self.memory(), || self.log_dirty(false))
    }

    /// Takes the pages that the guest, KVM or this process changed since tracking began or a set was last committed.
    ///
    /// # Errors
    /// [`Error::Dirty`] if dirty pages are not tracked or a set is taken already, [`Error::Ioctl`] if KVM refuses. Nothing is lost:
    /// the next set has what this one would have had.
    pub fn take_dirty(&self) -> Result<DirtySet<'vm>, Error> {
        // If a call below fails, dropping the set puts back what it has.
        let mut set = DirtySet::take(self.memory())?;
        for region in 0..self.memory().regions().len() {
            set.merge(region, &self.dirty_log(region)?);
        }
        Ok(set)
    }

    fn log_dirty(&self, wanted: bool) -> Result<(), Error> {
        let result = self.vm.machine().log_dirty(wanted);
        result.map_err(|source| Error::Ioctl { name: "KVM_SET_USER_MEMORY_REGION", source })
    }

    fn dirty_log(&self, region: usize) -> Result<Vec<u64>, Error> {
        let log = self.vm.machine().dirty_log(region);
        log.map_err(|source| Error::Ioctl { name: "KVM_GET_DIRTY_LOG", source })
    }

    /// Time since the pause was requested.
    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Lets the VM run on, if it was running, and returns how long it stood still.
    pub fn resume(self) -> Duration {
        let started = self.started;
        drop(self);
        started.elapsed()
    }
}

/// The vCPU threads of a VM that is paused.
///
/// Each waits and uses nothing but its [`Control`](crate::vcpu::thread::Control), whose lock it may hold for a moment after a
/// spurious wake-up. Every other lock of the VM is free.
#[derive(Debug)]
pub(crate) struct Parked<'paused> {
    threads: Vec<u32>,
    _while: &'paused Paused<'paused>,
}

impl Parked<'_> {
    /// The kernel's numbers (TIDs) of the threads.
    pub(crate) fn threads(&self) -> &[u32] {
        &self.threads
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        if self.was_running {
            self.vm.run();
        }
    }
}
