//! What can be inspected, and how to get chunks with their figures from it.
//!
//! The report knows only chunks. To add a source, add a variant of [`InspectSource`] and an arm to each of its functions.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use cloner_codec::chunk::{CodecError, Form, FormatError};
use cloner_codec::cold::VerifiedColdChunk;
use cloner_codec::hot::{ChunkStats, VerifiedChunk};
use serde::Serialize;

use cloner::flush::{self, Recoverer};
use cloner::image::{self, EncodeOptions, HotEncoder, Image};
use cloner::layout;
use cloner::progress::{Progress, Watch};
use cloner::snapshot::{self, Snapshot};
use cloner::walk::{StartError, Threads};

use crate::folder::{self, FolderArgs};
use crate::interrupt;
use crate::progress::{self, Spinner};
use crate::threads;

/// Why something cannot be inspected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("cannot read {}", path.display())]
    Read { path: PathBuf, source: io::Error },
    #[error("{} starts like a chunk, but has {bytes} bytes; a chunk has at most {max_bytes}", path.display())]
    Large { path: PathBuf, bytes: u64, max_bytes: usize },
    #[error("{} is not a complete {form} chunk", path.display())]
    File { path: PathBuf, form: Form, source: CodecError },
    #[error("{} holds {}: choose one with --snapshot", path.display(), list(names))]
    Which { path: PathBuf, names: Vec<String> },
    #[error("--snapshot chooses one from a flush folder, but {} is not one", path.display())]
    NoFolder { path: PathBuf },
    #[error("snapshot {name} is damaged")]
    Snapshot { name: String, source: Box<snapshot::Error> },
    #[error("chunk {index} of snapshot {name} is damaged")]
    Chunk { name: String, index: u32, source: CodecError },
    #[error(transparent)]
    Image(#[from] image::Error),
    #[error("cannot prepare the encoder")]
    Threads(#[from] StartError),
}

fn list(names: &[String]) -> String {
    if names.is_empty() { String::from("no snapshot") } else { names.join(", ") }
}

/// A file or snapshot whose content has been read.
#[derive(Debug)]
pub(super) enum InspectSource {
    /// The memory of a guest, unencoded.
    Image(Image),
    /// An encoded chunk in hot form.
    Hot(Vec<u8>),
    /// A chunk in cold form.
    Cold(Vec<u8>),
    /// A snapshot from a flush folder, in hot form whatever its form in the folder.
    Snapshot(Snapshot),
}

/// The kind that a source turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SourceKind {
    Image,
    HotChunk,
    ColdChunk,
    Snapshot,
}

impl SourceKind {
    /// The name of this kind, for people.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::HotChunk | Self::ColdChunk => "chunk",
            Self::Snapshot => "snapshot",
        }
    }

    /// The form that the figures describe.
    pub(super) fn form(self) -> &'static str {
        match self {
            Self::Image | Self::HotChunk | Self::Snapshot => "hot form",
            Self::ColdChunk => "cold form",
        }
    }
}

