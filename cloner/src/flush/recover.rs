//! Brings snapshots from a folder back into a pool.
//!
//! ```text
//! list ─► open every header and index ─► which are needed? ─► in order of dependencies: read, verify, put ─► publish
//!             │                              │                        │
//!             └───────── dropped, with file and reason ───────────────┘      hidden files, if not needed: deleted
//! ```
//!
//! Records are read in runs of a few MiB by several threads, each of which verifies and stores what it has read while others read
//! on. Damaged files stay in the folder, where they can be examined. Recovery deletes only files that it knows to be worthless.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::candidate::Candidate;
use super::error::META_FILE;
use super::folder::{Folder, file_name};
use super::load::{ChunkRun, LoadingSnapshot, Worker, runs};
use super::reader::SnapshotFile;
use super::writer::PROBE_FILE;
use super::{Error, Form};
use crate::pool::{Pool, StoredSnapshot};
use crate::progress::Watch;
use crate::snapshot::{SnapshotId, parse_id};
use crate::sync::{into_inner, lock};
use crate::walk::{Threads, Walker};

/// What a recovery found.
#[derive(Debug, Default)]
pub struct RecoverReport {
    /// Snapshots that are in the pool again, sorted by name.
    pub recovered: Vec<RecoveredSnapshot>,
    /// Files that were not recovered, each with its reason.
    pub dropped: Vec<DroppedFile>,
    /// Names of the files that were deleted: flushes that were not completed, and removed snapshots that no other refers to.
    pub deleted: Vec<String>,
    /// Length in bytes of the files of all recovered snapshots.
    pub read_bytes: u64,
    /// Time from listing the folder until the last snapshot was published.
    pub time: Duration,
}

/// A snapshot that is in the pool again.
#[derive(Debug, Clone)]
pub struct RecoveredSnapshot {
    /// Name of the snapshot.
    pub name: String,
    /// Whether the snapshot is found under its name. If not, it is there for those that refer to it.
    pub listed: bool,
    /// The form in which it was flushed.
    pub form: Form,
    /// Length of its file in bytes.
    pub file_bytes: u64,
}

/// A file that was not recovered.
#[derive(Debug)]
pub struct DroppedFile {
    /// Name of the file.
    pub file: String,
    /// The snapshot's name, if that much could be read.
    pub name: Option<String>,
    /// Why the file was not recovered.
    pub why: Error,
}

/// Rebuilds pools, on threads that other tools may share.
#[derive(Debug)]
pub struct Recoverer {
    walker: Walker<Worker>,
}

/// Whether recovery deletes files that it knows to be worthless: flushes that were not completed, and removed snapshots that no
/// other refers to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Cleaning {
    /// Worthless files are deleted.
    Delete,
    /// Every file is kept.
    #[default]
    Keep,
}

/// How to recover a folder. The default brings back every snapshot, deletes nothing, and is neither counted nor cancelled.
#[derive(Clone, Copy, Default)]
pub struct RecoverOptions<'a> {
    /// Tells by a snapshot's name whether to bring it back.
    pub wanted: Option<&'a dyn Fn(&str) -> bool>,
    /// Whether worthless files are deleted.
    pub cleaning: Cleaning,
    /// Counts the bytes of the files that are read, and cancels.
    pub watch: Watch<'a>,
}

impl std::fmt::Debug for RecoverOptions<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { wanted, cleaning, watch } = self;
        let wanted = if wanted.is_some() { "some" } else { "all" };
        f.debug_struct("RecoverOptions")
            .field("wanted", &wanted)
            .field("cleaning", cleaning)
            .field("watch", watch)
            .finish()
    }
}

/// A snapshot's number, and the snapshot in the pool or the reason why it is not there.
type RecoverOutcome = (u128, Result<Arc<StoredSnapshot>, Error>);

impl Recoverer {
    /// Makes the memory of each thread. More threads than processors help: one can read while another verifies.
    #[must_use]
    pub fn new(threads: &Threads) -> Self {
        Self { walker: Walker::new(threads, Worker::new) }
    }

