//! Writes one snapshot to one file.
//!
//! # What a crash can leave
//! A file has up to three names in its life, and recovery goes by the name:
//!
//! ```text
//!   allocate  write records and index  write header  sync      rename, sync folder         rename / remove, sync folder
//!  ──────────────── ID.partial ───────────────────────────► ─────────── ID.snapshot ──────────► ID.hidden, or gone
//!                  never read, deleted                          complete, whatever happens
//! ```
//!
//! 1. Until the rename, everything is under a name that recovery deletes unread: torn, lost or reordered writes there do not
//!    matter.
//! 2. The rename is the commit record. It comes after the file's sync has returned, so bytes and length are durable when the new
//!    name can first be seen, whether or not the rename itself survives: there is no moment at which a listed file is incomplete.
//! 3. A snapshot is reported safe only after the folder's sync has returned: then the rename is durable, too.
//! 4. A sync that fails promises nothing, and may succeed the next time although the bytes are lost. So it is never repeated: the
//!    file is removed, and another attempt writes a new one.
//! 5. Nothing in here opens, renames or removes a file of another snapshot. What is already safe stays so.
//!
//! And even if all of this were wrong: header, index, every chunk and every blob have checksums, and a manifest says which chunks
//! belong together. The test `flush::tests::crash` stops the power at every operation and after every few bytes.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use cloner_codec::chunk::stored_checksum;
use cloner_codec::hot::VerifiedChunk;
use twox_hash::XxHash3_64;

use crate::battery::Clock;
use crate::pool::{FLUSHED_FILE_BYTES, StoredChunk, StoredSnapshot, flushed_bytes};
use crate::progress::Watch;
use crate::snapshot::{MANIFEST_LABEL, Manifest, ManifestV2};
use crate::walk::{Threads, Walker};

use super::encrypt::{EncryptionKey, Nonce, TAG_BYTES, random_bytes};
use super::files::{BLOCK_BYTES, Files, WriteFile};
use super::form::{self, FormChoice};
use super::gauge::Gauge;
use super::header::{BOUND_BYTES, Header, IDENTITY_BYTES};
use super::index::{BlobPlaceV1, ChunkPlaceV2, IndexV2};
use super::transcoder::Transcoder;
use super::write_buffers::{WriteBuffers, WriteStream, WritersFailed};
use super::{Error, Form};
use crate::rate::{Rate, as_f64};
use crate::sync::{into_inner, lock};

/// Number of chunks transcoded or encrypted at a time, while the batch before is being written.
const BATCH: usize = 16;
/// The number of the index among the encrypted records of a file.
pub(super) const INDEX_RECORD: u64 = u64::MAX;

/// Writes snapshots, one at a time. Holds all the memory that it needs, so that none must be found after a power failure, and keeps
/// its threads.
#[derive(Debug)]
pub(super) struct Writer {
    files: Arc<dyn Files>,
    folder: u128,
    key: Option<EncryptionKey>,
    clock: Arc<dyn Clock>,
    buffers: Mutex<WriteBuffers>,
    walker: Walker<Transcoder>,
}

/// A complete file that must still be committed under its name.
#[derive(Debug)]
#[must_use = "it is deleted when the folder is recovered"]
pub(super) struct CompleteFile {
    pub(super) id: u128,
    pub(super) index: IndexV2,
    pub(super) file_bytes: u64,
    pub(super) choice: FormChoice,
    /// Time that allocating and syncing the file took. Committing comes on top.
    pub(super) overhead: Duration,
}

/// Why nothing more is appended: either writing has failed, or the snapshot is at fault.
enum AppendError {
    WritersFailed,
    Failed(Error),
}

impl From<WritersFailed> for AppendError {
    fn from(_: WritersFailed) -> Self {
        Self::WritersFailed
    }
}

