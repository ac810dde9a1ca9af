//! Makes small snapshots as the pool holds them, without a machine: a flush does not look at what they mean.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use cloner_codec::chunk::PAGE_BYTES;
use cloner_codec::hot::{ChunkInput, Encoder, EncoderOptions, NoDedup, PageSet, VerifiedChunk};

use crate::chunk_id::ChunkId;
use crate::pool::{
    Labels, Ledger, Pool, PoolConfig, PoolPages, Populate, Priority, PutOptions, StoredSnapshot,
    UnflushedLimit,
};
use crate::progress::Watch;
use crate::rate::Rate;
use crate::snapshot::{
    MANIFEST_LABEL, MEMORY_REGION, Manifest, ManifestV2, RegionV2, STATE_LABEL, SnapshotId,
};
use crate::walk::Threads;

use super::super::files::Files;
use super::super::files::faulty::{FaultyFiles, Random};
use super::super::*;

/// The whole content of a snapshot, to compare it with what comes back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Content {
    chunks: Vec<(ChunkId, Vec<u8>)>,
    blobs: BTreeMap<String, Vec<u8>>,
    labels: Labels,
    dependencies: Vec<Content>,
}

impl Content {
    pub(super) fn of(stored: &StoredSnapshot) -> Self {
        Self {
            chunks: stored.chunks().iter().map(|chunk| (chunk.id(), chunk.bytes().to_vec())).collect(),
            blobs: stored.blobs().map(|(label, bytes)| (label.to_owned(), bytes.to_vec())).collect(),
            labels: stored.labels().clone(),
            dependencies: stored.dependencies().iter().map(|stored| Self::of(stored)).collect(),
        }
    }

    pub(super) fn has_chunks_of(&self, other: &Self) -> bool {
        self.chunks == other.chunks
    }
}

/// A pool, and the folder that it is flushed to.
pub(super) struct Scene {
    pub(super) pool: Arc<Pool>,
    pub(super) folder: Arc<Folder>,
    pub(super) ledger: Arc<Ledger>,
    form: Option<Form>,
    /// Made when first needed, because it takes threads and memory.
    flusher: OnceLock<Flusher>,
}

/// One recoverer, shared by all cases of all tests.
static RECOVERER: LazyLock<Recoverer> = LazyLock::new(|| Recoverer::new(&Threads::new(2).unwrap()));