    /// Puts every undamaged snapshot of `folder` into `pool`, and enters all of them into the folder's catalogue. Snapshots that
    /// `options` leave out come along if another one refers to them.
    ///
    /// # Errors
    /// [`Error::File`] if the folder itself cannot be read, cleaned or synced; [`Error::Cancelled`]. What is wrong with single
    /// files is in the report.
    pub fn recover(
        &self,
        folder: &Folder,
        pool: &Pool,
        &RecoverOptions { wanted, cleaning, watch }: &RecoverOptions<'_>,
    ) -> Result<RecoverReport, Error> {
        let started = Instant::now();
        let mut report = RecoverReport::default();
        let mut found = self.open_all(folder, &mut report.dropped)?;
        if cleaning == Cleaning::Delete {
            delete_unfinished(folder, &mut report);
            delete_unneeded(folder, &mut found, &mut report)?;
        }
        let needed = closure(&found, |entry| {
            entry.listed && wanted.is_none_or(|wanted| wanted(&entry.snapshot_file.index().name))
        });
        watch.start(needed.iter().map(|id| found[id].snapshot_file.file_bytes()).sum());

        let mut stored: BTreeMap<u128, Arc<StoredSnapshot>> = BTreeMap::new();
        let mut left = needed;
        while !left.is_empty() {
            let ready = |id: &u128| found[id].dependencies().all(|other| stored.contains_key(&other));
            let level: Vec<u128> = left.iter().copied().filter(ready).collect();
            if level.is_empty() {
                drop_without_dependencies(&found, &stored, &left, &mut report);
                break;
            }
            left.retain(|id| !level.contains(id));
            for (id, outcome) in self.load(folder, pool, &found, &level, &stored, watch)? {
                let Candidate { snapshot_file, listed } = &found[&id];
                let index = snapshot_file.index();
                match outcome {
                    Ok(new) => {
                        let (name, form) = (index.name.clone(), index.form);
                        let file_bytes = snapshot_file.file_bytes();
                        report.read_bytes += file_bytes;
                        report.recovered.push(RecoveredSnapshot { name, listed: *listed, form, file_bytes });
                        stored.insert(id, new);
                    }
                    Err(why) => report.drop_file(snapshot_file, why),
                }
            }
        }
        for (id, found) in &found {
            folder.insert(*id, found.entry(stored.get(id)));
        }
        report.recovered.sort_by(|left, right| left.name.cmp(&right.name));
        report.time = started.elapsed();
        Ok(report)
    }

    /// Opens every snapshot file, which checks its header and index. Adds those that cannot be opened, and other files, to
    /// `dropped`.
    pub(super) fn open_all(
        &self,
        folder: &Folder,
        dropped: &mut Vec<DroppedFile>,
    ) -> Result<BTreeMap<u128, Candidate>, Error> {
        let files = folder.files();
        let listed = files.list().map_err(Error::file(folder.place(), "list it"))?;
        let mut snapshots = Vec::new();
        for (file, _) in listed {
            match parse(&file) {
                FileKind::Snapshot { id, listed } => snapshots.push((file, id, listed)),
                FileKind::Partial => {
                    let why = Error::Unfinished { file: file.clone() };
                    dropped.push(DroppedFile { file, name: None, why });
                }
                FileKind::Meta => {}
                FileKind::Foreign => {
                    let why = Error::Foreign { file: file.clone() };
                    dropped.push(DroppedFile { file, name: None, why });
                }
            }
        }
        let opened = Mutex::new(Vec::new());
        let all = self.walker.walk(&snapshots, |_, (file, id, listed)| {
            let snapshot_file = SnapshotFile::open(folder, file, *id);
            lock(&opened).push((file.clone(), *id, *listed, snapshot_file));
            Ok::<(), Error>(())
        });
        all?;
        let mut found: BTreeMap<u128, Candidate> = BTreeMap::new();
        let mut opened = into_inner(opened);
        opened.sort_by(|left, right| left.0.cmp(&right.0));
        for (file, id, listed, snapshot_file) in opened {
            match snapshot_file {
                Ok(snapshot_file) => match found.get_mut(&id) {
                    // Both a listed and a hidden file, which no rename of this program leaves. They are the same snapshot.
                    Some(other) => other.listed |= listed,
                    None => drop(found.insert(id, Candidate { snapshot_file, listed })),
                },
                Err(why) => dropped.push(DroppedFile { file, name: None, why }),
            }
        }
        Ok(found)
    }

