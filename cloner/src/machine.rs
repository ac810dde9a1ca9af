//! A machine, wherever it runs: in this process, or in a process of its own.
//!
//! Both kinds are used through one handle with the same operations and the same errors. A machine in this process costs less to
//! make, and one in a process of its own can also be [branched](Machine::branch) and is not slowed down by the others.

use std::io::{self, Write as _};
use std::net::Shutdown;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use vmm::devices::serial::ConsoleOutput;
use vmm::memory::GuestMemory;
use vmm::{Announce, Config, Identity, Vm, VmState};

use crate::admission::CopyLimits;
use crate::moment::{self, Moment};
use crate::process::{self, BranchReport, GuestProcess};

pub use crate::process::GuestEnding;

/// Why a machine could not be made or used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine cannot be built in this process.
    #[error(transparent)]
    Vm(#[from] vmm::Error),
    /// The machine cannot be made in a process of its own, or that process can no longer be reached.
    #[error(transparent)]
    Process(#[from] process::Error),
    /// The machine cannot be taken at one instant.
    #[error(transparent)]
    Moment(#[from] moment::Error),
    /// The machine runs in this process. Branching would fork this process, with all its threads.
    #[error("a machine can be branched only if it has a process of its own")]
    NotApart,
    /// The guest's console cannot be read or written.
    #[error("cannot read or write the console of the guest")]
    Console(#[source] io::Error),
}

/// A machine that runs. Dropping it ends it.
#[derive(Debug)]
pub struct Machine(Kind);

#[derive(Debug)]
enum Kind {
    Here(Box<Vm>),
    Apart(Apart),
}

/// A machine in a process of its own, and the thread that passes on what its guest prints.
#[derive(Debug)]
struct Apart {
    /// `None` only while this is dropped.
    process: Option<GuestProcess>,
    identity: Identity,
    console: std::os::unix::net::UnixStream,
    /// `None` only while this is dropped.
    reader: Option<JoinHandle<()>>,
}

impl Machine {
    /// Boots a machine in this process, and lets it run. Its guest prints to `output`.
    ///
    /// # Errors
    /// [`Error::Vm`] if it cannot be built; nothing is left behind.
    pub fn boot(config: &Config, output: ConsoleOutput) -> Result<Self, Error> {
        let vm = Vm::boot(config, output)?;
        vm.start();
        Ok(Self::here(vm))
    }

    /// Builds a machine in this process from state and memory, tells its guest who it is as `announce` says, and lets it run.
    ///
    /// # Errors
    /// [`Error::Vm`] if the state does not fit the memory or this host, or if the guest cannot be told.
    pub fn restore(
        state: &VmState,
        memory: GuestMemory,
        announce: Announce,
        output: ConsoleOutput,
    ) -> Result<Self, Error> {
        let vm = process::restore(state, memory, announce, output)?;
        vm.start();
        Ok(Self::here(vm))
    }

    /// A machine that was built in this process.
    #[must_use]
    pub fn here(vm: Vm) -> Self {
        Self(Kind::Here(Box::new(vm)))
    }

    /// A machine in a process of its own, whether booted, forked or branched. Waits until it runs; its guest prints to `output`.
    ///
    /// # Errors
    /// [`Error::Process`] if its machine could not be built or its process was killed, [`Error::Console`] if its console cannot be
    /// read.
    pub fn apart(process: GuestProcess, mut output: ConsoleOutput) -> Result<Self, Error> {
        let identity = process.wait_running()?;
        let console = process.console().try_clone().map_err(Error::Console)?;
        let mut printed = console.try_clone().map_err(Error::Console)?;
        // However the copy ends, there is nothing more to pass on.
        let copy = move || drop(io::copy(&mut printed, &mut output));
        let reader =
            thread::Builder::new().name(String::from("console")).spawn(copy).map_err(Error::Console)?;
        Ok(Self(Kind::Apart(Apart { process: Some(process), identity, console, reader: Some(reader) })))
    }

    /// What tells the machine from all others. Its guest knows it only if it was told.
    #[must_use]
    pub fn identity(&self) -> Identity {
        match &self.0 {
            Kind::Here(vm) => vm.identity(),
            Kind::Apart(apart) => apart.identity,
        }
    }

    /// The process id of a machine that has a process of its own.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        match &self.0 {
            Kind::Here(_) => None,
            Kind::Apart(apart) => Some(apart.process().pid()),
        }
    }

    /// Types `bytes` on the guest's console. Bytes typed for a guest that has ended are dropped.
    ///
    /// # Errors
    /// [`Error::Console`] if they cannot be passed to the guest's process.
    pub fn console_input(&self, bytes: &[u8]) -> Result<(), Error> {
        match &self.0 {
            Kind::Here(vm) => vm.console_input(bytes),
            Kind::Apart(apart) => match (&apart.console).write_all(bytes) {
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
                result => result.map_err(Error::Console)?,
            },
        }
        Ok(())
    }

    /// Whether the guest has ended, and has printed everything that it ever will.
    #[must_use]
    pub fn is_silent(&self) -> bool {
        match &self.0 {
            Kind::Here(vm) => vm.ending().is_some(),
            Kind::Apart(apart) => apart.reader.as_ref().is_none_or(JoinHandle::is_finished),
        }
    }

    /// Waits until the guest ends, but no longer than `limit`. `None` if it is still running.
    ///
    /// # Errors
    /// [`Error::Process`] if its process was killed, and so could not say how the guest ended.
    pub fn wait_timeout(&self, limit: Duration) -> Result<Option<GuestEnding>, Error> {
        match &self.0 {
            Kind::Here(vm) => Ok(vm
                .wait_timeout(limit)
                .map(|ending| GuestEnding { message: ending.to_string(), orderly: ending.is_orderly() })),
            Kind::Apart(apart) => Ok(apart.process().wait_timeout(limit)?),
        }
    }

    /// Takes the guest as it is at the instant of a pause of milliseconds. It runs on.
    ///
    /// # Errors
    /// [`Error::Moment`] or [`Error::Process`], for a machine of either kind, if there is too little memory for what both may come
    /// to hold twice, if the memory is shared, or if the guest has ended.
    pub fn moment(&self, limits: CopyLimits) -> Result<Moment<'_>, Error> {
        match &self.0 {
            Kind::Here(vm) => Ok(Moment::live(vm, limits)?),
            Kind::Apart(apart) => Ok(apart.process().moment(limits)?),
        }
    }

    /// Makes a second machine of this one as it is now, while it runs on: see [`GuestProcess::branch`]. Waits until the branch runs;
    /// its guest prints to `output`.
    ///
    /// # Errors
    /// [`Error::NotApart`] if this machine has no process of its own, [`Error::Process`] if the branch cannot be made. This guest
    /// runs on.
    pub fn branch(
        &self,
        announce: Announce,
        limits: CopyLimits,
        output: ConsoleOutput,
    ) -> Result<(Self, BranchReport), Error> {
        let Kind::Apart(apart) = &self.0 else { return Err(Error::NotApart) };
        let (process, report) = apart.process().branch(announce, limits)?;
        Ok((Self::apart(process, output)?, report))
    }

    /// Ends the guest. A process of its own is gone when this returns.
    ///
    /// # Errors
    /// [`Error::Process`] if the kernel refuses to wait for the process, which ends nevertheless.
    pub fn end(self) -> Result<(), Error> {
        match self.0 {
            Kind::Here(vm) => drop(vm),
            Kind::Apart(mut apart) => apart.process.take().map_or(Ok(()), GuestProcess::end)?,
        }
        Ok(())
    }
}

impl Apart {
    const fn process(&self) -> &GuestProcess {
        self.process.as_ref().expect("it is there until this is dropped")
    }
}

impl Drop for Apart {
    fn drop(&mut self) {
        drop(self.process.take());
        // The reader stops here even if something else holds the console's other end.
        let _ = self.console.shutdown(Shutdown::Both);
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }
}
