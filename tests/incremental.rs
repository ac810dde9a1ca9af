//! Snapshots in a series: each reads what has changed, equals the source at its own instant, and needs only its parent.

use cloner::moment::{self, Series};
use cloner::pool;
use cloner::progress::Cancel;
use cloner::save::{self, SaveOptions, SaveReport, Saved};
use cloner::snapshot::Snapshot;
use cloner_testing::studio::Failed;
use cloner_testing::{Guest, Studio, assert_names, guest, room_for};
use guest_images::pulse::{DirtyRate, DirtyWork, Mix, Params, Work, WriteOrder};
use vmm::memory::{Backing, PageSize, dirty};
use vmm::{Config, Paused};

use crate::MIB;

const NONCE: u64 = 0x1c2e_0001_1c2e_0001;
const TOUCHED: u64 = 16 * MIB;
const POOL: u64 = 96 * MIB;

/// A guest that rewrites the first quarter of the memory it filled, as fast as it can.
fn dirtying() -> Params {
    let work = Work::Dirty(DirtyWork {
        rate: DirtyRate::FullSpeed,
        working_set: 250,
        order: WriteOrder::Random,
        words_per_page: 8,
    });
    Params { beat_ms: 20, work, ..Params::new(NONCE, TOUCHED) }
}

fn idle() -> Params {
    Params { beat_ms: 20, ..Params::new(NONCE, TOUCHED) }
}

fn boot(params: &Params, backing: Backing) -> Guest {
    let source = Guest::boot(&Config { backing, ..guest::pulse(params, 24 * MIB, 1) });
    source.line("pulse: ready");
    source
}

fn dirty_bytes(report: &SaveReport) -> u64 {
    report.changed.unwrap().dirty_bytes
}

/// A series of a guest's snapshots, and what takes them.
struct Film {
    studio: Studio,
    series: Series,
}

impl Film {
    #[track_caller]
    fn begin(studio: Studio, paused: &Paused<'_>, parent: Option<&Snapshot>) -> Self {
        let reservation = studio.pool.reserve("first").unwrap();
        let mut series = Series::begin(paused).unwrap();
        let options = SaveOptions::default().parent(parent);
        studio.saver.save(series.next(paused).unwrap(), reservation, &options).unwrap();
        Self { series, studio }
    }

    fn try_take(
        &mut self,
        paused: &Paused<'_>,
        name: &str,
        options: &SaveOptions<'_>,
    ) -> Result<Saved, Failed> {
        let reservation = self.studio.pool.reserve(name).unwrap();
        Ok(self.studio.saver.save(self.series.next(paused)?, reservation, options)?)
    }

    /// Takes the next snapshot, and proves that its clones' memory equals the source's.
    #[track_caller]
    fn take(&mut self, paused: &Paused<'_>, name: &str) -> (Snapshot, SaveReport) {
        let Saved { snapshot, report } = self.try_take(paused, name, &SaveOptions::default()).unwrap();
        self.assert_equal(paused, &snapshot);
        (snapshot, report)
    }

    #[track_caller]
    fn assert_equal(&self, paused: &Paused<'_>, snapshot: &Snapshot) {
        let memory = self.studio.memory(snapshot);
        let difference = self.studio.comparer.first_difference(paused.memory(), &memory).unwrap();
        assert_eq!(difference, None, "first page that differs");
    }
}

/// Since the first snapshot the guest has counted and the VMM has written: those pages are read, and no others.
#[test]
fn the_second_snapshot_reads_what_changed() {
    let Some(_room) = room_for(2) else { return };
    let source = boot(&idle(), Backing::Private(PageSize::Transparent));
    let mut film = Film::begin(Studio::new(POOL), &source.pause(), None);
    let first = film.series.last().unwrap().clone();
    source.beat();

    let paused = source.pause();
    // One page that was filled, and two that were never touched.
    for address in [5 * MIB, 20 * MIB, 22 * MIB + 4096] {
        paused.memory().write(address, &[0xd1; 100]).unwrap();
    }
    let (second, report) = film.take(&paused, "second");
    // The guest's stacks, status and tables; not the 4096 pages it filled.
    assert!((3..64).contains(&(dirty_bytes(&report) / 4096)), "{report:?}");
    assert_eq!(report.read_bytes, dirty_bytes(&report), "a clean page was read: {report:?}");
    assert!(second.occupied_bytes() < first.occupied_bytes() / 10, "{}", second.occupied_bytes());
    assert_eq!(second.parent().unwrap().name(), "first");
    drop(paused);

    let clone = film.studio.clone_of(&second);
    assert_eq!(clone.nonce(), NONCE);
    clone.beat();
}

