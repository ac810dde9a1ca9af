//! A save or restore that cannot be finished leaves the source running and the pool as it was.

use cloner::pool::{self, Pool, PoolConfig, PoolPages, PoolStats, Populate};
use cloner::progress::{Cancel, Progress, Watch};
use cloner::restore::eager;
use cloner::save::{self, SaveOptions};
use cloner_testing::studio::Failed;
use cloner_testing::{Guest, Studio, assert_names, guest, huge_pages, room_for};
use guest_images::pulse::{Mix, Params};
use vmm::memory::{Backing, PageSize};

use crate::MIB;

/// A guest with 8 MiB of memory that no coder can make smaller.
fn incompressible() -> Guest {
    let params = Params { beat_ms: 20, mix: Mix::RANDOM, ..Params::new(1, 8 * MIB) };
    let guest = Guest::boot(&guest::pulse(&params, 16 * MIB, 1));
    guest.line("pulse: ready");
    guest
}

/// Asserts that the source beats on, counting by one, that the pool's books agree and are as before, and that the name is
/// free again.
#[track_caller]
fn assert_undone(source: &Guest, studio: &Studio, before: PoolStats, name: &str) {
    let beat = source.beats().last().copied().unwrap_or(0);
    while source.beat() <= beat + 2 {}
    let beats = source.beats();
    assert!(beats.windows(2).all(|pair| pair[1] == pair[0] + 1), "{beats:?}");
    studio.check();
    assert_eq!(studio.pool.stats(), before);
    drop(studio.pool.reserve(name).unwrap());
}

#[test]
fn a_pool_too_small_for_the_snapshot() {
    let Some(_room) = room_for(1) else { return };
    let source = incompressible();
    let studio = Studio::new(4 * MIB);
    // The pool already holds something, which must stay.
    let resident = studio.pool.reserve("resident").unwrap();
    resident.put_blob("text", b"stays").unwrap();
    let resident = resident.publish();
    let before = studio.pool.stats();
    for _ in 0..3 {
        let paused = source.pause();
        let error = studio.try_save(&paused, "large", &SaveOptions::default()).unwrap_err();
        drop(paused);
        let Failed::Save(save::Error::Pool(pool::Error::Full {
            wanted_bytes,
            free_bytes,
            capacity_bytes,
            ..
        })) = error
        else {
            panic!("{error:?}")
        };
        assert!(wanted_bytes > 0 && free_bytes < capacity_bytes);
        assert_names(&error, &[&free_bytes.to_string(), &(4 * MIB).to_string()]);
        assert_undone(&source, &studio, before, "large");
        assert!(matches!(studio.pool.get("large"), Err(pool::Error::NotFound { .. })));
    }
    assert_eq!(resident.blob("text"), Some(b"stays".as_slice()));

    // With enough room, the same source is saved.
    let studio = Studio::new(16 * MIB);
    studio.save_and_compare(&source.pause(), "large");
}

/// A pool that has room for all of memory, but not for the state that comes after it.
#[test]
fn a_pool_that_is_full_just_before_the_end() {
    let Some(_room) = room_for(1) else { return };
    let source = incompressible();
    let measure = Studio::new(32 * MIB);
    for missing in [1, 1 << 14, 1 << 20] {
        let studio = Studio::new(16 * MIB);
        // In one pause: the guest would change what it takes.
        let paused = source.pause();
        let needed = measure.save(&paused, "measure").occupied_bytes();
        measure.pool.remove("measure").unwrap();
        // Leaves a little less than what is needed.
        let filler = studio.pool.reserve("filler").unwrap();
        let filler_bytes = studio.pool.capacity_bytes() - needed + missing;
        filler.put_blob("filler", &vec![0x55; filler_bytes]).unwrap();
        let _filler = filler.publish();
        let before = studio.pool.stats();
        let error = studio.try_save(&paused, "late", &SaveOptions::default()).unwrap_err();
        drop(paused);
        assert!(matches!(error, Failed::Save(save::Error::Pool(pool::Error::Full { .. }))), "{error:?}");
        assert_undone(&source, &studio, before, "late");
    }
}

