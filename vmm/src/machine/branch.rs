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
use crate::memory::{Backing, GuestMemory, Held};
use crate::state::VmState;
use crate::sys::fork::{self, Child, Side};

/// Why there is no branch. The source is unharmed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What one process writes to shared memory, all see.
    #[error("a VM whose memory is {0} cannot be branched: only private memory becomes two by fork()")]
    NotPrivate(String),
    /// It has somebody who brings what is missing, to one process.
    #[error("a lazy clone cannot be branched: its memory arrives in one process only")]
    Lazy,
    /// The VM cannot be paused, or its state not saved.
    #[error("cannot pause and save the VM")]
    Vm(#[from] super::Error),
    /// The kernel does not say how many huge pages the process has.
    #[error("cannot tell how many huge pages the VM has")]
    HugePages(#[source] io::Error),
    /// The process cannot be forked.
    #[error("cannot fork the process of the VM")]
    Fork(#[from] fork::Error),
    /// The memory cannot be taken over by the child.
    #[error("the branch cannot take over its memory")]
    Memory(#[source] io::Error),
}

/// Where [`Vm::branch`] returned.
#[derive(Debug)]
pub enum BranchSide {
    /// In the process that called. The VM is as before: it runs on, if it did.
    Source {
        /// The VM.
        vm: Vm,
        /// The child in which this returned as well.
        branched: Result<Branched, Error>,
    },
    /// In the child.
    Branch(Result<Box<BranchSeed>, Error>),
}

/// A branch as its source sees it.
#[derive(Debug)]
pub struct Branched {
    /// Its process.
    pub child: Child,
    /// How long the source stood still.
    pub pause: Duration,
    /// The part of it that was `fork()`.
    pub fork_time: Duration,
}

/// What a branch is made of.
#[derive(Debug)]
pub struct BranchSeed {
    /// The source's state at the pause.
    pub state: VmState,
    /// Its memory at the pause; nobody else has it any more.
    pub memory: GuestMemory,
    /// How a process holds that memory. If it is in reserved huge pages and the host runs out of them, the kernel takes some away
    /// from the branch, whose next access to them is a bus error.
    pub held: Held,
}

impl Vm {
    /// Forks this process and with it the VM, which stands still meanwhile.
    ///
    /// Returns twice. The child has nothing of the VM but state and memory; its descriptors and threads are gone. Whatever else
    /// the process had open, the child has open too.
    ///
    /// # Errors
    /// See [`Error`]; there is no child then, but for [`Error::Memory`], with which it returns in the child, and
    /// [`fork::Error::Pidfd`].
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

/// The state at the pause, in both processes; what was made, in the source's only.
fn forked(vm: &Vm) -> Result<(Option<Branched>, VmState, Held), Error> {
    match vm.memory().backing() {
        Backing::Private(_) | Backing::OverTemplate(_) => {}
        Backing::Shared(_) => return Err(Error::NotPrivate(vm.memory().backing().to_string())),
    }
    if vm.memory().is_supplied() {
        return Err(Error::Lazy);
    }
    let paused = vm.pause()?;
    let state = paused.save()?;
    let held = Held::of(vm.memory(), std::process::id()).map_err(Error::HugePages)?;
    let before = paused.elapsed();
    match fork_beside(&paused.parked())? {
        Side::Parent(child) => {
            let fork_time = paused.elapsed() - before;
            Ok((Some(Branched { child, pause: paused.resume(), fork_time }), state, held))
        }
        Side::Child => {
            // It would let threads run that do not exist.
            mem::forget(paused);
            Ok((None, state, held))
        }
    }
}
