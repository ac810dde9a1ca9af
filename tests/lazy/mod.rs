//! Clones whose memory arrives while they run: in the end they equal the source, and they are never wrong before.

mod kill;
mod loss;

use std::sync::Arc;
use std::time::Duration;

use cloner::moment::{Moment, Series};
use cloner::restore::lazy::{self, LazyOptions, Restored, WorkingSet};
use cloner::save::{SaveOptions, Saved};
use cloner::snapshot::Snapshot;
use cloner_testing::host::Holdings;
use cloner_testing::linux::{MEMORY_BYTES, linux};
use cloner_testing::{Guest, Studio, alone, assert_names, can_restore_lazily, guest, huge_pages, room_for};
use guest_images::pulse::{DirtyRate, DirtyWork, Params, Work, WriteOrder, check};
use vmm::memory::{Backing, PageSize};

use crate::MIB;

const NONCE: u64 = 0x1a2a_1a2a_0b0b_0b0b;
const TOUCHED: u64 = 16 * MIB;
const MEMORY: u64 = 48 * MIB;
const TRANSPARENT: Backing = Backing::Private(PageSize::Transparent);

fn params() -> Params {
    Params { beat_ms: 20, ..Params::new(NONCE, TOUCHED) }
}

fn source(params: &Params, vcpus: u8) -> Guest {
    let source = Guest::boot(&guest::pulse(params, MEMORY, vcpus));
    source.line("pulse: ready");
    source
}

/// Only pages that are touched arrive.
fn on_demand() -> LazyOptions {
    LazyOptions { background: None, ..LazyOptions::default() }
}

/// All pages arrive, from the beginning.
fn at_once() -> LazyOptions {
    LazyOptions { background: Some(Duration::ZERO), ..LazyOptions::default() }
}

#[track_caller]
fn restore(studio: &Studio, snapshot: &Snapshot, backing: Backing, options: &LazyOptions) -> Restored {
    studio.restorer.lazy(snapshot, backing, options).unwrap()
}

#[track_caller]
fn assert_is_clone(params: &Params, clone: &Guest) {
    assert_eq!(clone.nonce(), NONCE);
    assert_eq!(clone.sum(), check::expected_sum(params));
    clone.beat();
}

/// Covers every kind of memory, every number of pages per fault, with and without background fill, on several vCPUs.
#[test]
fn a_lazy_clone_is_a_clone() {
    let Some(_room) = room_for(3) else { return };
    if !can_restore_lazily() {
        return;
    }
    let Some(huge) = huge_pages(usize::try_from(MEMORY / (2 * MIB)).unwrap()) else { return };
    let params = params();
    let source = source(&params, 2);
    let studio = Studio::new(64 * MIB);
    let paused = source.pause();
    let snapshot = studio.save(&paused, "template");
    let kinds = [
        Backing::Private(PageSize::Base),
        TRANSPARENT,
        Backing::Shared(PageSize::Base),
        Backing::Private(PageSize::Huge),
        Backing::Shared(PageSize::Huge),
    ];
    for backing in kinds {
        for (granule_pages, background) in [(1, None), (16, Some(Duration::ZERO)), (512, None)] {
            let options = LazyOptions { granule_pages, background, ..LazyOptions::default() };
            let Restored { memory, fill } = restore(&studio, &snapshot, backing.clone(), &options);
            let clone = Guest::resume(snapshot.state(), memory);
            assert_is_clone(&params, &clone);
            let faults = fill.faults().len();
            assert!(
                background.is_some() || faults > 0,
                "{backing}: {granule_pages} pages at once, no faults"
            );
            drop(clone);

            // A clone that does not run: this process touches all of it.
            let Restored { memory, fill } = restore(&studio, &snapshot, backing.clone(), &options);
            let difference = studio.comparer.first_difference(paused.memory(), &memory).unwrap();
            assert_eq!(difference, None, "{backing}: {granule_pages} pages at once");
            guest::verify(&params, &memory);
            memory.supply_all().unwrap();
            assert!(fill.is_complete() && fill.time().is_some() && fill.faults().is_empty());
        }
    }
    huge.assert_all_back();
}