#[test]
fn a_name_that_is_taken() {
    let Some(_room) = room_for(1) else { return };
    let source = incompressible();
    let studio = Studio::new(32 * MIB);
    let snapshot = studio.snapshot(&source, "name");
    let before = studio.pool.stats();
    let error = studio.try_save(&source.pause(), "name", &SaveOptions::default()).unwrap_err();
    assert!(
        matches!(&error, Failed::Save(save::Error::Pool(pool::Error::NameTaken { name })) if name == "name"),
        "{error:?}"
    );
    assert_undone(&source, &studio, before, "other");
    studio.memory(&snapshot);
}

#[test]
fn a_save_that_is_cancelled() {
    let Some(_room) = room_for(1) else { return };
    let source = incompressible();
    let studio = Studio::new(32 * MIB);
    let before = studio.pool.stats();
    // Cancelled before it begins.
    let cancel = Cancel::new();
    cancel.cancel();
    let options = SaveOptions::default().cancel(&cancel);
    let error = studio.try_save(&source.pause(), "cancelled", &options).unwrap_err();
    assert!(matches!(error, Failed::Save(save::Error::Cancelled)), "{error:?}");
    assert_undone(&source, &studio, before, "cancelled");

    // Cancelled in the middle: as soon as the first chunk is done.
    let (progress, cancel) = (Progress::default(), Cancel::new());
    let options = SaveOptions::default().progress(&progress).cancel(&cancel);
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            while progress.done_bytes() == 0 && !cancel.is_cancelled() {
                std::hint::spin_loop();
            }
            cancel.cancel();
        });
        let result = studio.try_save(&source.pause(), "cancelled", &options);
        cancel.cancel();
        result
    });
    match result {
        Err(error) => {
            assert!(matches!(error, Failed::Save(save::Error::Cancelled)), "{error:?}");
            assert_undone(&source, &studio, before, "cancelled");
        }
        // The machine was so busy that the save was done before it was cancelled: then it must be whole.
        Ok(saved) => drop(studio.memory(&saved.snapshot)),
    }
}

#[test]
fn a_restore_that_is_cancelled() {
    let Some(_room) = room_for(1) else { return };
    let source = incompressible();
    let studio = Studio::new(32 * MIB);
    let snapshot = studio.snapshot(&source, "whole");
    let before = studio.pool.stats();
    let cancel = Cancel::new();
    cancel.cancel();
    let watch = Watch::default().cancel(&cancel);
    let backing = Backing::Private(PageSize::Base);
    let error = studio.restorer.eager(&snapshot, backing, watch).unwrap_err();
    assert!(matches!(error, eager::Error::Cancelled), "{error:?}");
    assert_eq!(studio.pool.stats(), before);
    studio.memory(&snapshot);
}

#[test]
fn a_restore_without_enough_huge_pages() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&Params::new(1, MIB), 8 * MIB, 1));
    source.line("pulse: ready");
    let snapshot = studio.snapshot(&source, "whole");
    let backing = Backing::Private(PageSize::Huge);
    let error = studio.restorer.eager(&snapshot, backing, Watch::default()).unwrap_err();
    let eager::Error::Memory(vmm::memory::Error::TooFewHugePages { wanted: 4, free: 0 }) = error else {
        panic!("{error:?}")
    };
    assert_names(&error, &["4 free 2 MiB pages", "0 are free", "nr_hugepages"]);
    studio.memory(&snapshot);
    huge.assert_all_back();
}

#[test]
fn a_pool_without_enough_huge_pages() {
    let Some(huge) = huge_pages(0) else { return };
    let capacity_bytes = 8 << 20;
    let config = PoolConfig { capacity_bytes, pages: PoolPages::Huge, populate: Populate::OnFirstUse };
    let error = Pool::new(&config).unwrap_err();
    let pool::Error::TooFewHugePages(shortage) = &error else { panic!("{error:?}") };
    assert_eq!((shortage.wanted, shortage.available), (4, 0));
    assert_names(&error, &["4 huge pages", "0 of the host's", "nr_hugepages"]);
    // Nor does the pool fall back by itself: `provide` does.
    Pool::new(&PoolConfig { pages: PoolPages::Ordinary, ..config }).unwrap();
    huge.assert_all_back();
}