    /// Loads snapshots whose dependencies are all in the pool.
    fn load(
        &self,
        folder: &Folder,
        pool: &Pool,
        found: &BTreeMap<u128, Candidate>,
        level: &[u128],
        stored: &BTreeMap<u128, Arc<StoredSnapshot>>,
        watch: Watch<'_>,
    ) -> Result<Vec<RecoverOutcome>, Error> {
        let mut outcomes = Vec::new();
        let mut loadings = Vec::new();
        for &id in level {
            match LoadingSnapshot::start(pool, id, &found[&id], stored) {
                Ok(loading) => loadings.push(loading),
                Err(why) => outcomes.push((id, Err(why))),
            }
        }
        let runs: Vec<ChunkRun<'_>> =
            loadings.iter().enumerate().flat_map(|(at, loading)| runs(at, loading)).collect();
        self.walker.walk(&runs, |worker, run| {
            if watch.is_cancelled() {
                return Err(Error::Cancelled);
            }
            let loading = &loadings[run.loading];
            if lock(&loading.failed).is_none()
                && let Err(why) = worker.load(folder, loading, run, watch)
            {
                lock(&loading.failed).get_or_insert(why);
            }
            Ok(())
        })?;
        let mut worker = Worker::new();
        for loading in loadings {
            let id = loading.id;
            outcomes.push((id, loading.finish(folder, &mut worker)));
        }
        Ok(outcomes)
    }
}

impl RecoverReport {
    fn drop_file(&mut self, snapshot_file: &SnapshotFile, why: Error) {
        let name = Some(snapshot_file.index().name.clone());
        self.dropped.push(DroppedFile { file: snapshot_file.file.clone(), name, why });
    }
}

enum FileKind {
    Snapshot { id: u128, listed: bool },
    Partial,
    Meta,
    Foreign,
}

fn parse(file: &str) -> FileKind {
    if file == META_FILE {
        return FileKind::Meta;
    }
    let Some((stem, kind)) = file.rsplit_once('.') else { return FileKind::Foreign };
    if file == PROBE_FILE || (stem == META_FILE && kind == "partial") {
        return FileKind::Partial;
    }
    match (parse_id(stem), kind) {
        (Ok(id), "snapshot") => FileKind::Snapshot { id, listed: true },
        (Ok(id), "hidden") => FileKind::Snapshot { id, listed: false },
        (Ok(_), "partial") => FileKind::Partial,
        _ => FileKind::Foreign,
    }
}

/// Those that `wanted` says, and all they refer to.
fn closure(found: &BTreeMap<u128, Candidate>, wanted: impl Fn(&Candidate) -> bool) -> BTreeSet<u128> {
    let mut needed: BTreeSet<u128> = BTreeSet::new();
    let mut next: Vec<u128> = found.iter().filter(|(_, entry)| wanted(entry)).map(|(id, _)| *id).collect();
    while let Some(id) = next.pop() {
        if let Some(entry) = found.get(&id)
            && needed.insert(id)
        {
            next.extend(entry.dependencies());
        }
    }
    needed
}

/// Deletes flushes that were not completed.
fn delete_unfinished(folder: &Folder, report: &mut RecoverReport) {
    for dropped in &report.dropped {
        if let Error::Unfinished { file } = &dropped.why {
            match folder.files().remove(file) {
                Ok(()) => report.deleted.push(file.clone()),
                Err(source) => tracing::warn!(file, error = %source, "cannot delete an unfinished flush"),
            }
        }
    }
}

/// Deletes hidden files that no listed one refers to, even through others.
fn delete_unneeded(
    folder: &Folder,
    found: &mut BTreeMap<u128, Candidate>,
    report: &mut RecoverReport,
) -> Result<(), Error> {
    let needed = closure(found, |entry| entry.listed);
    let unneeded: Vec<u128> = found.keys().copied().filter(|id| !needed.contains(id)).collect();
    for id in &unneeded {
        let file = file_name(*id, false);
        folder.files().remove(&file).map_err(Error::file(&file, "delete it"))?;
        found.remove(id);
        report.deleted.push(file);
    }
    if report.deleted.is_empty() { Ok(()) } else { folder.sync() }
}

/// Drops the snapshots that are left when no more can be loaded: a dependency is missing, was dropped, or leads round in a circle.
fn drop_without_dependencies(
    found: &BTreeMap<u128, Candidate>,
    stored: &BTreeMap<u128, Arc<StoredSnapshot>>,
    left: &BTreeSet<u128>,
    report: &mut RecoverReport,
) {
    for id in left {
        let snapshot_file = &found[id].snapshot_file;
        let missing = found[id].dependencies().find(|other| !stored.contains_key(other));
        let missing = missing.expect("a snapshot whose dependencies are all stored is loaded");
        let (file, dependency) = (snapshot_file.file.clone(), SnapshotId::from_number(missing));
        report.drop_file(snapshot_file, Error::Dependency { file, dependency });
    }
}