/// Many snapshots in a row of a guest that never stops writing: each is equal, each refers only to the first, and all but the last
/// can be removed.
#[test]
fn a_long_series_refers_to_its_first_only() {
    let Some(_room) = room_for(2) else { return };
    for backing in [Backing::Private(PageSize::Transparent), Backing::Shared(PageSize::Base)] {
        let source = boot(&dirtying(), backing);
        let mut film = Film::begin(Studio::new(POOL), &source.pause(), None);
        for number in 1..=6_u64 {
            source.beat();
            let paused = source.pause();
            // Content that only this process writes, each time at a new place and at one that stays the same.
            let text = [0x30 + u8::try_from(number).unwrap(); 300];
            paused.memory().write(12 * MIB + number * MIB / 2, &text).unwrap();
            paused.memory().write(20 * MIB, &text).unwrap();
            let name = format!("next-{number}");
            let (snapshot, report) = film.take(&paused, &name);
            assert!(report.read_bytes >= dirty_bytes(&report) && report.read_bytes < TOUCHED, "{report:?}");
            assert_eq!(snapshot.dependencies().len(), 1);
            assert_eq!(snapshot.parent().unwrap().name(), "first");
            drop(paused);
            if number > 1 {
                film.studio.pool.remove(&format!("next-{}", number - 1)).unwrap();
            }
        }
        film.studio.pool.remove("first").unwrap();
        film.studio.check();

        // Opened from the pool, as another process would open it.
        let Film { studio, series, .. } = film;
        drop(series);
        let last = Snapshot::open(studio.pool.get("next-6").unwrap()).unwrap();
        let clone = studio.clone_of(&last);
        assert_eq!(clone.nonce(), NONCE);
        clone.beat();
    }
}

/// A page that changes and changes back, and snapshots between which nothing happens.
#[test]
fn what_changed_before_stays_changed() {
    let Some(_room) = room_for(1) else { return };
    let mix = Mix { zero: 300, fill: 100, duplicate: 100, structured: 300, random: 200 };
    let source = boot(&Params { mix, ..idle() }, Backing::Private(PageSize::Base));
    let paused = source.pause();
    let mut film = Film::begin(Studio::new(POOL), &paused, None);
    let mut original = vec![0; 64 * 4096];
    paused.memory().read(4 * MIB, &mut original).unwrap();

    paused.memory().write(4 * MIB, &vec![0xee; original.len()]).unwrap();
    // Structured content in place of other content: it is coded by markers with a dictionary.
    let mut structured = original.clone();
    structured.rotate_left(4096 * 5 + 24);
    paused.memory().write(6 * MIB, &structured).unwrap();
    paused.memory().write(19 * MIB, &original).unwrap();
    let (_, report) = film.take(&paused, "changed");
    assert_eq!((dirty_bytes(&report), report.changed.unwrap().dirty_chunks), (3 * original.len() as u64, 3));

    let (_, report) = film.take(&paused, "same");
    assert_eq!((dirty_bytes(&report), report.read_bytes), (0, 0));

    // Only one page changes, so that all others of its chunk are kept.
    paused.memory().write(6 * MIB + 4096, &[1]).unwrap();
    let (_, report) = film.take(&paused, "one-page");
    assert_eq!((dirty_bytes(&report), report.changed.unwrap().dirty_chunks), (4096, 1));

    paused.memory().write(4 * MIB, &original).unwrap();
    film.take(&paused, "changed-back");
}

