//! The threads that run vCPUs, and how they are stopped.
//!
//! ```text
//!              start / resume                  the guest ends
//!   ┌────────┐ ─────────────────► ┌─────────┐ ──────────────► ┌───────┐
//!   │ parked │                    │ running │                 │ ended │
//!   └────────┘ ◄───────────────── └─────────┘                 └───────┘
//!        │        kick, EINTR          (any) ── stop, kick ──► thread exits
//! ```
//!
//! A thread that is parked owns nothing but its [`Control`] and its [`VcpuSlot`], which holds its vCPU: a child process, in which
//! these threads do not exist, can still take the VM apart ([`Threads::abandon`]).
//!
//! One [`Control`] serves all vCPUs of a VM: it says what is wanted, and counts the vCPUs that have parked. A vCPU parks only after
//! `KVM_RUN` returned EINTR, so that a parked vCPU has no pending I/O.
//!
//! A kick must not be lost when it arrives just before the thread enters `KVM_RUN`. Therefore it first sets
//! `immediate_exit` in the `kvm_run` page, through a mapping of its own, and then sends a signal: if the thread is in
//! the guest, the signal interrupts it; otherwise KVM sees the flag when the thread enters. The thread clears the flag
//! before it looks at what is wanted, never after, so that a flag set meanwhile costs one spurious return at worst.

use std::io::{self, PipeWriter, Write};
use std::mem;
use std::ops::ControlFlow;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread::{Builder, JoinHandle};

use vmm_sys_util::signal::Killable;

use super::Vcpu;
use crate::bus::Ending;
use crate::devices::Devices;
use crate::sys::fork::thread_number;
use crate::sys::kvm::ImmediateExit;
use crate::sys::signal::kick_signal;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Parked,
    Running,
    Gone,
}

/// What all vCPUs of a VM are to do, and how many of them are parked.
#[derive(Debug)]
pub(crate) struct Control {
    state: Mutex<State>,
    changed: Condvar,
    /// The pipe to write to when the guest ends.
    end: Weak<PipeWriter>,
}

#[derive(Debug)]
struct State {
    wanted: Wanted,
    parked: usize,
    ending: Option<Ending>,
}

impl Control {
    /// A control block of parked vCPUs. One byte is written to `end` when the guest ends, if its owner still keeps the pipe.
    pub(crate) fn new(end: &Arc<PipeWriter>) -> Self {
        let state = State { wanted: Wanted::Parked, parked: 0, ending: None };
        Self { state: Mutex::new(state), changed: Condvar::new(), end: Arc::downgrade(end) }
    }

    /// How the guest ended, if it has.
    pub(crate) fn ending(&self) -> Option<Ending> {
        self.lock().ending.clone()
    }

