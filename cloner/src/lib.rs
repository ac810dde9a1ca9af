//! Many machines from one: cloner pauses a running guest for milliseconds, keeps its memory encoded in RAM, and builds clones of it.
//!
//! A *machine* is one KVM virtual machine of the crate [`vmm`]. This crate makes many out of one:
//!
//! ```text
//! save     Vm ─► Moment ─► walk in parallel ─► cloner_codec: encode ─► Pool
//! restore  Pool ─► cloner_codec: decode ─► guest memory ─► Vm::restore
//! ```
//!
//! * A [`Moment`](moment::Moment) is a guest at one instant: state and memory that belong together. The guest stands still for
//!   as long as the moment lives ([`Moment::of`](moment::Moment::of)), or runs on meanwhile
//!   ([`Moment::live`](moment::Moment::live)). A [`Series`](moment::Series) makes moments of which only what has changed is read.
//! * [`Saver::save`](save::Saver::save) encodes a moment with bit markers, and publishes it in a [`Pool`](pool::Pool) of RAM as
//!   a [`Snapshot`](snapshot::Snapshot), which is immutable and has a name.
//! * A clone is a VM built from a snapshot. A [`Restorer`](restore::Restorer) makes its memory in one of three ways:
//!   *eagerly*, all of it is decoded before the clone runs; *lazily*, it arrives while the clone runs; over a *template*, which is
//!   decoded once, clones share pages until they write. [`Vm::restore`](vmm::Vm::restore) gets the memory, and builds every clone.
//!   [`process::fork`] makes clones of a template in processes of their own.
//! * A [`GuestProcess`](process::GuestProcess) is a machine in a process of its own. It can be *branched*, which makes a second
//!   machine out of the running one without encoding or decoding anything.
//! * [`compare`] tells whether two guests' memories are equal.
//! * [`durable`] makes a pool survive a power failure: a [`battery`] gives the time to [`flush`] its snapshots to a disk, from
//!   which they are recovered.
//!
//! All of these work on [`Threads`](walk::Threads) that a program starts once and shares among them. Whatever takes long can be
//! followed and cancelled ([`progress`]).
//!
//! Data flows one way: a stage takes its input and returns its output, and leaves nothing behind for a later stage. An operation
//! that fails leaves the source running and the pool as it was. Everything that is loaded counts as hostile until it has been
//! checked.
//!
//! # Example
//! A guest is booted, saved while it runs on, and cloned. `examples/clone_twice.rs` is this as a whole program.
//!
//! ```no_run
//! use cloner::admission::CopyLimits;
//! use cloner::moment::Moment;
//! use cloner::pool::{PoolPages, Pool, PoolConfig, Populate};
//! use cloner::progress::Watch;
//! use cloner::restore::Restorer;
//! use cloner::save::{SaveOptions, Saver};
//! use cloner::walk::Threads;
//! use vmm::Vm;
//! use vmm::config::{Config, Kernel};
//! use vmm::memory::{Backing, PageSize};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let kernel = Kernel::Linux { path: "vmlinux".into(), initramfs: None, cmdline: "console=ttyS0".into() };
//! let source = Vm::boot(&Config::new(128 << 20, kernel), Box::new(std::io::stdout()))?;
//! source.start();
//!
//! // Made first, so that the source does not stand still while threads start.
//! let threads = Threads::new(2)?;
//! let (saver, restorer) = (Saver::new(&threads), Restorer::new(&threads));
//! let pool = Pool::new(&PoolConfig {
//!     capacity_bytes: 64 << 20,
//!     pages: PoolPages::Ordinary,
//!     populate: Populate::OnFirstUse,
//! })?;
//! let moment = Moment::live(&source, CopyLimits::default())?;
//! let saved = saver.save(moment, pool.reserve("golden")?, &SaveOptions::default())?;
//!
//! let backing = Backing::Private(PageSize::Transparent);
//! let memory = restorer.eager(&saved.snapshot, backing, Watch::default())?.memory;
//! let clone = Vm::restore(saved.snapshot.state(), memory, Box::new(std::io::stdout()))?;
//! clone.start(); // it goes on from where the source was saved
//! # Ok(())
//! # }
//! ```

pub mod admission;
pub mod battery;
mod chain;
pub mod chunk_id;
pub mod compare;
mod dedup;
pub mod durable;
pub mod flush;
pub mod image;
pub mod layout;
pub mod machine;
pub mod moment;
pub mod pool;
pub mod process;
pub mod progress;
pub mod rate;
pub mod restore;
pub mod save;
pub mod snapshot;
mod sync;
mod sys;
pub mod walk;

pub use chain::chain;

/// Compiles the code in the README as a doc test.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