/// A clone of a clone of a clone, each saved before its memory has arrived; and snapshots that refer to others.
#[test]
fn a_half_filled_clone_is_completed_before_it_is_saved() {
    let Some(_room) = room_for(2) else { return };
    if !can_restore_lazily() {
        return;
    }
    let params = params();
    let studio = Studio::new(96 * MIB);
    let mut guest = source(&params, 1);
    let mut last: Option<Snapshot> = None;
    for generation in 1..=3 {
        guest.beat();
        let paused = guest.pause();
        let reservation = studio.pool.reserve(&format!("generation-{generation}")).unwrap();
        let options = SaveOptions::default().parent(last.as_ref());
        let saved = studio.saver.save(Moment::of(&paused).unwrap(), reservation, &options);
        let snapshot = saved.unwrap().snapshot;
        let expected = studio.comparer.copy_of(paused.memory()).unwrap();
        assert_eq!(
            studio.comparer.first_difference(&expected, &studio.memory(&snapshot)).unwrap(),
            None,
            "generation {generation}"
        );
        drop(paused);
        let Restored { memory, fill } = restore(&studio, &snapshot, TRANSPARENT, &on_demand());
        let clone = Guest::resume(snapshot.state(), memory);
        assert_eq!(clone.nonce(), NONCE);
        clone.beat();
        assert!(!fill.is_complete(), "nothing was left to complete");
        assert!((1..fill.total_bytes()).contains(&fill.arrived_bytes()), "{fill:?}");
        (guest, last) = (clone, Some(snapshot));
    }
    assert_is_clone(&params, &guest);
}

/// The clone rewrites its memory while the rest of it arrives: nothing that it wrote is overwritten.
#[test]
fn the_fill_replaces_nothing() {
    let Some(_room) = room_for(1) else { return };
    if !can_restore_lazily() {
        return;
    }
    let work = Work::Dirty(DirtyWork {
        rate: DirtyRate::FullSpeed,
        working_set: 1000,
        order: WriteOrder::Random,
        words_per_page: 8,
    });
    let params = Params { work, ..params() };
    let source = source(&params, 2);
    source.beat();
    let studio = Studio::new(96 * MIB);
    let snapshot = studio.snapshot(&source, "dirtying");
    drop(source);
    for number in 0..4 {
        let Restored { memory, fill } = restore(&studio, &snapshot, TRANSPARENT, &at_once());
        let clone = Guest::resume(snapshot.state(), memory);
        fill.wait().unwrap();
        clone.beat();
        let paused = clone.pause();
        // Every page has the sequence number that the guest's own counters say it must have.
        guest::verify(&params, paused.memory());
        let (again, memory) = studio.save_and_compare(&paused, &format!("again-{number}"));
        guest::verify(&params, &memory);
        studio.pool.remove(again.name()).unwrap();
    }
}

/// What one run touched is present before the next one starts.
#[test]
fn a_working_set_spares_the_faults() {
    let Some(_room) = room_for(1) else { return };
    if !can_restore_lazily() {
        return;
    }
    let params = params();
    let studio = Studio::new(64 * MIB);
    let snapshot = studio.snapshot(&source(&params, 1), "template");
    let run = |working_set| {
        let options = LazyOptions { working_set, ..on_demand() };
        let Restored { memory, fill } = restore(&studio, &snapshot, TRANSPARENT, &options);
        let clone = Guest::resume(snapshot.state(), memory);
        assert_is_clone(&params, &clone);
        fill.faults()
    };
    assert_eq!(WorkingSet::load(&studio.pool, &snapshot).unwrap(), None);
    let faults = run(None);
    WorkingSet::recorded(&snapshot, &faults).store(&studio.pool).unwrap();
    let working_set = WorkingSet::load(&studio.pool, &snapshot).unwrap().unwrap();
    assert_eq!(working_set.pages().len(), faults.len());
    let after = run(Some(working_set.clone())).len();
    assert!(faults.len() > 50 && after * 10 <= faults.len(), "{} faults, then {after}", faults.len());

    // The working set belongs to this snapshot, and to no other.
    working_set.store(&studio.pool).unwrap();
    let other = studio.snapshot(&source(&params, 1), "other");
    assert_eq!(WorkingSet::load(&studio.pool, &other).unwrap(), None);
    WorkingSet::remove(&studio.pool, snapshot.manifest().id).unwrap();
    assert_eq!(WorkingSet::load(&studio.pool, &snapshot).unwrap(), None);
}