/// A series that begins with a child, whose pages refer to more than its parent.
#[test]
fn a_series_may_begin_with_a_child() {
    let Some(_room) = room_for(1) else { return };
    let source = boot(&dirtying(), Backing::Private(PageSize::Transparent));
    let studio = Studio::new(POOL);
    let parent = studio.snapshot(&source, "parent");
    source.beat();
    let paused = source.pause();
    let mut page = [0; 4096];
    paused.memory().read(9 * MIB, &mut page).unwrap();
    // The same new page in three chunks: the child refers to a page of its own with DUP markers.
    page[..8].copy_from_slice(&NONCE.to_le_bytes());
    page[4000..4008].copy_from_slice(&NONCE.to_le_bytes());
    for address in [18 * MIB, 20 * MIB, 22 * MIB] {
        paused.memory().write(address, &page).unwrap();
    }
    let mut film = Film::begin(studio, &paused, Some(&parent));
    // One of the three equal pages changes, the first, on which the markers of the others depended.
    paused.memory().write(18 * MIB, &[9; 4096]).unwrap();
    let (next, _) = film.take(&paused, "next");
    assert_eq!(next.parent().unwrap().name(), "parent");
    assert_eq!(next.dependencies().len(), 1);
    drop(paused);
    source.beat();
    film.take(&source.pause(), "next-but-one");
}

/// The pool has no room, or the save is cancelled: the log is put back, and the next snapshot contains all changes.
#[test]
fn a_failed_snapshot_loses_no_change() {
    let Some(_room) = room_for(1) else { return };
    let source = boot(&dirtying(), Backing::Private(PageSize::Transparent));
    let mut film = Film::begin(Studio::new(POOL), &source.pause(), None);
    source.beat();

    let paused = source.pause();
    paused.memory().write(20 * MIB, &[0xaa; 4096]).unwrap();
    let stats = film.studio.pool.stats();
    let hog =
        film.studio.pool.reserve_promised("hog", usize::try_from(POOL).unwrap() - stats.used_bytes).unwrap();
    let error = film.try_take(&paused, "full", &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Failed::Save(save::Error::Pool(pool::Error::Full { .. }))), "{error}");
    drop((hog, paused));
    assert_eq!(film.studio.pool.stats().used_bytes, stats.used_bytes);
    film.studio.check();

    source.beat();
    let paused = source.pause();
    paused.memory().write(21 * MIB, &[0xbb; 4096]).unwrap();
    let cancel = Cancel::new();
    cancel.cancel();
    let options = SaveOptions::default().cancel(&cancel);
    let error = film.try_take(&paused, "cancelled", &options).unwrap_err();
    assert!(matches!(error, Failed::Save(save::Error::Cancelled)), "{error}");
    drop(paused);

    source.beat();
    let paused = source.pause();
    let (snapshot, report) = film.take(&paused, "right");
    assert!(dirty_bytes(&report) >= 2 * 4096 && snapshot.parent().is_some(), "{report:?}");
}

/// A series goes on only with the log it began with.
#[test]
fn a_log_that_does_not_continue_the_series_is_refused() {
    let Some(_room) = room_for(2) else { return };
    let source = boot(&idle(), Backing::Private(PageSize::Base));
    let paused = source.pause();
    let error = paused.take_dirty().unwrap_err();
    assert!(matches!(error, vmm::Error::Dirty(dirty::Error::NotTracked)), "{error}");

    let mut film = Film::begin(Studio::new(POOL), &paused, None);
    let taken = paused.take_dirty().unwrap();
    let error = film.try_take(&paused, "taken", &SaveOptions::default()).unwrap_err();
    assert_names(&error, &["taken already"]);
    drop(taken);
    film.take(&paused, "second");

    // Another caller takes the log and does not give it back.
    let _ = paused.take_dirty().unwrap().commit();
    let error = film.try_take(&paused, "third", &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Failed::Moment(moment::Error::OtherSeries { .. })), "{error}");
    assert_names(&error, &["\"second\""]);
    let other = boot(&idle(), Backing::Private(PageSize::Base));
    let other = other.pause();
    other.track_dirty().unwrap();
    let error = film.try_take(&other, "other", &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Failed::Moment(moment::Error::OtherSeries { .. })), "{error}");
    paused.untrack_dirty().unwrap();
    let error = film.try_take(&paused, "untracked", &SaveOptions::default()).unwrap_err();
    assert_names(&error, &["not tracked"]);
}
