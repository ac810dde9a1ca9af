//! What can go wrong between a pool and a flush folder.

use std::io;

use cloner_codec::chunk::CodecError;
use vmm::schema::envelope;

use crate::pool;
use crate::snapshot::{MalformedId, ManifestError, SnapshotId};

use super::header::HeaderError;
use super::index::IndexError;

/// Why a snapshot was not written or not recovered, or why a folder was not opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file operation failed.
    #[error("{file}: cannot {step}")]
    File {
        /// Name of the file, or path of the folder.
        file: String,
        /// What was to be done, as a verb with "it" for the file.
        step: &'static str,
        /// The operating system's reason.
        source: io::Error,
    },
    /// Another process has the folder open.
    #[error("{folder} is in use by another process")]
    Busy {
        /// Path of the folder.
        folder: String,
    },
    /// The folder has files, but not the one that says which host it belongs to.
    #[error("{folder} holds {files} files, but no file named {META_FILE:?}: it is not a flush folder")]
    NoFolder {
        /// Path of the folder.
        folder: String,
        /// Number of files in it.
        files: usize,
    },
    /// The file that describes the folder is damaged or has another version.
    #[error("{folder}: file {META_FILE:?}")]
    Folder {
        /// Path of the folder.
        folder: String,
        /// What is wrong with that file.
        source: envelope::Error,
    },
    /// The id of the folder is malformed.
    #[error("{folder}: file {META_FILE:?}: id")]
    FolderId {
        /// Path of the folder.
        folder: String,
        /// What is wrong with the id.
        source: MalformedId,
    },
    /// The host has no valid id, so it cannot be told which folders are its own.
    #[error("{MACHINE_ID_FILE} does not say which host this is (`systemd-machine-id-setup` gives it an id)")]
    Host {
        /// What is wrong with the id.
        source: MalformedId,
    },
    /// The folder was made on another host. [`FolderOptions::adopt`](super::FolderOptions::adopt) takes it over.
    #[error(
        "{folder} belongs to host {found}, this is {expected}: the folder must be adopted before it can be used here"
    )]
    OtherHost {
        /// Path of the folder.
        folder: String,
        /// Name of this host.
        expected: String,
        /// Name of the host that the folder belongs to.
        found: String,
    },
    /// The folder is encrypted and no key was given, or it is not and one was.
    #[error("{folder} is {}", if *.encrypted { "encrypted: a key is needed" } else { "not encrypted: it takes no key" })]
    Encryption {
        /// Path of the folder, or name of the file.
        folder: String,
        /// Whether it is encrypted.
        encrypted: bool,
    },
    /// The folder was encrypted with another key, or it was tampered with.
    #[error("{folder} was encrypted with another key, or its file {META_FILE:?} was changed")]
    Key {
        /// Path of the folder.
        folder: String,
    },
    /// The folder holds a file that flushing did not make.
    #[error("{file} is not a file of a flush folder")]
    Foreign {
        /// Name of the file.
        file: String,
    },
    /// The file is what remains of a flush that did not finish.
    #[error("{file}: the flush was not completed")]
    Unfinished {
        /// Name of the file.
        file: String,
    },
    /// The header of a file is damaged.
    #[error("{file}")]
    Header {
        /// Name of the file.
        file: String,
        /// What is wrong with the header.
        source: HeaderError,
    },
    /// The file belongs to another folder, or has the name of another file.
    #[error("{file} has the {what} number {found:032x}, but {expected:032x} was expected")]
    Misplaced {
        /// Name of the file.
        file: String,
        /// Which number of the header is meant: "folder" or "snapshot".
        what: &'static str,
        /// The number that it should have.
        expected: u128,
        /// The number that it has.
        found: u128,
    },
    /// The index of a file is damaged.
    #[error("{file}: index")]
    Index {
        /// Name of the file.
        file: String,
        /// What is wrong with the index.
        source: IndexError,
    },
    /// An encrypted part does not authenticate: it was changed, moved, or encrypted with another key.
    #[error("{file}: {part} does not open with this key: it was changed")]
    Forged {
        /// Name of the file.
        file: String,
        /// Which part of the file.
        part: String,
    },
    /// A chunk is damaged, or there is no memory to decode it.
    #[error("{file}: region {region}, chunk {index}")]
    Chunk {
        /// Name of the file.
        file: String,
        /// Number of the chunk's region.
        region: u16,
        /// Index of the chunk in the region.
        index: u32,
        /// What is wrong with the chunk.
        source: CodecError,
    },
    /// A part is not the one that the index means, or a chunk in the pool is not the one that its id means.
    #[error("{file}: {part} has checksum {found:#018x}, but {expected:#018x} was expected")]
    Exchanged {
        /// Name of the file, or of the snapshot in the pool.
        file: String,
        /// Which part of it.
        part: String,
        /// The checksum that the index or the id gives.
        expected: u64,
        /// The checksum of the part that was found.
        found: u64,
    },
    /// The manifest and the index belong to different snapshots.
    #[error("{file}: index and manifest differ in {what}")]
    Contradiction {
        /// Name of the file.
        file: String,
        /// What differs.
        what: &'static str,
    },
    /// The pool's entry, or the file, has no manifest, and so is not a snapshot.
    #[error("{name:?} has no manifest")]
    NoManifest {
        /// Name of the entry in the pool, or of the file.
        name: String,
    },
    /// A manifest is damaged, or has a field that is not allowed.
    #[error("{name}: manifest")]
    Manifest {
        /// Name of the snapshot, or of the file.
        name: String,
        /// What is wrong with the manifest.
        source: ManifestError,
    },
    /// A snapshot that this one depends on is not there, or was dropped itself.
    #[error("{file} depends on snapshot {dependency}, which is not there or was dropped")]
    Dependency {
        /// Name of the file.
        file: String,
        /// Number of the snapshot that is missing.
        dependency: SnapshotId,
    },
    /// The pool does not take the snapshot.
    #[error("{file}")]
    Pool {
        /// Name of the file.
        file: String,
        /// The pool's reason.
        source: pool::Error,
    },
    /// There is no memory for the coder.
    #[error("cannot transcode {name:?}")]
    Transcode {
        /// Name of the snapshot.
        name: String,
        /// The codec's reason.
        source: CodecError,
    },
    /// A chunk in the pool does not decode: the host's memory is damaged.
    #[error("snapshot {name:?} in the pool: region {region}, chunk {index}")]
    InPool {
        /// Name of the snapshot.
        name: String,
        /// Number of the chunk's region.
        region: u16,
        /// Index of the chunk in the region.
        index: u32,
        /// What is wrong with the chunk.
        source: CodecError,
    },
    /// No snapshot of the folder has the name.
    #[error("{folder} has no snapshot named {name:?}")]
    NotFound {
        /// Path of the folder.
        folder: String,
        /// The name that was looked for.
        name: String,
    },
    /// A snapshot in the folder has the name, but it is not in the pool.
    #[error("{folder} holds a snapshot named {name:?} that is not in the pool")]
    NameOnDisk {
        /// Path of the folder.
        folder: String,
        /// The name that was asked for.
        name: String,
    },
    /// The operation was cancelled.
    #[error("cancelled")]
    Cancelled,
}

/// The file that says which host this is, kept by systemd and dbus.
pub(super) const MACHINE_ID_FILE: &str = "/etc/machine-id";
/// Name of the file that says which host the folder belongs to.
pub(super) const META_FILE: &str = "folder";

impl Error {
    pub(super) fn file(file: impl Into<String>, step: &'static str) -> impl FnOnce(io::Error) -> Self {
        let file = file.into();
        move |source| Self::File { file, step, source }
    }
}