/// A clone is dropped while vCPUs wait for pages and the fill is under way, twenty times over.
#[test]
fn dropping_a_lazy_clone_at_any_time_leaves_nothing() {
    let Some(_room) = room_for(1) else { return };
    if !can_restore_lazily() {
        return;
    }
    alone("lazy::dropping_a_lazy_clone_at_any_time_leaves_nothing", || {
        let params = params();
        let studio = Studio::new(64 * MIB);
        let snapshot = studio.snapshot(&source(&params, 2), "template");
        let kinds = [TRANSPARENT, Backing::Shared(PageSize::Base)];
        let lives = |number: u64| {
            for (backing, options) in kinds.iter().zip([at_once(), on_demand()]) {
                let Restored { memory, fill } = restore(&studio, &snapshot, backing.clone(), &options);
                let clone = Guest::resume(snapshot.state(), memory);
                clone.send("s");
                std::thread::sleep(Duration::from_micros(number * 700));
                drop(clone);
                assert!(fill.is_complete() || fill.wait().is_err());
            }
            drop(restore(&studio, &snapshot, TRANSPARENT, &at_once()));
        };
        (0..3).for_each(lives);
        let before = Holdings::now();
        (0..20).for_each(lives);
        before.assert_no_more_now(10);
    });
}

#[test]
fn what_cannot_be_served_is_refused() {
    let Some(_room) = room_for(1) else { return };
    if !can_restore_lazily() {
        return;
    }
    let studio = Studio::new(64 * MIB);
    let snapshot = studio.snapshot(&source(&params(), 1), "template");
    for granule_pages in [0, 3, 1024] {
        let options = LazyOptions { granule_pages, ..LazyOptions::default() };
        let error = studio.restorer.lazy(&snapshot, TRANSPARENT, &options).unwrap_err();
        assert!(matches!(error, lazy::Error::Granule(pages) if pages == granule_pages), "{error}");
    }
    let file = vmm::memory::memfd::create(c"template", MEMORY, false).unwrap();
    let backing = Backing::OverTemplate(Arc::new(file));
    let error = studio.restorer.lazy(&snapshot, backing, &LazyOptions::default()).unwrap_err();
    assert_names(&error, &["memory of its own", "template"]);
}

/// Linux, three generations of lazy clones: the second is saved while half of its memory has yet to arrive, the third is built from
/// an incremental snapshot.
#[test]
fn a_linux_goes_on_while_its_memory_arrives() {
    let Some(_room) = room_for(2) else { return };
    if !can_restore_lazily() {
        return;
    }
    let Some(linux) = linux() else { return };
    let studio = Studio::new(MEMORY_BYTES);
    let resume = |snapshot: &Snapshot| {
        let Restored { memory, fill } = restore(&studio, snapshot, TRANSPARENT, &on_demand());
        (Guest::resume(snapshot.state(), memory), fill)
    };
    let (first, fill) = resume(&linux.snapshot);
    assert_eq!(first.tick().nonce, linux.nonce);
    assert!(!fill.is_complete() && !fill.faults().is_empty());

    let paused = first.pause();
    let reservation = studio.pool.reserve("full").unwrap();
    let options = SaveOptions::default();
    let mut series = Series::begin(&paused).unwrap();
    studio.saver.save(series.next(&paused).unwrap(), reservation, &options).unwrap();
    drop(paused);
    let (second, _) = resume(series.last().unwrap());
    assert_eq!(second.ask("nonce"), linux.nonce);

    assert_eq!(first.ask("sh echo changed >/tmp/mark"), "exit=0");
    let paused = first.pause();
    let reservation = studio.pool.reserve("next").unwrap();
    let saved = studio.saver.save(series.next(&paused).unwrap(), reservation, &options);
    let Saved { snapshot: next, report } = saved.unwrap();
    assert!(report.changed.unwrap().dirty_bytes < MEMORY_BYTES / 4, "{report:?}");
    let memory = restore(&studio, &next, TRANSPARENT, &on_demand()).memory;
    assert_eq!(studio.comparer.first_difference(paused.memory(), &memory).unwrap(), None);
    drop(paused);
    let (third, _) = resume(&next);
    third.ask("sh cat /tmp/mark");
    assert!(third.console.transcript().contains("changed"), "{}", third.console.transcript());
    assert_eq!(third.tick().nonce, linux.nonce);
}
