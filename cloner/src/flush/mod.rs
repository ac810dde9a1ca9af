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
mod encrypt;
mod error;
pub mod files;
mod flusher;
mod folder;
mod form;
mod gauge;
mod header;
mod host;
mod index;
mod load;
mod reader;
mod recover;
mod survey;
mod transcoder;
mod write_buffers;
mod writer;

pub use cloner_codec::chunk::Form;
pub use encrypt::{EncryptionKey, KeyError};
pub use error::Error;
pub use flusher::{FlushFailure, FlushReport, FlushSettings, FlushedSnapshot, Flusher};
pub use folder::{Folder, FolderOptions};
pub use form::FormChoice;
pub use gauge::Gauge;
pub use header::HeaderError;
pub use host::{ANY_HOST, this_host};
pub use index::IndexError;
pub use recover::{Cleaning, DroppedFile, RecoverOptions, RecoverReport, RecoveredSnapshot, Recoverer};
pub use survey::{Survey, SurveyLine};

#[cfg(test)]
mod tests;