pub(super) fn pool(mib: usize) -> Arc<Pool> {
    let config =
        PoolConfig { capacity_bytes: mib << 20, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
    Arc::new(Pool::new(&config).unwrap())
}

pub(super) const RATE: Rate = Rate { bytes_per_second: 1e9, commit: Duration::from_millis(1) };

impl Scene {
    /// Makes an empty pool of 64 MiB over `files`.
    pub(super) fn new(files: &FaultyFiles, options: &FolderOptions) -> Result<Self, Error> {
        Self::over(Arc::new(files.clone()), options, None)
    }

    pub(super) fn over(
        files: Arc<dyn Files>,
        options: &FolderOptions,
        form: Option<Form>,
    ) -> Result<Self, Error> {
        let folder = Arc::new(Folder::open(files, options)?);
        let (ledger, flusher) = (Ledger::new(UnflushedLimit::NONE), OnceLock::new());
        Ok(Self { pool: pool(64), folder, ledger, form, flusher })
    }

    /// A flusher that writes little at a time, so that there are many writes that can fail.
    pub(super) fn flusher(&self) -> &Flusher {
        self.flusher.get_or_init(|| {
            let gauge = Gauge::new(RATE, 1 << 20);
            let settings = FlushSettings { form: self.form, buffer_bytes: 8192, ..FlushSettings::default() };
            let (pool, folder) = (Arc::clone(&self.pool), Arc::clone(&self.folder));
            Flusher::new(&Threads::new(1).unwrap(), pool, folder, gauge, settings).unwrap()
        })
    }

    /// Puts a snapshot of `chunks` chunks of `pages` pages.
    pub(super) fn put(
        &self,
        name: &str,
        seed: u64,
        (chunks, pages): (u32, usize),
        on: &[&Arc<StoredSnapshot>],
    ) -> Arc<StoredSnapshot> {
        let labels = Labels {
            priority: Priority(u8::try_from(seed % 3).unwrap()),
            tags: [(String::from("seed"), seed.to_string())].into(),
        };
        let claim = Some(self.ledger.claim(0).unwrap());
        put(
            &self.pool,
            name,
            PutOptions { labels, claim, ..PutOptions::default() },
            seed,
            (chunks, pages),
            on,
        )
    }

    /// Removes a snapshot from pool and folder.
    pub(super) fn remove(&self, name: &str) -> Result<(), Error> {
        self.pool.remove(name).unwrap();
        self.folder.remove(name)
    }

    pub(super) fn flush(&self) -> FlushReport {
        self.flusher().flush_all(Watch::default())
    }
}

/// Puts a snapshot whose chunks are encoded from pages made by `seed`.
pub(super) fn put(
    pool: &Pool,
    name: &str,
    options: PutOptions,
    seed: u64,
    (chunks, pages): (u32, usize),
    on: &[&Arc<StoredSnapshot>],
) -> Arc<StoredSnapshot> {
    let reservation = pool.reserve_with(name, options).unwrap();
    let mut random = Random(seed);
    let mut encoder = Encoder::new(EncoderOptions::default());
    let mut entries = Vec::new();
    for index in (0..chunks).map(|index| index * 3) {
        let mut memory = vec![0; pages * PAGE_BYTES];
        for page in memory.chunks_mut(PAGE_BYTES) {
            let density = 1 + random.below(8);
            for word in page.chunks_mut(8) {
                if random.one_in(density) {
                    word.copy_from_slice(&random.next().to_le_bytes());
                }
            }
        }
        let mut encoded = Vec::new();
        encoder.encode_chunk(&ChunkInput::new(&memory, &PageSet::ALL).unwrap(), &mut NoDedup, &mut encoded);
        let checksum = VerifiedChunk::verify(&encoded).unwrap().checksum();
        let id = ChunkId { region: MEMORY_REGION, index, checksum };
        reservation.put_chunk(id, &encoded).unwrap();
        entries.push(id);
    }
    let id = |stored: &&Arc<StoredSnapshot>| {
        Manifest::from_bytes(stored.blob(MANIFEST_LABEL).unwrap()).unwrap().get().id
    };
    let manifest = ManifestV2 {
        producer: ManifestV2::this_producer(),
        id: SnapshotId::random().unwrap(),
        dependencies: on.iter().map(id).collect(),
        has_parent: !on.is_empty(),
        touched_pages: 0,
        regions: vec![RegionV2::memory(1 << 30)],
        chunks: entries,
    };
    reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes()).unwrap();
    reservation.put_blob(STATE_LABEL, format!("the state of {seed}").as_bytes()).unwrap();
    on.iter().for_each(|other| reservation.depend_on(Arc::clone(other)));
    reservation.publish()
}

/// Recovers what a machine finds that starts with this disk.
pub(super) fn recover(files: &FaultyFiles, options: &FolderOptions) -> Result<(Scene, RecoverReport), Error> {
    recover_over(Arc::new(files.clone()), options)
}

pub(super) fn recover_over(
    files: Arc<dyn Files>,
    options: &FolderOptions,
) -> Result<(Scene, RecoverReport), Error> {
    let scene = Scene::over(files, options, None)?;
    let options = RecoverOptions { cleaning: Cleaning::Delete, ..RecoverOptions::default() };
    let report = RECOVERER.recover(&scene.folder, &scene.pool, &options)?;
    scene.pool.check().unwrap();
    Ok((scene, report))
}

/// Every listed snapshot by name.
pub(super) fn contents(pool: &Pool) -> BTreeMap<String, Content> {
    pool.all().iter().map(|stored| (stored.name().to_owned(), Content::of(stored))).collect()
}
