//! What can go wrong between the pool and a folder.

use std::io;

use cloner_codec::chunk::CodecError;
use vmm::schema::envelope;

use crate::pool;
use crate::snapshot::SnapshotId;

use super::header::HeaderError;
use super::index::IndexError;

/// Why a snapshot was not written, not recovered, or a folder not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file system refused.
    #[error("{file}: cannot {step}")]
    File {
        /// The file, or the folder.
        file: String,
        /// What was to be done.
        step: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// Another process has the folder.
    #[error("{folder} is in use by another process")]
    Busy {
        /// The folder.
        folder: String,
    },
    /// There are files, but not the one that says whose folder it is.
    #[error("{folder} holds {files} files and no file named {META_FILE:?}: it is no flush folder")]
    NoFolder {
        /// The folder.
        folder: String,
        /// Files found.
        files: usize,
    },
    /// That file is damaged or of another version.
    #[error("{folder}: file {META_FILE:?}")]
    Folder {
        /// The folder.
        folder: String,
        /// What is wrong.
        source: envelope::Error,
    },
    /// The folder was made on another host.
    #[error("{folder} belongs to host {found}, this is {expected}; --adopt takes it over")]
    OtherHost {
        /// The folder.
        folder: String,
        /// This host.
        expected: String,
        /// The folder's.
        found: String,
    },
    /// The folder is sealed and there is no key, or the other way round.
    #[error("{folder} is {}", if *.sealed { "sealed: a key is needed" } else { "not sealed: it takes no key" })]
    Sealing {
        /// The folder.
        folder: String,
        /// Whether it is.
        sealed: bool,
    },
    /// It is another key's, or it was tampered with.
    #[error("{folder} was sealed with another key, or its file {META_FILE:?} was changed")]
    Key {
        /// The folder.
        folder: String,
    },
    /// A file is none of ours.
    #[error("{file} is no file of a flush folder")]
    Foreign {
        /// The file.
        file: String,
    },
    /// A flush did not get to its end.
    #[error("{file}: the flush was not completed")]
    Unfinished {
        /// The file.
        file: String,
    },
    /// A file's header.
    #[error("{file}")]
    Header {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: HeaderError,
    },
    /// A file of another folder, or under another file's name.
    #[error("{file} has the {what} {found:032x}, {expected:032x} was expected")]
    Misplaced {
        /// The file.
        file: String,
        /// Which number.
        what: &'static str,
        /// The one it should have.
        expected: u128,
        /// The one it has.
        found: u128,
    },
    /// A file's index.
    #[error("{file}: index")]
    Index {
        /// The file.
        file: String,
        /// What is wrong with it.
        source: IndexError,
    },
    /// A sealed part does not open: it was changed, moved or sealed by somebody else.
    #[error("{file}: {part} does not open with this key: it was changed")]
    Forged {
        /// The file.
        file: String,
        /// Which part.
        part: String,
    },
    /// A chunk is damaged, or there is no memory to decode it.
    #[error("{file}: chunk {key}")]
    Chunk {
        /// The file.
        file: String,
        /// Its number.
        key: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// A part is not the one that the index or the manifest means.
    #[error("{file}: {part} has checksum {found:#018x}, {expected:#018x} was expected")]
    Exchanged {
        /// The file.
        file: String,
        /// Which part.
        part: String,
        /// The one expected.
        expected: u64,
        /// The part's.
        found: u64,
    },
    /// Manifest and index are of different snapshots.
    #[error("{file}: index and manifest differ in {what}")]
    Contradiction {
        /// The file.
        file: String,
        /// In what.
        what: &'static str,
    },
    /// What is to be flushed is no snapshot.
    #[error("{name:?} has no manifest")]
    NoManifest {
        /// Its name in the pool, or its file.
        name: String,
    },
    /// A manifest is damaged.
    #[error("{name}: manifest")]
    Manifest {
        /// The snapshot's name, or its file.
        name: String,
        /// What is wrong with it.
        source: envelope::Error,
    },
    /// A snapshot it depends on is not there, or was dropped itself.
    #[error("{file} depends on snapshot {dependency}, which is not there or was dropped")]
    Dependency {
        /// The file.
        file: String,
        /// What is missing.
        dependency: SnapshotId,
    },
    /// The pool does not take it.
    #[error("{file}")]
    Pool {
        /// The file.
        file: String,
        /// Why.
        source: pool::Error,
    },
    /// No memory for the coder.
    #[error("cannot transcode {name:?}")]
    Transcode {
        /// The snapshot.
        name: String,
        /// Why.
        source: CodecError,
    },
    /// A chunk in the pool does not decode: the host's memory is damaged.
    #[error("chunk {key} of {name:?} in the pool")]
    InPool {
        /// The snapshot.
        name: String,
        /// The chunk.
        key: u64,
        /// What is wrong with it.
        source: CodecError,
    },
    /// No snapshot of the folder has the name.
    #[error("{folder} has no snapshot named {name:?}")]
    NotFound {
        /// The folder.
        folder: String,
        /// The name.
        name: String,
    },
    /// A snapshot of the folder has the name, though not one that is in the pool.
    #[error("{folder} holds a snapshot named {name:?} that is not in the pool")]
    NameOnDisk {
        /// The folder.
        folder: String,
        /// The name.
        name: String,
    },
    /// Somebody asked to stop.
    #[error("cancelled")]
    Cancelled,
}

/// The file that says whose folder it is.
pub(super) const META_FILE: &str = "folder";

impl Error {
    pub(super) fn file(file: impl Into<String>, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::File { file, step, source }
    }
}
