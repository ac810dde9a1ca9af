//! Loads one snapshot from its file into the pool: first its chunks in runs, on many threads; then the rest, and it is published.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use cloner_codec::chunk::{CodecError, ENCODED_BYTES_MAX, stored_checksum};
use cloner_codec::cold::{ColdDecoder, VerifiedColdChunk, transcode_to_hot};
use cloner_codec::hot::{self, Encoder, VerifiedChunk};
use twox_hash::XxHash3_64;

use crate::chunk_id::ChunkId;
use crate::pool::{self, Pool, PutOptions, Reservation, StoredSnapshot};
use crate::progress::Watch;
use crate::snapshot::{MANIFEST_LABEL, Manifest, ManifestV2};
use crate::sync::{into_inner, lock};

use super::candidate::Candidate;
use super::folder::Folder;
use super::index::{ChunkPlaceV2, IndexV2};
use super::reader::{ReadBuffer, SnapshotFile};
use super::{Error, Form};

/// Number of bytes that a thread reads at a time.
const RUN_BYTES: u64 = 4 << 20;

/// What one thread needs for loading.
pub(super) struct Worker {
    buffer: Option<ReadBuffer>,
    cold: Option<ColdDecoder>,
    encoder: Encoder,
    hot: Vec<u8>,
}

impl std::fmt::Debug for Worker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Worker")
    }
}

/// A snapshot on its way into the pool.
pub(super) struct LoadingSnapshot<'a> {
    pub(super) id: u128,
    snapshot_file: &'a SnapshotFile,
    listed: bool,
    reservation: Reservation,
    dependencies: Vec<Arc<StoredSnapshot>>,
    /// The chunks that are in the pool, in the order in which they were loaded.
    chunks: Mutex<Vec<ChunkId>>,
    pub(super) failed: Mutex<Option<Error>>,
}

/// Chunks of one snapshot that lie one after the other in its file.
pub(super) struct ChunkRun<'a> {
    pub(super) loading: usize,
    first_record: u64,
    chunks: &'a [ChunkPlaceV2],
}

impl<'a> LoadingSnapshot<'a> {
    pub(super) fn start(
        pool: &Pool,
        id: u128,
        found: &'a Candidate,
        stored: &BTreeMap<u128, Arc<StoredSnapshot>>,
    ) -> Result<Self, Error> {
        let Candidate { snapshot_file, listed } = found;
        let IndexV2 { name, labels, chunks, blobs, form, .. } = snapshot_file.index();
        let file_bytes =
            chunks.iter().map(|chunk| chunk.bytes).chain(blobs.iter().map(|blob| blob.bytes)).sum::<u64>();
        // The hot size of cold chunks is not known yet, so nothing is promised: they take what is free.
        let promise_bytes = match form {
            Form::Hot => usize::try_from(file_bytes).unwrap_or(usize::MAX),
            Form::Cold => 0,
        };
        let options = PutOptions { promise_bytes, labels: labels.clone(), claim: None, unlisted: !listed };
        let reservation = pool.reserve_with(name, options).map_err(in_pool(snapshot_file))?;
        let dependencies = found.dependencies().map(|other| Arc::clone(&stored[&other])).collect();
        let (chunks, failed) = (Mutex::default(), Mutex::default());
        Ok(Self { id, snapshot_file, listed: *listed, reservation, dependencies, chunks, failed })
    }

    /// Completes a snapshot whose chunks are all there: loads blobs and manifest, and publishes it.
    pub(super) fn finish(self, folder: &Folder, worker: &mut Worker) -> Result<Arc<StoredSnapshot>, Error> {
        let Self { snapshot_file, listed, reservation, dependencies, chunks, failed, .. } = self;
        if let Some(why) = into_inner(failed) {
            return Err(why);
        }
        let mut loaded = into_inner(chunks);
        loaded.sort_unstable();
        let index = snapshot_file.index();
        let file = || snapshot_file.file.clone();
        let mut has_manifest = false;
        for (number, blob) in index.blobs.iter().enumerate() {
            let buffer = worker.buffer(snapshot_file)?;
            let len = usize::try_from(blob.bytes).expect("checked against a maximum");
            let bytes = snapshot_file.read(buffer, blob.offset, len)?;
            let part = || format!("{:?}", blob.label);
            let record = (index.chunks.len() + number) as u64;
            let bytes = snapshot_file.open_record(folder, record, part, bytes)?;
            let (expected, found) = (blob.checksum, XxHash3_64::oneshot(bytes));
            if expected != found {
                return Err(Error::Exchanged { file: file(), part: part(), expected, found });
            }
            if blob.label == MANIFEST_LABEL {
                has_manifest = true;
                let manifest = checked_manifest(snapshot_file, bytes, loaded.clone())?;
                reservation.put_blob(&blob.label, &manifest.to_bytes()).map_err(in_pool(snapshot_file))?;
            } else {
                reservation.put_blob(&blob.label, bytes).map_err(in_pool(snapshot_file))?;
            }
        }
        if !has_manifest {
            return Err(Error::NoManifest { name: file() });
        }
        for dependency in dependencies {
            reservation.depend_on(dependency);
        }
        tracing::debug!(file = snapshot_file.file, listed, "recovered");
        Ok(reservation.publish())
    }
}