impl From<Error> for AppendError {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// Name of the file that the device is measured with. If it is left over, recovery deletes it.
pub(super) const PROBE_FILE: &str = "probe.partial";

pub(super) fn partial_name(id: u128) -> String {
    format!("{id:032x}.partial")
}

/// The number of a snapshot, and its manifest.
pub(super) fn identity(stored: &StoredSnapshot) -> Result<(u128, ManifestV2), Error> {
    let name = || stored.name().to_owned();
    let manifest = stored.blob(MANIFEST_LABEL).ok_or_else(|| Error::NoManifest { name: name() })?;
    let manifest =
        Manifest::from_bytes(manifest).map_err(|source| Error::Manifest { name: name(), source })?;
    let manifest = manifest.into_inner();
    Ok((manifest.id.number(), manifest))
}

impl Writer {
    pub(super) fn new(
        threads: &Threads,
        files: Arc<dyn Files>,
        (folder, key): (u128, Option<EncryptionKey>),
        clock: Arc<dyn Clock>,
        buffer_bytes: usize,
    ) -> Result<Self, Error> {
        let buffers = WriteBuffers::new(buffer_bytes)
            .map_err(Error::file(files.place(), "allocate memory for writing to it"))?;
        let walker = Walker::new(threads, Transcoder::new);
        Ok(Self { files, folder, key, clock, buffers: Mutex::new(buffers), walker })
    }

    /// Writes `stored` completely, but does not commit it. Without a `form`, the one that is safe sooner is chosen.
    ///
    /// # Errors
    /// * [`Error::NoManifest`] or [`Error::Manifest`] if `stored` is not a snapshot;
    /// * [`Error::InPool`] or [`Error::Exchanged`] if a chunk is damaged in memory;
    /// * [`Error::Transcode`] if there is no memory for the coder;
    /// * [`Error::File`] if a file operation fails, [`Error::Cancelled`].
    ///
    /// The file is then removed. If that fails as well, recovery deletes it.
    pub(super) fn write(
        &self,
        stored: &StoredSnapshot,
        form: Option<Form>,
        gauge: &Gauge,
        watch: Watch<'_>,
    ) -> Result<CompleteFile, Error> {
        let (id, manifest) = identity(stored)?;
        let choice = match form {
            Some(form) => FormChoice { form, ..form::choose(gauge.rate(), stored.len_bytes() as u64, None) },
            None => form::choose_for(stored, gauge.rate(), &self.walker, &*self.clock)?,
        };
        let name = partial_name(id);
        let started = self.clock.now();
        let file = self.create(&name, allocation(stored, &manifest))?;
        let created = self.clock.now();
        let written = self.fill(&*file, stored, &manifest, (id, choice.form), gauge, watch);
        let result = written.and_then(|(index, file_bytes)| {
            let syncing = self.clock.now();
            file.sync().map_err(Error::file(&name, "make it durable"))?;
            let overhead = (created - started) + self.clock.now().saturating_sub(syncing);
            Ok(CompleteFile { id, index, file_bytes, choice, overhead })
        });
        if result.is_err() {
            // The file does no harm but takes space. If it cannot be removed now, recovery removes it.
            let _ = self.files.remove(&name);
        }
        result
    }

    /// Measures the device by writing a file of `bytes` bytes, which is removed afterwards.
    ///
    /// # Errors
    /// [`Error::File`] if a file operation fails.
    pub(super) fn measure(&self, bytes: u64) -> Result<Rate, Error> {
        const PART: [u8; BLOCK_BYTES] = [0xa5; BLOCK_BYTES];
        let failed = || Error::file(PROBE_FILE, "measure the device with it");
        let buffers = lock(&self.buffers);
        let started = self.clock.now();
        let file = self.create(PROBE_FILE, bytes)?;
        let created = self.clock.now();
        // A gauge of its own, not the flusher's: this measurement is evaluated as a whole.
        let own = Gauge::new(Rate { bytes_per_second: 1.0, commit: Duration::ZERO }, u64::MAX);
        let written = buffers.write(&*file, (&*self.clock, &own), |stream| {
            (0..bytes / BLOCK_BYTES as u64).try_for_each(|_| stream.append(&PART).map(drop))
        });
        let measured = written.and_then(|_| file.sync()).map(|()| self.clock.now());
        let removed = self.files.remove(PROBE_FILE).and_then(|()| self.files.sync_folder());
        let measured = measured.map_err(failed())?;
        removed.map_err(failed())?;
        let writing = measured.saturating_sub(created).as_secs_f64().max(1e-9);
        let commit = (created - started) + self.clock.now().saturating_sub(measured);
        // Committing a file syncs twice: the file and the folder.
        Ok(Rate { bytes_per_second: as_f64(bytes) / writing, commit: commit * 2 })
    }

