//! Snapshots of a VM that runs on.
//!
//! ```text
//! admit ─► pause ─► save state ─► freeze memory ─► resume │ which pages? ─► encode in parallel ─► seal ─► let go ─► mend
//!         └──────── the source stands still ─────────────┘ the source runs, and pays for the first write to each page
//! ```
//!
//! Memory is frozen by `fork()` ([`vmm::memory::FrozenMemory`]): a process that runs no code shares every page with the
//! source until the source writes it, and the kernel copies it then, 4 KiB at a time. There is no handler that could be slow
//! or die: if the holder is killed, the snapshot fails and the source does not notice.
//!
//! Copies are of 4 KiB also where the source has huge pages, which are split by that; they are put back together at the end.
//!
//! What the source writes meanwhile is kept twice. That can be no more than what it had touched at the pause, so this much
//! has to be available before anything is begun; what it came to is reported.

use std::time::{Duration, Instant};

use cloner_codec::chunk::PAGE_BYTES;
use vmm::Vm;
use vmm::memory::HUGE_PAGE_SIZE;
use vmm::memory::{Backing, PageSize, frozen};

use crate::pool::{self, Reservation, hugepages};
use crate::save::{self, Saver};
use crate::snapshot::Snapshot;
use crate::walk::Progress;

/// Why no snapshot was made. Source and pool are as they were.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A guest that writes to all it has touched would need more memory than there is.
    #[error(
        "the source may come to write {needed_bytes} bytes while they are saved, which would be kept twice: \
         {available_bytes} bytes are available; stop mode needs none"
    )]
    TooLittleMemory {
        /// Bytes of pages the source has touched.
        needed_bytes: u64,
        /// What the host, or the caller, can spare.
        available_bytes: u64,
    },
    /// The host does not say how much memory it has left.
    #[error("cannot tell how much memory is available")]
    Available(#[source] pool::Error),
    /// The source cannot be paused, or its state not saved.
    #[error("cannot pause and save the state of the source")]
    Vm(#[from] vmm::Error),
    /// The source's memory cannot be frozen.
    #[error("cannot freeze the memory of the source")]
    Freeze(#[from] frozen::Error),
    /// What was frozen could not be saved.
    #[error(transparent)]
    Save(#[from] save::Error),
}

/// What the caller allows.
#[derive(Debug, Clone, Copy, Default)]
pub struct Limits {
    /// Most bytes to spend on pages that are kept twice; everything the host has available if `None`.
    pub copy_bytes: Option<u64>,
}

/// What a live save did, and how long each part took.
#[derive(Debug, Clone)]
pub struct Report {
    /// What was saved.
    pub save: save::Report,
    /// How long the source stood still: from the request to the moment it ran again.
    pub pause: Duration,
    /// The part of the pause that froze memory.
    pub freeze_time: Duration,
    /// From the request to the sealed snapshot.
    pub total_time: Duration,
    /// Putting back together, after that, the source's transparent huge pages that copy-on-write has split: the next freeze, and
    /// the source itself, are faster with them.
    pub collapse_time: Duration,
    /// Bytes of pages the source wrote first while they were saved, so that there were two of them. Without `CAP_SYS_ADMIN`, pages
    /// that a third process shares are left out. `None` if a page table could not be read.
    pub copied_bytes: Option<u64>,
    /// What they could have come to.
    pub copy_bound_bytes: u64,
}

impl Limits {
    /// Bytes that may be spent on copies of such memory.
    pub(crate) fn available_bytes(self, backing: &Backing) -> Result<u64, pool::Error> {
        match self.copy_bytes {
            Some(bytes) => Ok(bytes),
            // Copies of reserved huge pages are huge pages.
            None if matches!(backing, Backing::Private(PageSize::Huge)) => {
                let free = hugepages::HugePages::read()?.available();
                Ok((free * HUGE_PAGE_SIZE) as u64)
            }
            None => Ok(pool::available_bytes()? as u64),
        }
    }
}

impl Saver {
    /// Saves a VM into `reservation` while it runs on; with `against`, only what differs from that snapshot.
    ///
    /// The snapshot is of the instant of the pause, in memory and state.
    ///
    /// # Errors
    /// See [`Error`]. The reservation is gone, and with it all it held; the source runs on.
    pub fn save_live(
        &self,
        vm: &Vm,
        against: Option<&Snapshot>,
        reservation: Reservation,
        limits: Limits,
        progress: &Progress,
    ) -> Result<(Snapshot, Report), Error> {
        let copy_bound_bytes = (self.touched_pages(vm.memory())? * PAGE_BYTES) as u64;
        admit(copy_bound_bytes, vm.memory().backing(), limits)?;

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

        let (snapshot, save) =
            self.save_memory(&state, state_time, frozen.memory(), against, reservation, progress)?;
        let total_time = requested.elapsed();
        let copied = frozen.copied_pages(vm.memory());
        let copied = copied.inspect_err(|error| tracing::warn!(%error, "cannot tell how much was copied"));
        let copied_bytes = copied.ok().map(|pages| (pages * PAGE_BYTES) as u64);
        drop(frozen);
        let started = Instant::now();
        if let Err(error) = vm.memory().collapse() {
            tracing::warn!(%error, "cannot put huge pages back together: the next freeze will take longer");
        }
        let collapse_time = started.elapsed();
        tracing::info!(
            snapshot = snapshot.name(),
            mechanism = "fork",
            ?pause,
            ?freeze_time,
            ?total_time,
            ?collapse_time,
            copied_bytes,
            copy_bound_bytes,
            "saved live"
        );
        Ok((
            snapshot,
            Report { save, pause, freeze_time, total_time, collapse_time, copied_bytes, copy_bound_bytes },
        ))
    }
}

/// Refuses what could come to take more memory than there is.
fn admit(needed_bytes: u64, backing: &Backing, limits: Limits) -> Result<(), Error> {
    let available_bytes = limits.available_bytes(backing).map_err(Error::Available)?;
    if needed_bytes > available_bytes {
        return Err(Error::TooLittleMemory { needed_bytes, available_bytes });
    }
    Ok(())
}
