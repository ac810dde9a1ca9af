//! A virtual machine: memory, vCPU threads, devices.

pub mod branch;
pub mod floor;
mod identity;
mod pause;
mod sys;

use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

pub use self::identity::{Announce, Identity};
pub use self::pause::Paused;

use crate::bus::Ending;
use crate::config::{self, Config};
use crate::devices::Devices;
use crate::devices::serial::ConsoleOutput;
use crate::host::{self, Host};
use crate::interrupt::state::PitStateV1;
use crate::memory::{self, GuestMemory, Machine};
use crate::state::{self, VmState};
use crate::sys::signal::install_kick_handler;
use crate::vcpu::state::VcpuStateV1;
use crate::vcpu::thread::{Control, Threads};
use crate::vcpu::{self, Vcpu, cpuid};
use crate::{boot, interrupt};
use vmm_sys_util::errno;

/// Why a VM could not be built, paused or saved.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host cannot run VMs.
    #[error("this host cannot run virtual machines")]
    Host(#[from] host::Error),
    /// The configuration is impossible.
    #[error("impossible configuration")]
    Config(#[from] config::Error),
    /// More vCPUs than this host's KVM allows.
    #[error("{wanted} vCPUs: this host's KVM allows {max}")]
    TooManyVcpus {
        /// Number of vCPUs asked for.
        wanted: usize,
        /// The most that KVM allows on this host.
        max: usize,
    },
    /// Nested virtualization was asked for, but this host does not offer it.
    #[error(
        "nested virtualization: this host's KVM does not offer it (module parameter `nested` of kvm_intel or kvm_amd, and KVM_CAP_NESTED_STATE)"
    )]
    NoNested,
    /// The guest's memory cannot be made, or some of it will never arrive.
    #[error("cannot make or complete the guest's memory")]
    Memory(#[from] memory::Error),
    /// Dirty pages are not tracked, or have been taken already.
    #[error("cannot track or take dirty pages")]
    Dirty(#[from] memory::dirty::Error),
    /// The kernel cannot be loaded.
    #[error("cannot boot")]
    Boot(#[from] boot::Error),
    /// The saved state does not fit the memory that was given, or this host.
    #[error("cannot restore this state here")]
    State(#[from] state::Error),
    /// A system call that concerns the whole VM failed.
    #[error("{name} failed")]
    Ioctl {
        /// Name of the ioctl or other call.
        name: &'static str,
        /// The kernel's reason.
        source: errno::Error,
    },
    /// The interrupt controllers cannot be created, saved or restored.
    #[error("cannot create, save or restore the interrupt controllers")]
    Interrupt(#[from] interrupt::Error),
    /// A vCPU cannot be created, saved or restored.
    #[error("cannot create, save or restore a vCPU")]
    Vcpu(#[from] vcpu::Error),
    /// A vCPU thread cannot be started.
    #[error("cannot start a vCPU thread")]
    Thread(#[source] io::Error),
    /// The kernel gave no random number for the VM's [`Identity`].
    #[error("cannot get random numbers from the kernel")]
    Random(#[source] io::Error),
    /// The descriptor that tells of the guest's end cannot be made.
    #[error("cannot make the pipe that tells of the guest's end")]
    Pipe(#[source] io::Error),
    /// The guest has ended and can neither run nor be saved.
    #[error("the guest has ended")]
    Ended(#[from] Ending),
}

/// A virtual machine. It is built stopped. Dropping it stops and frees it, which takes some 20 ms in the kernel.
#[derive(Debug)]
pub struct Vm {
    // First: it lets threads go that would not end.
    missing: GiveUpMissing,
    // Before all that the threads use: they are joined when dropped.
    threads: Threads,
    devices: Arc<Devices>,
    machine: Arc<Machine>,
    identity: Identity,
    end: EndSignal,
    /// The timer of a restored VM, until it runs for the first time.
    unstarted_timer: Mutex<Option<Box<PitStateV1>>>,
    /// Locked while the VM is paused.
    pausing: Mutex<()>,
}

/// When dropped, lets vCPUs go that wait for memory which has yet to arrive: before their threads are joined, and before the
/// kernel closes the machine.
#[derive(Debug)]
struct GiveUpMissing(Arc<Machine>);

impl Drop for GiveUpMissing {
    fn drop(&mut self) {
        self.0.memory().give_up_missing();
    }
}

/// A pipe that can be read from once the guest has ended.
#[derive(Debug)]
struct EndSignal {
    reader: PipeReader,
    /// The only strong reference, so that references left in threads that no longer exist do not keep it open.
    _writer: Arc<PipeWriter>,
}

impl Vm {
    /// Builds a VM and loads the kernel it boots. [`Vm::start`] lets it run.
    ///
    /// # Errors
    /// [`Error::Config`], [`Error::TooManyVcpus`], [`Error::NoNested`], [`Error::Memory`] and [`Error::Boot`] name what to change
    /// in `config`; any other means that the host has no usable KVM or refused a call. Nothing is left behind.
    pub fn boot(config: &Config, output: ConsoleOutput) -> Result<Self, Error> {
        let layout = config.layout()?;
        let host = Host::get()?;
        if config.nested && !cpuid::offers_virtualization(host) {
            return Err(Error::NoNested);
        }
        let memory = GuestMemory::new(layout, config.backing.clone())?;
        let entry = boot::load(host.cmdline_additions(), &config.kernel, &memory, config.vcpus)?;
        let (machine, mut vcpus) = build(host, memory, config.vcpus)?;
        for vcpu in &mut vcpus {
            vcpu.set_cpuid(&cpuid::for_vcpu(host, vcpu.index(), config.vcpus, config.nested))?;
            vcpu.probe_msrs(host.msr_indices())?;
            vcpu.set_up(entry, layout, config.vcpus)?;
        }
        let devices = Devices::new(Arc::clone(&machine) as _, output);
        Self::assemble(machine, vcpus, devices, 0, None)
    }

    /// Builds a VM from what was saved. [`Vm::start`] lets it go on. Its guest takes itself for its source until it is
    /// [told](Vm::announce) that it is another.
    ///
    /// # Errors
    /// [`Error::State`] if the state does not fit `memory` or this host, in which case nothing is built; [`Error::TooManyVcpus`] if
    /// it has more vCPUs than this host allows; any other if the host has no usable KVM or KVM refuses part of the state.
    pub fn restore(state: &VmState, memory: GuestMemory, output: ConsoleOutput) -> Result<Self, Error> {
        let host = Host::get()?;
        state.check(host, memory.layout())?;
        let state = state.get();
        let count = u8::try_from(state.vcpus.len()).expect("validated state has at most MAX_VCPUS");
        let (machine, mut vcpus) = build(host, memory, count)?;
        restore_vcpus(&mut vcpus, &state.vcpus)?;
        interrupt::restore(machine.fd(), &state.interrupts)?;
        // Last: a device that has an interrupt pending raises it again, which needs the controllers as they were.
        let devices = Devices::restore(Arc::clone(&machine) as _, output, &state.devices)
            .map_err(|source| Error::Ioctl { name: "KVM_IRQ_LINE", source })?;
        Self::assemble(machine, vcpus, devices, state.generation + 1, Some(state.interrupts.pit.clone()))
    }

    fn assemble(
        machine: Arc<Machine>,
        vcpus: Vec<Vcpu>,
        devices: Devices,
        generation: u64,
        timer: Option<PitStateV1>,
    ) -> Result<Self, Error> {
        let identity = Identity::new(generation).map_err(Error::Random)?;
        install_kick_handler().map_err(|source| Error::Ioctl { name: "sigaction", source })?;
        let devices = Arc::new(devices);
        let (reader, writer) = io::pipe().map_err(Error::Pipe)?;
        let writer = Arc::new(writer);
        let control = Arc::new(Control::new(&writer));
        let threads = Threads::spawn(vcpus, control, &devices).map_err(Error::Thread)?;
        let stopper = threads.stopper();
        machine.memory().on_loss(move |lost| stopper.stop(Ending::MemoryLost { what: lost.reason() }));
        tracing::info!(
            vcpus = threads.len(),
            memory_bytes = machine.memory().layout().size_bytes(),
            backing = %machine.memory().backing(),
            %identity,
            "built a VM"
        );
        let end = EndSignal { reader, _writer: writer };
        let unstarted_timer = Mutex::new(timer.map(Box::new));
        let (missing, pausing) = (GiveUpMissing(Arc::clone(&machine)), Mutex::new(()));
        Ok(Self { missing, threads, devices, machine, identity, end, unstarted_timer, pausing })
    }

    /// Lets a VM that was just built run. If the VM is paused, waits until it no longer is.
    pub fn start(&self) {
        let _not_paused = self.lock();
        if let Some(timer) = lock(&self.unstarted_timer).take() {
            interrupt::start_timer(self.machine.fd(), &timer)
                .expect("KVM refuses this only to a VM without a timer");
        }
        self.run();
    }

    /// Stops all vCPUs. Until the returned guard is dropped the VM stands still and can be saved; afterwards it goes on if it
    /// was running.
    ///
    /// Another thread that pauses the VM meanwhile waits for its turn; the same thread would wait forever.
    ///
    /// # Errors
    /// [`Error::Ended`] if the guest has ended.
    pub fn pause(&self) -> Result<Paused<'_>, Error> {
        let turn = self.lock();
        let started = Instant::now();
        let was_running = self.threads.park();
        self.devices.pause();
        if let Some(ending) = self.threads.control().ending() {
            return Err(ending.into());
        }
        Ok(Paused::new(self, turn, was_running, started))
    }

    pub(crate) fn run(&self) {
        self.devices.resume();
        self.threads.control().resume();
    }

    /// A panic while the VM was paused leaves it paused or running; either can be paused again.
    fn lock(&self) -> MutexGuard<'_, ()> {
        lock(&self.pausing)
    }

    /// The timer of a restored VM that has not run yet.
    pub(crate) fn unstarted_timer(&self) -> Option<PitStateV1> {
        lock(&self.unstarted_timer).as_deref().cloned()
    }

    /// Types `bytes` on the guest's console.
    pub fn console_input(&self, bytes: &[u8]) {
        self.devices.serial().input(bytes);
    }

    /// The identity of this VM. The guest knows it only if it was [told](Vm::announce).
    #[must_use]
    pub const fn identity(&self) -> Identity {
        self.identity
    }

    /// How the guest ended, if it has.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        self.threads.control().ending()
    }

    /// A descriptor to poll: it becomes readable once the guest has ended. Do not read from it.
    #[must_use]
    pub fn end(&self) -> BorrowedFd<'_> {
        self.end.reader.as_fd()
    }

    /// Waits until the guest ends, however long that takes.
    #[must_use]
    pub fn wait(&self) -> Ending {
        self.threads.control().wait_for_ending(None).expect("without a deadline there is always an ending")
    }

    /// Waits until the guest ends, but no longer than `limit`. `None` if it has not ended by then.
    #[must_use]
    pub fn wait_timeout(&self, limit: Duration) -> Option<Ending> {
        self.threads.control().wait_for_ending(Some(Instant::now() + limit))
    }

    /// The guest's memory. While the VM runs, it can change at any time, even during a read.
    #[must_use]
    pub fn memory(&self) -> &GuestMemory {
        self.machine.memory()
    }

    /// Takes apart a VM whose threads do not exist because it was built in the parent of this process. Its descriptors are
    /// closed, which has no effect in the parent; what remains is the memory, which belongs to this process.
    ///
    /// The threads' control block is leaked: one of them may have locked it.
    pub(crate) fn abandon(self) -> GuestMemory {
        let Self { missing, threads, devices, machine, identity: _, end: _, unstarted_timer: _, pausing: _ } =
            self;
        // Nothing is missing from memory that was branched.
        drop(missing);
        threads.abandon();
        drop(devices);
        let machine = Arc::into_inner(machine).expect("vCPUs and devices, the only other owners, are gone");
        machine.into_memory()
    }

    pub(crate) const fn threads(&self) -> &Threads {
        &self.threads
    }

    pub(crate) fn devices(&self) -> &Devices {
        &self.devices
    }

    pub(crate) fn machine(&self) -> &Machine {
        &self.machine
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(crate) fn build(host: &Host, memory: GuestMemory, vcpus: u8) -> Result<(Arc<Machine>, Vec<Vcpu>), Error> {
    let max = host.kvm().get_max_vcpus();
    if usize::from(vcpus) > max {
        return Err(Error::TooManyVcpus { wanted: usize::from(vcpus), max });
    }
    let fd = host.kvm().create_vm().map_err(|source| Error::Ioctl { name: "KVM_CREATE_VM", source })?;
    let machine = Machine::new(fd, memory)
        .map_err(|source| Error::Ioctl { name: "KVM_SET_USER_MEMORY_REGION", source })?;
    let machine = Arc::new(machine);
    interrupt::create(machine.fd())?;
    let vcpus = (0..vcpus).map(|index| Vcpu::new(Arc::clone(&machine), index)).collect::<Result<_, _>>()?;
    Ok((machine, vcpus))
}

/// Restores vCPUs that were just created, each from its state.
pub(crate) fn restore_vcpus(vcpus: &mut [Vcpu], states: &[VcpuStateV1]) -> Result<(), Error> {
    // All frequencies first: the host's counter is read at the guest's frequency.
    for (vcpu, saved) in vcpus.iter().zip(states) {
        vcpu.restore_frequency(&saved.tsc)?;
    }
    // One reading for all, so that time stamp counters that were equal stay equal.
    let host_counter = vcpus.first().map_or(Ok(0), Vcpu::host_counter)?;
    for (vcpu, saved) in vcpus.iter_mut().zip(states) {
        vcpu.restore(saved, host_counter)?;
    }
    Ok(())
}
