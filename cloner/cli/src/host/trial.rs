//! Tries the purpose of `cloner` with the smallest possible guest: boots it, clones it, and checks that both end as they should.

use std::borrow::Cow;
use std::error::Error;
use std::fs;
use std::time::{Duration, Instant};

use serde::Serialize;
use vmm::config::{Config, Kernel};
use vmm::memory::{Backing, GuestMemory, PageSize};
use vmm::{Ending, Paused, Vm, VmState};

use cloner::chain;

const MEMORY_BYTES: u64 = 4 << 20;
/// The code with which the guest shuts down.
const CODE: u8 = 42;
/// `mov al, CODE; out 0xf4, al; hlt`.
const IMAGE: [u8; 5] = [0xb0, CODE, 0xe6, 0xf4, 0xf4];
/// Longest wait for the guest's three instructions, enough on any host.
const PATIENCE: Duration = Duration::from_secs(20);

/// The outcome of one attempt.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(super) struct TrialOutcome {
    /// How long the attempt took. `None` if it failed.
    pub(super) milliseconds: Option<f64>,
    pub(super) error: Option<String>,
}

/// The outcome of every attempt, and what a guest takes of its process.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(super) struct Trial {
    /// Building a machine, and running its guest to the end.
    pub(super) boot: TrialOutcome,
    /// The same with a clone of that machine.
    pub(super) clone: TrialOutcome,
    /// Finding out which pages a guest has written.
    pub(super) dirty_log: TrialOutcome,
    pub(super) descriptors_per_guest: u64,
    pub(super) mappings_per_guest: u64,
    pub(super) threads_per_guest: u64,
}

type TrialError = Box<dyn Error>;

impl Trial {
    pub(super) fn run() -> Self {
        let before = Holdings::now();
        let started = Instant::now();
        let vm = match boot() {
            Ok(vm) => vm,
            Err(error) => return Self { boot: TrialOutcome::failed(&*error), ..Self::default() },
        };
        let built = started.elapsed();
        let with = Holdings::now();
        // Cloned before the source runs its first instruction.
        let clone = TrialOutcome::of(|| clone_of(&vm));
        let dirty_log = TrialOutcome::of(|| dirty_log(&vm.pause()?));
        let mut boot = TrialOutcome::of(|| ends(&vm));
        boot.milliseconds = boot.milliseconds.map(|ran| ran + built.as_secs_f64() * 1e3);
        Self {
            boot,
            clone,
            dirty_log,
            descriptors_per_guest: with.descriptors.saturating_sub(before.descriptors),
            mappings_per_guest: with.mappings.saturating_sub(before.mappings),
            threads_per_guest: with.threads.saturating_sub(before.threads),
        }
    }
}

impl TrialOutcome {
    fn of(attempt: impl FnOnce() -> Result<(), TrialError>) -> Self {
        let started = Instant::now();
        match attempt() {
            Ok(()) => Self { milliseconds: Some(started.elapsed().as_secs_f64() * 1e3), error: None },
            Err(error) => Self::failed(&*error),
        }
    }

    fn failed(error: &dyn Error) -> Self {
        Self { milliseconds: None, error: Some(chain(error)) }
    }
}

fn boot() -> Result<Vm, TrialError> {
    let config = Config::new(MEMORY_BYTES, Kernel::Flat { image: Cow::Borrowed(&IMAGE) });
    Ok(Vm::boot(&config, Box::new(std::io::sink()))?)
}

fn ends(vm: &Vm) -> Result<(), TrialError> {
    vm.start();
    match vm.wait_timeout(PATIENCE) {
        Some(Ending::Shutdown { code: CODE }) => Ok(()),
        Some(ending) => Err(ending.into()),
        None => {
            Err(format!("the guest did not run three instructions within {} s", PATIENCE.as_secs()).into())
        }
    }
}

fn clone_of(vm: &Vm) -> Result<(), TrialError> {
    let (state, memory) = {
        let paused = vm.pause()?;
        (paused.save()?.to_bytes(), copied(paused.memory())?)
    };
    let clone = Vm::restore(&VmState::from_bytes(&state)?, memory, Box::new(std::io::sink()))?;
    ends(&clone)
}

fn copied(source: &GuestMemory) -> Result<GuestMemory, TrialError> {
    let copy = GuestMemory::new(source.layout(), Backing::Private(PageSize::Transparent))?;
    let mut buffer = vec![0; 1 << 20];
    for address in (0..MEMORY_BYTES).step_by(buffer.len()) {
        source.read(address, &mut buffer)?;
        copy.write(address, &buffer)?;
    }
    Ok(copy)
}

fn dirty_log(paused: &Paused<'_>) -> Result<(), TrialError> {
    let _since = paused.track_dirty()?;
    // When dropped, the set goes back to where it was taken from.
    drop(paused.take_dirty()?);
    paused.untrack_dirty()?;
    Ok(())
}

/// What this process holds; zero where the host does not say.
struct Holdings {
    descriptors: u64,
    mappings: u64,
    threads: u64,
}

impl Holdings {
    fn now() -> Self {
        let entries = |path| fs::read_dir(path).map_or(0, |entries| entries.count() as u64);
        let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
        Self {
            descriptors: entries("/proc/self/fd"),
            mappings: maps.lines().count() as u64,
            threads: entries("/proc/self/task"),
        }
    }
}
