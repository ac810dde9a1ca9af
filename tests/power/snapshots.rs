//! Snapshots whose content follows from a number, so that another process can tell whether they are intact.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use cloner::chunk_id::ChunkId;
use cloner::flush::files::RealFiles;
use cloner::flush::{
    Cleaning, FlushSettings, Flusher, Folder, FolderOptions, Gauge, RecoverOptions, RecoverReport, Recoverer,
};
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate, Reservation, StoredSnapshot};
use cloner::rate::Rate;
use cloner::snapshot::{MANIFEST_LABEL, MEMORY_REGION, ManifestV2, RegionV2, SnapshotId};
use cloner::walk::Threads;
use cloner_codec::hot::{ChunkInput, Encoder, EncoderOptions, NoDedup, PageSet, VerifiedChunk};

/// The only chunk of the snapshot with this number.
fn chunk(number: u64) -> Vec<u8> {
    let pages = 1 + usize::try_from(number % 61).unwrap();
    let mut state = number;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 16
    };
    let memory: Vec<u8> = (0..pages * 512).flat_map(|_| next().to_le_bytes()).collect();
    let mut encoded = Vec::new();
    let input = ChunkInput::new(&memory, &PageSet::ALL).unwrap();
    Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut NoDedup, &mut encoded);
    encoded
}

/// Fills a reservation with the snapshot of this number.
pub(super) fn fill(reservation: Reservation, number: u64) -> Arc<StoredSnapshot> {
    let encoded = chunk(number);
    let checksum = VerifiedChunk::verify(&encoded).unwrap().checksum();
    let id = ChunkId { region: MEMORY_REGION, index: 0, checksum };
    reservation.put_chunk(id, &encoded).unwrap();
    let manifest = ManifestV2 {
        producer: ManifestV2::this_producer(),
        id: SnapshotId::random().unwrap(),
        dependencies: Vec::new(),
        has_parent: false,
        touched_pages: 1,
        regions: vec![RegionV2::memory(4 << 20)],
        chunks: vec![id],
    };
    reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes()).unwrap();
    reservation.publish()
}

/// Asserts that a snapshot is the one of this number, in every byte.
#[track_caller]
pub(super) fn assert_is(stored: &StoredSnapshot, number: u64) {
    let found = stored.chunk(MEMORY_REGION, 0);
    assert!(stored.chunks().len() == 1 && found == Some(&chunk(number)[..]), "{}", stored.name());
}

pub(super) fn pool() -> Arc<Pool> {
    let config =
        PoolConfig { capacity_bytes: 64 << 20, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
    Arc::new(Pool::new(&config).unwrap())
}

pub(super) fn folder(path: &Path) -> Folder {
    let options = FolderOptions { host: String::from("here"), ..FolderOptions::default() };
    Folder::open(Arc::new(RealFiles::open(path).unwrap()), &options).unwrap()
}

pub(super) fn recover(folder: &Folder, pool: &Pool) -> RecoverReport {
    let recoverer = Recoverer::new(&Threads::new(2).unwrap());
    let options = RecoverOptions { cleaning: Cleaning::Delete, ..RecoverOptions::default() };
    recoverer.recover(folder, pool, &options).unwrap()
}

pub(super) fn flusher(pool: &Arc<Pool>, folder: &Arc<Folder>) -> Flusher {
    let gauge = Gauge::new(Rate { bytes_per_second: 1e9, commit: Duration::ZERO }, 16 << 20);
    let settings = FlushSettings { buffer_bytes: 16 << 10, ..FlushSettings::default() };
    let threads = Threads::new(1).unwrap();
    Flusher::new(&threads, Arc::clone(pool), Arc::clone(folder), gauge, settings).unwrap()
}