    /// Waits until the guest ends, or until `deadline`, in which case it returns `None`.
    pub(crate) fn wait_for_ending(&self, deadline: Option<std::time::Instant>) -> Option<Ending> {
        let mut state = self.lock();
        loop {
            if let Some(ending) = &state.ending {
                return Some(ending.clone());
            }
            state = match deadline {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.checked_duration_since(std::time::Instant::now())?;
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Lets all vCPUs run.
    pub(crate) fn resume(&self) {
        self.want(Wanted::Running);
    }

    /// Sets what is wanted, and returns what was wanted before.
    fn want(&self, wanted: Wanted) -> Wanted {
        let before = mem::replace(&mut self.lock().wanted, wanted);
        self.changed.notify_all();
        before
    }

    fn wait_parked(&self, vcpus: usize) {
        let state = self.lock();
        drop(
            self.changed
                .wait_while(state, |state| state.parked < vcpus)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    /// Blocks the calling vCPU thread until it is to run; returns `false` if it is to exit instead.
    fn park_until_wanted(&self) -> bool {
        let mut state = self.lock();
        state.parked += 1;
        self.changed.notify_all();
        let mut state = self
            .changed
            .wait_while(state, |state| {
                state.wanted == Wanted::Parked || (state.ending.is_some() && state.wanted != Wanted::Gone)
            })
            .unwrap_or_else(PoisonError::into_inner);
        state.parked -= 1;
        state.wanted == Wanted::Running
    }

    fn end(&self, ending: Ending) {
        // The first ending counts: what other vCPUs run into afterwards follows from it.
        let mut state = self.lock();
        let first = state.ending.is_none();
        state.ending.get_or_insert(ending);
        drop(state);
        self.changed.notify_all();
        if first
            && let Some(end) = self.end.upgrade()
            && let Err(error) = (&*end).write_all(&[0])
        {
            tracing::warn!(%error, "cannot write to the pipe that says the guest has ended");
        }
    }

    fn keep_running(&self) -> bool {
        let state = self.lock();
        state.wanted == Wanted::Running && state.ending.is_none()
    }

    /// Poisoning is ignored: the state is three plain values, each valid whenever the lock is free.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where a thread finds what it runs. The lock is held while the guest runs and free while the thread is parked, which is when
/// others may use the vCPU.
#[derive(Debug)]
struct VcpuSlot {
    /// The thread's number (TID), once it has parked for the first time.
    thread: AtomicU32,
    /// Empty only once the thread no longer exists.
    running: Mutex<Option<RunningVcpu>>,
}

/// A vCPU and what it needs to run.
#[derive(Debug)]
struct RunningVcpu {
    vcpu: Vcpu,
    immediate_exit: Arc<ImmediateExit>,
    devices: Arc<Devices>,
}

/// The thread of one vCPU, as other threads see it.
#[derive(Debug)]
struct VcpuThread {
    handle: JoinHandle<()>,
    immediate_exit: Arc<ImmediateExit>,
}

impl VcpuThread {
    fn kick(&self) {
        self.immediate_exit.set(true);
        if let Err(error) = self.handle.kill(kick_signal()) {
            // The thread has ended, so there is nothing to interrupt.
            tracing::trace!(%error, "cannot kick a vCPU thread");
        }
    }
}

/// All vCPU threads of a VM. They start out parked, and end when this is dropped.
#[derive(Debug)]
pub(crate) struct Threads {
    control: Arc<Control>,
    /// Empty once they are being joined. A thread that holds the lock can kick all threads in the list.
    threads: Arc<Mutex<Vec<VcpuThread>>>,
    slots: Vec<Arc<VcpuSlot>>,
}

/// Ends a guest from any thread, if the VM still exists. Does not wait for the vCPUs to stop.
#[derive(Debug)]
pub(crate) struct Stopper {
    control: Arc<Control>,
    threads: Weak<Mutex<Vec<VcpuThread>>>,
}

impl Stopper {
    /// Ends the guest with `ending`, unless it has ended already.
    pub(crate) fn stop(&self, ending: Ending) {
        tracing::debug!(%ending, "guest ended");
        self.control.end(ending);
        if let Some(threads) = self.threads.upgrade() {
            lock(&threads).iter().for_each(VcpuThread::kick);
        }
    }
}

impl Threads {
    /// Starts a parked thread for each vCPU.
    ///
    /// # Errors
    /// The kernel's reason for not starting a thread or not mapping a `kvm_run` page. Threads started by then are ended.
    pub(crate) fn spawn(vcpus: Vec<Vcpu>, control: Arc<Control>, devices: &Arc<Devices>) -> io::Result<Self> {
        let mut this = Self { control, threads: Arc::default(), slots: Vec::new() };
        for vcpu in vcpus {
            let immediate_exit = Arc::new(vcpu.immediate_exit()?);
            let name = format!("vcpu-{}", vcpu.index());
            let (flag, devices) = (Arc::clone(&immediate_exit), Arc::clone(devices));
            let running = Mutex::new(Some(RunningVcpu { vcpu, immediate_exit: flag, devices }));
            let slot = Arc::new(VcpuSlot { thread: AtomicU32::new(0), running });
            let (own, control) = (Arc::clone(&slot), Arc::clone(&this.control));
            let handle = Builder::new().name(name).spawn(move || run(&own, &control))?;
            lock(&this.threads).push(VcpuThread { handle, immediate_exit });
            this.slots.push(slot);
        }
        Ok(this)
    }

    /// Stops all vCPUs, waits until each has parked, and returns whether they were running.
    pub(crate) fn park(&self) -> bool {
        let were_running = self.control.want(Wanted::Parked) == Wanted::Running;
        lock(&self.threads).iter().for_each(VcpuThread::kick);
        self.control.wait_parked(self.len());
        were_running
    }

    /// Calls `operation` on each vCPU in order. All must be parked; otherwise this waits until they are.
    pub(crate) fn each<T, E>(
        &self,
        mut operation: impl FnMut(&mut Vcpu) -> Result<T, E>,
    ) -> Result<Vec<T>, E> {
        let each = |slot: &Arc<VcpuSlot>| {
            let mut running = lock(&slot.running);
            operation(&mut running.as_mut().expect("taken by `abandon` only, with the threads").vcpu)
        };
        self.slots.iter().map(each).collect()
    }

    /// Number of vCPUs.
    pub(crate) const fn len(&self) -> usize {
        self.slots.len()
    }

    /// The numbers (TIDs) of the threads, each of which must have parked.
    pub(crate) fn numbers(&self) -> Vec<u32> {
        // Relaxed: the number was stored before the thread parked, and parking is seen under the control's lock.
        self.slots.iter().map(|slot| slot.thread.load(Ordering::Relaxed)).collect()
    }

    /// Drops the vCPUs of threads that do not exist in this process: they are parked in its parent.
    pub(crate) fn abandon(mut self) {
        for slot in mem::take(&mut self.slots) {
            drop(lock(&slot.running).take());
        }
        for VcpuThread { handle, immediate_exit } in mem::take(&mut *lock(&self.threads)) {
            drop(immediate_exit);
            // There is nothing to detach or to join.
            mem::forget(handle);
        }
        // Dropping it would lock the control block, which one of those threads may have locked: it would never be unlocked.
        mem::forget(self);
    }

    pub(crate) fn stopper(&self) -> Stopper {
        Stopper { control: Arc::clone(&self.control), threads: Arc::downgrade(&self.threads) }
    }

    pub(crate) const fn control(&self) -> &Arc<Control> {
        &self.control
    }
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.control.want(Wanted::Gone);
        let threads = mem::take(&mut *lock(&self.threads));
        threads.iter().for_each(VcpuThread::kick);
        for thread in threads {
            if thread.handle.join().is_err() {
                tracing::error!("a vCPU thread panicked");
            }
        }
    }
}

fn run(slot: &VcpuSlot, control: &Control) {
    slot.thread.store(thread_number(), Ordering::Relaxed);
    while control.park_until_wanted() {
        let mut running = lock(&slot.running);
        let RunningVcpu { vcpu, immediate_exit, devices } =
            running.as_mut().expect("taken by `abandon` only, in a process without this thread");
        loop {
            immediate_exit.set(false);
            if !control.keep_running() {
                break;
            }
            if let ControlFlow::Break(ending) = vcpu.run(devices.bus()) {
                tracing::debug!(vcpu = vcpu.index(), %ending, "guest ended");
                control.end(ending);
            }
        }
    }
}

/// A panic of a vCPU thread is reported when it is joined; its vCPU is still a vCPU.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