impl InspectSource {
    /// Reads a file. Its first bytes tell what it is; if they are not a chunk's magic, it is an image.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let _spinner = Spinner::new(format!("reading {}", path.display()));
        match magic(path).and_then(|magic| Form::of(&magic)) {
            Some(Form::Hot) => Ok(Self::Hot(read_chunk(path, Form::Hot)?)),
            Some(Form::Cold) => Ok(Self::Cold(read_chunk(path, Form::Cold)?)),
            // A file that cannot be read is reported as an image that cannot be read.
            _ => Ok(Self::Image(Image::read(path)?)),
        }
    }

    /// Reads a snapshot from a flush folder: the one with this name, or the only one.
    pub(super) fn read_snapshot(
        path: &Path,
        name: Option<&str>,
        args: &FolderArgs,
    ) -> Result<Self, crate::Error> {
        if !path.is_dir() {
            return Err(Error::NoFolder { path: path.to_owned() }.into());
        }
        let folder = args.open(path)?;
        let recoverer = Recoverer::new(&Threads::new(threads() * 2)?);
        let survey = recoverer.survey(&folder)?;
        let listed = survey.snapshots.iter().filter(|one| one.listed).map(|one| one.name.clone());
        let names: Vec<String> = listed.collect();
        let name = match (name, names.as_slice()) {
            (Some(name), _) if folder.lists(name) => name,
            (None, [only]) => only,
            (Some(name), _) => {
                let (folder, name) = (folder.place(), name.to_owned());
                return Err(flush::Error::NotFound { folder, name }.into());
            }
            (None, _) => return Err(Error::Which { path: path.to_owned(), names }.into()),
        };
        let pool = folder::scratch_pool(&survey)?;
        let found = folder::load(&recoverer, &folder, &pool, |wanted| wanted == name)?;
        if let Some(dropped) = found.dropped.into_iter().find(|dropped| dropped.name.is_some()) {
            let name = dropped.name.unwrap_or(dropped.file);
            return Err(crate::Error::NotSafe { name, source: dropped.why });
        }
        let broken = |error| Error::Snapshot { name: name.to_owned(), source: Box::new(error) };
        Ok(Self::Snapshot(Snapshot::open(pool.get(name)?).map_err(broken)?))
    }

    pub(super) fn what(&self) -> SourceKind {
        match self {
            Self::Image(_) => SourceKind::Image,
            Self::Hot(_) => SourceKind::HotChunk,
            Self::Cold(_) => SourceKind::ColdChunk,
            Self::Snapshot(_) => SourceKind::Snapshot,
        }
    }

    /// The figures of every chunk. An image is encoded for this, a chunk is checked. `path` is for messages.
    pub(super) fn chunks(&self, path: &Path) -> Result<Vec<ChunkStats>, Error> {
        match self {
            Self::Image(image) => encoded(image),
            Self::Hot(bytes) => {
                let wrong = |source| Error::File { path: path.to_owned(), form: Form::Hot, source };
                let chunk = VerifiedChunk::verify(bytes).map_err(|error| wrong(error.into()))?;
                Ok(vec![ChunkStats::of(&chunk).map_err(wrong)?])
            }
            Self::Cold(bytes) => {
                let wrong = |error: FormatError| Error::File {
                    path: path.to_owned(),
                    form: Form::Cold,
                    source: error.into(),
                };
                Ok(vec![VerifiedColdChunk::verify(bytes).map_err(wrong)?.stats()])
            }
            Self::Snapshot(snapshot) => of_snapshot(snapshot),
        }
    }
}

/// The first bytes of a file; `None` if `path` is not a file, or it is shorter. A pipe is not read: its bytes come only once.
fn magic(path: &Path) -> Option<[u8; 4]> {
    let metadata = fs::metadata(path).ok()?;
    let mut bytes = [0; 4];
    metadata.is_file().then_some(())?;
    File::open(path).ok()?.read_exact(&mut bytes).ok()?;
    Some(bytes)
}

fn read_chunk(path: &Path, form: Form) -> Result<Vec<u8>, Error> {
    let failed = |source| Error::Read { path: path.to_owned(), source };
    let (bytes, max_bytes) = (fs::metadata(path).map_err(failed)?.len(), form.encoded_bytes_max());
    if bytes > max_bytes as u64 {
        return Err(Error::Large { path: path.to_owned(), bytes, max_bytes });
    }
    fs::read(path).map_err(failed)
}

fn encoded(image: &Image) -> Result<Vec<ChunkStats>, Error> {
    let encoder = HotEncoder::new(&Threads::new(threads())?);
    let progress = Progress::default();
    let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
    let options = EncodeOptions { watch, ..EncodeOptions::default() };
    progress.start(image.bytes().len() as u64);
    let hot = progress::bar("encoding", &progress, || encoder.encode(image, &options))?;
    Ok(hot.chunk_stats().to_vec())
}

/// The figures of all chunks of a guest's memory; chunks that were never touched are stored in no bytes.
fn of_snapshot(snapshot: &Snapshot) -> Result<Vec<ChunkStats>, Error> {
    let name = || snapshot.name().to_owned();
    let stats = |chunk: &layout::Chunk| {
        let verified = snapshot
            .verify(chunk)
            .map_err(|error| Error::Snapshot { name: name(), source: Box::new(error) })?;
        match verified {
            Some(verified) => {
                let index = chunk.index.0;
                ChunkStats::of(&verified).map_err(|source| Error::Chunk { name: name(), index, source })
            }
            None => Ok(ChunkStats::untouched(chunk.pages)),
        }
    };
    layout::chunks(snapshot.state().layout()).iter().map(stats).collect()
}
