//! Moments of a VM that runs on while it is saved.
//!
//! ```text
//! admit ─► pause ─► save state ─► freeze memory ─► resume │ which pages? ─► encode in parallel ─► publish ─► release ─► repair
//!         └──────── the source stands still ─────────────┘ the source runs, and pays for the first write to each page
//! ```
//!
//! Memory is frozen by `fork()` ([`vmm::memory::FrozenMemory`]): a *holder*, a process that runs no code, shares every page with
//! the source until the source writes to it; the kernel copies it then, 4 KiB at a time. There is no handler that could be slow or
//! die: if the holder is killed, the snapshot fails and the source does not notice.
//!
//! Where the source has huge pages, copies are of 4 KiB as well, which splits them; they are put back together at the end.
//!
//! What the source writes while it is saved is kept twice. That is at most what it had touched at the pause, so this much memory
//! has to be available before anything begins; the report says how much was used.

use std::io;
use std::time::{Duration, Instant};

use cloner_codec::chunk::PAGE_BYTES;
use vmm::Vm;
use vmm::memory::{FrozenMemory, StillMemory};

use crate::admission::CopyLimits;
use crate::layout;

use super::{Changes, Error, Frozen, Moment, MomentMemory};

/// What it cost to let the source run on while it was saved.
#[derive(Debug, Clone)]
pub struct LiveReport {
    /// How long the source stood still: from the request until it ran again.
    pub pause: Duration,
    /// The part of the pause that froze memory.
    pub freeze_time: Duration,
    /// From the request to the published snapshot.
    pub total_time: Duration,
    /// Time to put the source's transparent huge pages, which copy-on-write has split, back together after that: they make the next
    /// freeze, and the source itself, faster. `None` if the source has a process of its own, which does this by itself.
    pub collapse_time: Option<Duration>,
    /// Bytes of pages that the source wrote to while they were saved, so that there were two copies of them. Without
    /// `CAP_SYS_ADMIN`, pages that a third process shares are left out. `None` if a page table could not be read, or if the source
    /// has a process of its own.
    pub copied_bytes: Option<u64>,
    /// Upper bound of `copied_bytes`, for which memory had to be available.
    pub copy_bound_bytes: u64,
}

/// The frozen memory of a VM that runs on.
struct LiveMemory<'a> {
    vm: &'a Vm,
    frozen: FrozenMemory,
    requested: Instant,
    pause: Duration,
    freeze_time: Duration,
    copy_bound_bytes: u64,
}

impl<'a> Moment<'a> {
    /// Takes a guest that runs on, as it is at the instant of a pause of milliseconds.
    ///
    /// # Errors
    /// [`Error::Admission`] if the host could run out of memory, [`Error::Freeze`] if the memory is shared or the kernel refuses to
    /// fork, [`Error::Vm`] if the guest cannot be paused or its state cannot be saved, [`Error::Touched`] if the kernel does not say
    /// how much memory is touched.
    pub fn live(vm: &'a Vm, limits: CopyLimits) -> Result<Self, Error> {
        let copy_bound_bytes = touched_bytes(vm.memory()).map_err(Error::Touched)?;
        limits.admit(copy_bound_bytes, vm.memory().backing())?;

        let requested = Instant::now();
        let paused = vm.pause()?;
        let started = Instant::now();
        let state = paused.save()?;
        let state_time = started.elapsed();
        let started = Instant::now();
        let frozen = paused.freeze()?;
        let freeze_time = started.elapsed();
        drop(paused);
        let pause = requested.elapsed();
        let memory = LiveMemory { vm, frozen, requested, pause, freeze_time, copy_bound_bytes };
        Ok(Self { state, memory: MomentMemory::Frozen(Box::new(memory)), changes: Changes::All, state_time })
    }
}

impl Frozen for LiveMemory<'_> {
    fn memory(&self) -> &dyn StillMemory {
        self.frozen.memory()
    }

    /// Also puts the source's huge pages back together.
    fn release(self: Box<Self>) -> LiveReport {
        let Self { vm, frozen, requested, pause, freeze_time, copy_bound_bytes } = *self;
        let total_time = requested.elapsed();
        let copied = frozen.copied_pages(vm.memory());
        let copied =
            copied.inspect_err(|error| tracing::warn!(%error, "cannot tell how many pages were copied"));
        let copied_bytes = copied.ok().map(|pages| (pages * PAGE_BYTES) as u64);
        drop(frozen);
        let started = Instant::now();
        if let Err(error) = vm.memory().collapse() {
            tracing::warn!(%error, "cannot put huge pages back together, so the next freeze will take longer");
        }
        let collapse_time = Some(started.elapsed());
        LiveReport { pause, freeze_time, total_time, collapse_time, copied_bytes, copy_bound_bytes }
    }
}

/// Bytes of pages that were ever touched.
fn touched_bytes(memory: &dyn StillMemory) -> io::Result<u64> {
    let mut pages = 0;
    for chunk in layout::chunks(memory.layout()) {
        pages += layout::touched(memory, &chunk)?.len();
    }
    Ok((pages * PAGE_BYTES) as u64)
}