    fn create(&self, name: &str, bytes: u64) -> Result<Box<dyn WriteFile>, Error> {
        let created = match self.files.create(name, bytes) {
            // The file is left over from an earlier attempt of this process, which could not remove it.
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                self.files.remove(name).and_then(|()| self.files.create(name, bytes))
            }
            other => other,
        };
        created.map_err(Error::file(name, "create it and allocate its space"))
    }

    /// Does everything between allocating and syncing: writes records, index and header, and sets the length.
    fn fill(
        &self,
        file: &dyn WriteFile,
        stored: &StoredSnapshot,
        manifest: &ManifestV2,
        (id, form): (u128, Form),
        gauge: &Gauge,
        watch: Watch<'_>,
    ) -> Result<(IndexV2, u64), Error> {
        let name = partial_name(id);
        let cannot_write = || Error::file(&name, "write to it");
        let mut buffers = lock(&self.buffers);
        let mut header = Header {
            nonce: self.key.as_ref().map(|_| random_bytes()),
            folder: self.folder,
            snapshot: id,
            index_at: 0,
            index_bytes: 0,
            file_bytes: 0,
        };
        let produced = buffers.write(file, (&*self.clock, gauge), |stream| {
            let chunks = self.append_chunks(stream, stored, form, &header, watch)?;
            let blobs = self.append_blobs(stream, stored, &header)?;
            let index = IndexV2 {
                id: manifest.id,
                name: stored.name().to_owned(),
                labels: stored.labels().clone(),
                dependencies: manifest.dependencies.clone(),
                form,
                chunks,
                blobs,
            };
            self.append_index(stream, &index, &mut header)?;
            Ok::<_, AppendError>(index)
        });
        let index = match produced.map_err(cannot_write())? {
            Ok(index) => index,
            Err(AppendError::Failed(error)) => return Err(error),
            Err(AppendError::WritersFailed) => {
                return Err(cannot_write()(std::io::ErrorKind::BrokenPipe.into()));
            }
        };
        file.set_len(header.file_bytes).map_err(Error::file(&name, "set its length"))?;
        buffers.write_block(file, &header.to_block()).map_err(cannot_write())?;
        Ok((index, header.file_bytes))
    }

    fn append_chunks(
        &self,
        stream: &mut WriteStream<'_>,
        stored: &StoredSnapshot,
        form: Form,
        header: &Header,
        watch: Watch<'_>,
    ) -> Result<Vec<ChunkPlaceV2>, AppendError> {
        let mut places = Vec::with_capacity(stored.chunks().len());
        for batch in stored.chunks().chunks(BATCH) {
            if watch.is_cancelled() {
                return Err(Error::Cancelled.into());
            }
            let converted = self.convert(stored, batch, places.len() as u64, form, header)?;
            for (number, chunk) in batch.iter().enumerate() {
                let (bytes, checksum) = match converted.get(number) {
                    Some((bytes, checksum)) => (&bytes[..], *checksum),
                    None => {
                        check(stored, chunk)?;
                        (chunk.bytes(), chunk.id().checksum)
                    }
                };
                let offset = stream.append(bytes)?;
                places.push(ChunkPlaceV2 { id: chunk.id(), offset, bytes: bytes.len() as u64, checksum });
                watch.add(chunk.bytes().len() as u64);
            }
        }
        Ok(places)
    }

