//! Makes the pool's snapshots safe on a disk, and brings them back.
//!
//! ```text
//! flush     Pool ─► order ─► form: hot or cold ─► writer: one file ─► Folder: commit ─► safe
//! recover   Folder ─► headers and indices ─► records, verified in parallel ─► Pool
//! ```
//!
//! There is one file per snapshot, all in one folder. So a snapshot is removed by removing a file, the file system reuses its
//! space, a damaged file costs one snapshot, and there is no log to compact while the battery runs. FORMAT.md describes every byte.
//!
//! What survives a crash, and why, is argued in `writer.rs`; [`files`] says what that argument rests on. Nothing in here knows
//! about batteries: *when* to flush is decided in [`crate::durable`].

mod candidate;
mod error;
pub mod files;
mod flusher;
mod folder;
mod form;
mod gauge;
mod header;
mod index;
mod load;
mod reader;
mod recover;
mod seal;
mod stage;
mod survey;
mod transcoder;
mod writer;

pub use error::Error;
pub use flusher::{Failure, FlushReport, FlushSettings, Flusher, Safe};
pub use folder::{ANY_HOST, Folder, FolderOptions, this_host};
pub use form::Choice;
pub use gauge::Gauge;
pub use header::HeaderError;
pub use index::{Form, IndexError};
pub use recover::{Cleaning, Dropped, RecoverOptions, RecoverReport, Recovered, Recoverer};
pub use seal::{Key, KeyError};
pub use survey::{Survey, Surveyed};

#[cfg(test)]
mod tests;