/// Reads the manifest and checks that it belongs to the same snapshot as the index, and lists the same chunks.
///
/// Returns it with the ids of the chunks as they are in the pool. Chunks that were stored cold have been encoded again, perhaps by a
/// newer encoder with other results, and so have other checksums than when they were flushed; the cold form was checked against the
/// checksum that the index gives for it.
fn checked_manifest(
    snapshot_file: &SnapshotFile,
    bytes: &[u8],
    loaded: Vec<ChunkId>,
) -> Result<ManifestV2, Error> {
    let index = snapshot_file.index();
    let file = || snapshot_file.file.clone();
    let manifest = Manifest::from_bytes(bytes).map_err(|source| Error::Manifest { name: file(), source })?;
    let manifest = manifest.into_inner();
    for (what, same) in [
        ("their ids", manifest.id == index.id),
        ("what they depend on", manifest.dependencies == index.dependencies),
        ("their chunks", manifest.chunks.iter().eq(index.chunks.iter().map(|chunk| &chunk.id))),
    ] {
        if !same {
            return Err(Error::Contradiction { file: file(), what });
        }
    }
    Ok(ManifestV2 { chunks: loaded, ..manifest })
}

fn in_pool(snapshot_file: &SnapshotFile) -> impl FnOnce(pool::Error) -> Error {
    let file = snapshot_file.file.clone();
    move |source| Error::Pool { file, source }
}

/// Divides a snapshot's chunks into runs, each of which is read at once.
pub(super) fn runs<'a>(at: usize, loading: &LoadingSnapshot<'a>) -> Vec<ChunkRun<'a>> {
    let chunks: &'a [ChunkPlaceV2] = &loading.snapshot_file.index().chunks;
    let mut runs = Vec::new();
    let mut start = 0;
    while start < chunks.len() {
        let from = chunks[start].offset;
        let fits = |chunk: &ChunkPlaceV2| chunk.offset + chunk.bytes - from <= RUN_BYTES;
        let count = chunks[start..].iter().take_while(|chunk| fits(chunk)).count().max(1);
        runs.push(ChunkRun {
            loading: at,
            first_record: start as u64,
            chunks: &chunks[start..start + count],
        });
        start += count;
    }
    runs
}

impl Worker {
    /// Makes a worker that takes most of its memory when it first needs it.
    pub(super) fn new() -> Self {
        Self {
            buffer: None,
            cold: None,
            encoder: Encoder::new(hot::EncoderOptions::default()),
            hot: Vec::with_capacity(ENCODED_BYTES_MAX),
        }
    }

    fn buffer(&mut self, snapshot_file: &SnapshotFile) -> Result<&mut ReadBuffer, Error> {
        if self.buffer.is_none() {
            let len = usize::try_from(RUN_BYTES).expect("a few MiB");
            let buffer = ReadBuffer::new(len)
                .map_err(Error::file(&snapshot_file.file, "allocate memory for reading it"))?;
            self.buffer = Some(buffer);
        }
        Ok(self.buffer.as_mut().expect("made above"))
    }

    /// Reads and verifies a run of chunks, and puts them into the pool.
    pub(super) fn load(
        &mut self,
        folder: &Folder,
        loading: &LoadingSnapshot<'_>,
        run: &ChunkRun<'_>,
        watch: Watch<'_>,
    ) -> Result<(), Error> {
        let snapshot_file = loading.snapshot_file;
        self.buffer(snapshot_file)?;
        let Self { buffer, cold, encoder, hot } = self;
        let buffer = buffer.as_mut().expect("made above");
        let (Some(first), Some(last)) = (run.chunks.first(), run.chunks.last()) else { return Ok(()) };
        let len = usize::try_from(last.offset + last.bytes - first.offset).expect("a few MiB");
        let mut bytes = snapshot_file.read(buffer, first.offset, len)?;
        for (number, place) in run.chunks.iter().enumerate() {
            let (record, rest) = bytes.split_at_mut(usize::try_from(place.bytes).expect("a few MiB"));
            bytes = rest;
            let part = || place.id.to_string();
            let record = snapshot_file.open_record(folder, run.first_record + number as u64, part, record)?;
            let hot = verified(snapshot_file, place, record, cold, (&mut *encoder, &mut *hot))?;
            let id = ChunkId { checksum: stored_checksum(hot), ..place.id };
            loading.reservation.put_chunk(id, hot).map_err(in_pool(snapshot_file))?;
            lock(&loading.chunks).push(id);
            watch.add(place.bytes);
        }
        Ok(())
    }
}

/// The verified hot form of a record, which must have the checksum that the index gives for its place.
fn verified<'b>(
    snapshot_file: &SnapshotFile,
    place: &ChunkPlaceV2,
    record: &'b [u8],
    decoder: &mut Option<ColdDecoder>,
    (encoder, hot): (&mut Encoder, &'b mut Vec<u8>),
) -> Result<&'b [u8], Error> {
    let file = || snapshot_file.file.clone();
    let (region, index) = place.id.place();
    let wrong = |source: CodecError| Error::Chunk { file: file(), region, index, source };
    let bytes = match snapshot_file.index().form {
        Form::Hot => {
            VerifiedChunk::verify(record).map_err(|error| wrong(error.into()))?;
            record
        }
        Form::Cold => {
            let cold = VerifiedColdChunk::verify(record).map_err(|error| wrong(error.into()))?;
            let decoder = match decoder {
                Some(decoder) => decoder,
                None => decoder.insert(ColdDecoder::new().map_err(wrong)?),
            };
            hot.clear();
            transcode_to_hot(&cold, decoder, encoder, hot).map_err(wrong)?;
            hot
        }
    };
    let found = stored_checksum(record);
    if found != place.checksum {
        let (part, expected) = (place.id.to_string(), place.checksum);
        return Err(Error::Exchanged { file: file(), part, expected, found });
    }
    Ok(bytes)
}
