//! Everything that can end a command, and the exit code for each.

use std::io;

use cloner::{
    battery as power, compare, durable, flush, image, machine, moment, pool as ram, process, restore, save,
    snapshot, walk,
};
use vmm::Ending;

use crate::exit_code::{EXIT_FAILURE, EXIT_GUEST_CRASHED, EXIT_INTERRUPTED};
use crate::interrupt;

/// Why a command failed. `cloner-bench`, which fails in the same ways, has this enum, too.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each message says what its variant is")]
pub enum Error {
    #[error("{0}")]
    Usage(String),
    #[error("{guest}")]
    Vm { guest: &'static str, source: vmm::Error },
    #[error("cannot read the flat image {}", path.display())]
    FlatImage { path: std::path::PathBuf, source: io::Error },
    #[error("pool")]
    Pool(#[from] ram::Error),
    #[error("guest memory on huge pages")]
    GuestPages(#[source] ram::Error),
    #[error("flush folder")]
    Flush(#[from] flush::Error),
    #[error("pass --adopt to take the folder over")]
    NotAdopted(#[source] flush::Error),
    #[error("{name:?} is not safe on disk")]
    NotSafe { name: String, source: flush::Error },
    #[error("flush folder {}", path.display())]
    Folder { path: std::path::PathBuf, source: io::Error },
    #[error("key")]
    Key(#[from] flush::KeyError),
    #[error("durable pool")]
    Durable(#[from] durable::Error),
    #[error("battery")]
    Battery(#[from] power::SpecError),
    #[error("snapshot in the pool")]
    Snapshot(#[from] snapshot::Error),
    #[error("the process that was to lose its power")]
    Child(#[source] io::Error),
    #[error("snapshot")]
    Save(#[from] save::Error),
    #[error("{guest}")]
    Machine { guest: &'static str, source: machine::Error },
    #[error("the source at one instant")]
    Moment(#[from] moment::Error),
    #[error("restore")]
    Restore(#[from] restore::eager::Error),
    #[error("a process of this program, or the connection to it")]
    Program(#[source] io::Error),
    #[error("template")]
    Template(#[from] restore::template::Error),
    #[error("fork")]
    Fork(#[from] process::fork::Error),
    #[error(transparent)]
    Forked(#[from] vmm::host::fork::Error),
    #[error("guest process")]
    Process(#[from] process::Error),
    #[error("lazy restore")]
    Lazy(#[from] restore::lazy::Error),
    #[error("comparison")]
    Compare(#[from] compare::Error),
    #[error(transparent)]
    Image(#[from] image::Error),
    /// An error that only the program sharing this enum has.
    #[error(transparent)]
    Other(Box<dyn std::error::Error + Send + Sync>),
    #[error("cannot write {}", path.display())]
    Write { path: std::path::PathBuf, source: io::Error },
    #[error("threads")]
    Threads(#[from] walk::StartError),
    #[error("built-in guest")]
    Pulse(#[from] guest_images::pulse::Error),
    #[error("tiny-linux")]
    TinyLinux(#[from] guest_images::Error),
    #[error("{guest} printed nothing like {wanted:?} on its console within {seconds} s")]
    Silent { guest: &'static str, wanted: String, seconds: u64 },
    #[error("{guest} ended too early")]
    Ended { guest: &'static str, source: Ending },
    #[error("{guest} ended too early: {message}")]
    Crashed { guest: &'static str, message: String },
    #[error("{0}")]
    NotVerified(String),
    #[error("the kernel has no random numbers")]
    Random(#[source] io::Error),
    #[error("terminal")]
    Terminal(#[source] io::Error),
    #[error("cannot write to standard output")]
    Output(#[source] io::Error),
    #[error("cannot catch signals")]
    Signals(#[from] ctrlc::Error),
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    /// An error of the guest that a command is about.
    #[must_use]
    pub fn source_vm(source: vmm::Error) -> Self {
        Self::Vm { guest: "the guest", source }
    }

    /// An error of a machine, with what messages call its guest.
    pub fn machine(guest: &'static str) -> impl FnOnce(machine::Error) -> Self {
        move |source| Self::Machine { guest, source }
    }

    /// Why a wait for the console was in vain: the user interrupted it, the guest ended, or the time ran out.
    #[must_use]
    pub fn silent(
        guest: &'static str,
        wanted: &str,
        limit: std::time::Duration,
        ending: Option<Ending>,
    ) -> Self {
        match ending {
            _ if interrupt::requested() => Self::Interrupted,
            Some(source) => Self::Ended { guest, source },
            None => Self::Silent { guest, wanted: wanted.to_owned(), seconds: limit.as_secs() },
        }
    }

    /// The exit code that stands for this error.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let crashed = |ending: &Ending| !ending.is_orderly();
        match self {
            Self::Usage(_) => 2,
            Self::Ended { source, .. } if crashed(source) => EXIT_GUEST_CRASHED,
            Self::Crashed { .. } => EXIT_GUEST_CRASHED,
            Self::Process(process::Error::GuestEnded(ending))
            | Self::Machine { source: machine::Error::Process(process::Error::GuestEnded(ending)), .. }
                if !ending.orderly =>
            {
                EXIT_GUEST_CRASHED
            }
            Self::Vm { source: vmm::Error::Ended(ending), .. }
            | Self::Machine { source: machine::Error::Vm(vmm::Error::Ended(ending)), .. }
                if crashed(ending) =>
            {
                EXIT_GUEST_CRASHED
            }
            _ if interrupt::requested() => EXIT_INTERRUPTED,
            _ => EXIT_FAILURE,
        }
    }
}

#[cfg(test)]
mod tests {
    use cloner::machine::GuestEnding;

    use super::*;

    /// Whether a guest runs in this process or in one of its own, its crash has the same exit code.
    #[test]
    fn a_crash_has_its_exit_code_wherever_the_guest_ran() {
        let ended = |orderly| {
            let ending = GuestEnding { message: String::from("it did"), orderly };
            let source = machine::Error::Process(process::Error::GuestEnded(ending));
            Error::Machine { guest: "a clone", source }.exit_code()
        };
        assert_eq!(ended(false), EXIT_GUEST_CRASHED);
        assert_eq!(ended(true), EXIT_FAILURE);
        let here = machine::Error::Vm(vmm::Error::Ended(Ending::TripleFault {
            vcpu: 0,
            rip: 0,
            bytes: String::new(),
        }));
        assert_eq!(Error::Machine { guest: "a clone", source: here }.exit_code(), EXIT_GUEST_CRASHED);
    }
}
