//! One KVM virtual machine: boot it, run it, pause it, save it, build it again.
//!
//! This crate knows one machine at a time, and nothing about pools or snapshots. It has few entry points:
//!
//! * [`Vm::boot`] builds a machine from a [`Config`]; [`Vm::restore`] builds one from a [`VmState`] and a
//!   [`GuestMemory`](memory::GuestMemory). How that memory came to be is the caller's business: eager, lazy and forked
//!   clones differ in nothing else. Either way the machine gets an [`Identity`], which its guest can be told.
//! * [`Vm::pause`] gives a [`Paused`] guard. A machine can be saved only through it, and dropping it lets the machine run on.
//! * [`Vm::branch`] makes a second machine out of a running one, in a child of its process.
//! * Everything loaded is hostile until checked: [`VmState::from_bytes`] is the only way in.
//!
//! Guests run on two kinds of host, see [`host`]. All `unsafe` is in modules named `sys`.
//!
//! ```no_run
//! use vmm::config::{Config, Kernel};
//! use vmm::{Vm, VmState};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kernel = Kernel::Linux { path: "vmlinux".into(), initramfs: None, cmdline: "console=ttyS0".into() };
//! let vm = Vm::boot(&Config::new(128 << 20, kernel), Box::new(std::io::stdout()))?;
//! vm.start();
//! let saved: Vec<u8> = vm.pause()?.save()?.to_bytes(); // the guard is dropped here: the VM runs on
//! let state = VmState::from_bytes(&saved)?;
//! # Ok(())
//! # }
//! ```

pub mod boot;
pub mod bus;
pub mod config;
pub mod devices;
pub mod host;
pub mod interrupt;
pub mod machine;
pub mod memory;
pub mod schema;
pub mod state;
mod sys;
pub mod vcpu;

pub use bus::Ending;
pub use config::Config;
pub use machine::{Announce, Error, Identity, Paused, Vm};
pub use state::VmState;
