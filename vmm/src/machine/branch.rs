//! A second VM out of a running one, by `fork()` of the process that has it.
//!
//! ```text
//!  pause ─► save state ─► fork() ─┬─► resume                                           the source, in its process
//!                                 └─► take the VM apart ─► state + memory ─► Vm::restore   the branch, in the child
//! ```
//!
//! Nothing is encoded, decoded or copied: the kernel shares every private page between source and branch until one of them writes
//! it. KVM's descriptors belong to the process that opened them, so the branch builds a VM of its own, as any clone does: memory
//! goes in, a VM comes out.
//!
//! The process may have no thread but the one that calls and the vCPUs', which are parked: see [`crate::sys::fork`].

use std::io;
use std::mem;
use std::time::Duration;

use super::Vm;
use super::sys::fork_beside;
use crate::memory::{Backing, GuestMemory, RemotePages};
use crate::state::VmState;
use crate::sys::fork::{self, ForkSide, ForkedChild};

/// Why no branch was made. The source is unharmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The memory is shared: what one process writes to it, all see.
    #[error("a VM whose memory is {0} cannot be branched: only private memory is duplicated by fork()")]
    NotPrivate(String),
    /// The VM is a lazy clone, and its supplier brings what is missing to one process only.
    #[error("a lazy clone cannot be branched: its memory arrives in one process only")]
    Lazy,
    /// The VM cannot be paused, or its state cannot be saved.
    #[error("cannot pause and save the VM")]
    Vm(#[from] super::Error),
    /// The kernel does not say how many huge pages the process has.
    #[error("cannot find out how many huge pages the VM has")]
    HugePages(#[source] io::Error),
    /// The process of the VM cannot be forked.
    #[error("cannot fork the process of the VM")]
    Fork(#[from] fork::Error),
    /// The child cannot take over the memory.
    #[error("the branch cannot take over its memory")]
    Memory(#[source] io::Error),
}

/// In which of the two processes [`Vm::branch`] returned.
#[derive(Debug)]
pub enum BranchSide {
    /// In the process that called it. The VM is as before: it goes on running if it was running.
    Source {
        /// The VM that was branched.
        vm: Vm,
        /// The child, in which `branch` returned as well, or why there is none.
        branched: Result<Branched, Error>,
    },
    /// In the child: what the branch is to be built from.
    Branch(Result<Box<BranchSeed>, Error>),
}

/// A branch as its source sees it.
#[derive(Debug)]
pub struct Branched {
    /// The process of the branch.
    pub child: ForkedChild,
    /// How long the source stood still.
    pub pause: Duration,
    /// The part of the pause that `fork()` took.
    pub fork_time: Duration,
}

/// What a branch is built from.
#[derive(Debug)]
pub struct BranchSeed {
    /// The source's state at the pause.
    pub state: VmState,
    /// The source's memory at the pause. This process has no other reference to it.
    pub memory: GuestMemory,
    /// How the child holds that memory. If it is in reserved huge pages and the host runs out of them, the kernel takes some away
    /// from the branch, and the branch's next access to them is a bus error.
    pub held: RemotePages,
}

impl Vm {
    /// Forks this process and with it the VM, which stands still meanwhile.
    ///
    /// Returns twice. Of the VM the child keeps only state and memory; descriptors and threads are gone. Everything else
    /// that the process had open is open in the child as well.
    ///
    /// # Errors
    /// * [`Error::NotPrivate`] or [`Error::Lazy`] if this VM's memory cannot be branched.
    /// * [`Error::Vm`], [`Error::HugePages`] or [`Error::Fork`] if a step in the source fails. There is no child then, except after
    ///   [`fork::Error::Pidfd`].
    /// * [`Error::Memory`] in the child, if it cannot take over the memory. The source knows nothing of it.
    #[must_use]
    pub fn branch(self) -> BranchSide {
        match forked(&self) {
            Err(error) => BranchSide::Source { vm: self, branched: Err(error) },
            Ok((Some(made), ..)) => BranchSide::Source { vm: self, branched: Ok(made) },
            Ok((None, state, held)) => {
                let seed = |memory| Box::new(BranchSeed { state, memory, held });
                BranchSide::Branch(self.abandon().inherited().map(seed).map_err(Error::Memory))
            }
        }
    }
}

/// Returns the state at the pause in both processes, and what was made in the source only.
fn forked(vm: &Vm) -> Result<(Option<Branched>, VmState, RemotePages), Error> {
    match vm.memory().backing() {
        Backing::Private(_) | Backing::OverTemplate(_) => {}
        Backing::Shared(_) => return Err(Error::NotPrivate(vm.memory().backing().to_string())),
    }
    if vm.memory().is_supplied() {
        return Err(Error::Lazy);
    }
    let paused = vm.pause()?;
    let state = paused.save()?;
    let held = RemotePages::of(vm.memory(), std::process::id()).map_err(Error::HugePages)?;
    let before = paused.elapsed();
    match fork_beside(&paused.parked())? {
        ForkSide::Parent(child) => {
            let fork_time = paused.elapsed() - before;
            Ok((Some(Branched { child, pause: paused.resume(), fork_time }), state, held))
        }
        ForkSide::Child => {
            // Dropping it would resume threads that do not exist.
            mem::forget(paused);
            Ok((None, state, held))
        }
    }
}