    /// Converts the chunks of a batch, in parallel, to the bytes that are stored. Empty if they are stored as they are.
    fn convert(
        &self,
        stored: &StoredSnapshot,
        batch: &[StoredChunk],
        first_record: u64,
        form: Form,
        header: &Header,
    ) -> Result<Vec<(Vec<u8>, u64)>, Error> {
        if form == Form::Hot && self.key.is_none() {
            return Ok(Vec::new());
        }
        let slots: Vec<Mutex<(Vec<u8>, u64)>> = batch.iter().map(|_| Mutex::default()).collect();
        let numbered: Vec<(usize, &StoredChunk)> = batch.iter().enumerate().collect();
        self.walker.walk(&numbered, |transcoder, &(number, chunk)| {
            check(stored, chunk)?;
            let mut bytes = match form {
                Form::Hot => chunk.bytes().to_vec(),
                Form::Cold => transcoder.cold_form(stored, chunk)?.to_vec(),
            };
            let checksum = stored_checksum(&bytes);
            self.encrypt(header, first_record + number as u64, &mut bytes);
            *lock(&slots[number]) = (bytes, checksum);
            Ok::<(), Error>(())
        })?;
        Ok(slots.into_iter().map(into_inner).collect())
    }

    fn append_blobs(
        &self,
        stream: &mut WriteStream<'_>,
        stored: &StoredSnapshot,
        header: &Header,
    ) -> Result<Vec<BlobPlaceV1>, AppendError> {
        let mut places = Vec::new();
        for (number, (label, bytes)) in stored.blobs().enumerate() {
            let checksum = XxHash3_64::oneshot(bytes);
            let mut bytes = bytes.to_vec();
            self.encrypt(header, (stored.chunks().len() + number) as u64, &mut bytes);
            let offset = stream.append(&bytes)?;
            places.push(BlobPlaceV1 { label: label.to_owned(), offset, bytes: bytes.len() as u64, checksum });
        }
        Ok(places)
    }

    /// Appends the index and completes the header, which an encrypted index is bound to.
    fn append_index(
        &self,
        stream: &mut WriteStream<'_>,
        index: &IndexV2,
        header: &mut Header,
    ) -> Result<(), AppendError> {
        let mut bytes = index.to_bytes();
        let tag = if self.key.is_some() { TAG_BYTES } else { 0 };
        header.index_at = stream.append(&[])?;
        header.index_bytes = (bytes.len() + tag) as u64;
        header.file_bytes = (header.index_at + header.index_bytes).next_multiple_of(BLOCK_BYTES as u64);
        if let (Some(key), Some(nonce)) = (&self.key, header.nonce) {
            key.encrypt(Nonce::new(nonce, INDEX_RECORD), &header.to_block()[..BOUND_BYTES], &mut bytes);
        }
        stream.append(&bytes)?;
        Ok(())
    }

    fn encrypt(&self, header: &Header, record: u64, bytes: &mut Vec<u8>) {
        if let (Some(key), Some(nonce)) = (&self.key, header.nonce) {
            key.encrypt(Nonce::new(nonce, record), &header.to_block()[..IDENTITY_BYTES], bytes);
        }
    }
}

/// Checks that the header of a chunk of the pool is whole, and that its checksum is that of the chunk's id.
fn check(stored: &StoredSnapshot, chunk: &StoredChunk) -> Result<(), Error> {
    let (name, id) = (|| stored.name().to_owned(), chunk.id());
    let opened = VerifiedChunk::reopen(chunk.bytes()).map_err(|wrong| Error::InPool {
        name: name(),
        region: id.region,
        index: id.index,
        source: wrong.into(),
    })?;
    let (expected, found) = (id.checksum, opened.checksum());
    if expected == found {
        Ok(())
    } else {
        Err(Error::Exchanged { file: name(), part: id.to_string(), expected, found })
    }
}

/// Bytes of disk space to allocate: never less than a hot file takes. A cold file is smaller, or takes what it lacks while it is
/// written.
fn allocation(stored: &StoredSnapshot, manifest: &ManifestV2) -> u64 {
    let chunks = stored.chunks().iter().map(StoredChunk::bytes);
    let records: u64 =
        chunks.chain(stored.blobs().map(|(_, bytes)| bytes)).map(|bytes| flushed_bytes(bytes.len())).sum();
    let tags: usize = stored.labels().tags.iter().map(|(key, value)| 2 * (key.len() + value.len()) + 8).sum();
    let dependencies = manifest.dependencies.len() as u64 * flushed_bytes(0);
    (FLUSHED_FILE_BYTES + records + tags as u64 + dependencies).next_multiple_of(BLOCK_BYTES as u64)
}
