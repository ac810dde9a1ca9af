//! Tests the allocator against a bitmap that is simple enough to trust, and the check against books that are wrong.

use std::time::Instant;

use proptest::prelude::*;

use super::super::check::check;
use super::super::extents::{Extent, Promise};
use super::*;
use crate::sys::arena::Span;
use vmm::memory::PageSize;

fn extents(len_bytes: usize) -> Arc<Extents> {
    Extents::new(Span::map(len_bytes, PageSize::Base).unwrap())
}

#[derive(Debug, Clone)]
enum Step {
    Promise { bytes: usize },
    BreakPromise { which: prop::sample::Index },
    Store { through: prop::sample::Index, len_bytes: usize },
    Free { which: prop::sample::Index },
}

fn any_step() -> impl Strategy<Value = Step> {
    let any = any::<prop::sample::Index>;
    let len_bytes = prop_oneof![3 => 0..200_usize, 3 => 200..5_000_usize, 1 => 5_000..70_000_usize];
    prop_oneof![
        1 => (0..20_000_usize).prop_map(|bytes| Step::Promise { bytes }),
        1 => any().prop_map(|which| Step::BreakPromise { which }),
        8 => (any(), len_bytes).prop_map(|(through, len_bytes)| Step::Store { through, len_bytes }),
        6 => any().prop_map(|which| Step::Free { which }),
    ]
}

const CAPACITY: usize = 64 << 10;

/// What the allocator should do, as one bool per granule and one number per promise.
#[derive(Default)]
struct Model {
    used: Vec<bool>,
    promised: Vec<usize>,
}

impl Model {
    fn free_bytes(&self) -> usize {
        self.used.iter().filter(|&&used| !used).count() * GRANULE
    }

    fn largest_free_bytes(&self) -> usize {
        let runs = self.used.split(|&used| used);
        runs.map(<[bool]>::len).max().unwrap_or(0) * GRANULE
    }

    fn promised_bytes(&self) -> usize {
        self.promised.iter().sum()
    }

    /// Marks the granules of an extent as `used`. Until now, each of them must be `!used`.
    fn mark(&mut self, extent: &Extent, used: bool) {
        let granules = extent.start() / GRANULE..(extent.start() + extent.occupied_bytes()) / GRANULE;
        for granule in &mut self.used[granules] {
            assert_eq!(*granule, !used);
            *granule = used;
        }
    }
}

fn run(steps: Vec<Step>) {
    let extents = extents(CAPACITY);
    let mut model = Model { used: vec![false; CAPACITY / GRANULE], promised: vec![0] };
    let mut promises: Vec<Promise> = vec![extents.promise(0).unwrap()];
    let mut live: Vec<(Extent, Vec<u8>)> = Vec::new();

    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Promise { bytes } => {
                let bytes = bytes.next_multiple_of(GRANULE);
                let fits = model.promised_bytes() + bytes <= model.free_bytes();
                let promise = extents.promise(bytes);
                assert_eq!(promise.is_ok(), fits);
                if let Ok(promise) = promise {
                    promises.push(promise);
                    model.promised.push(bytes);
                }
            }
            Step::BreakPromise { which } => {
                // The first promise, of nothing, stays, so that there is always one to store through.
                if promises.len() > 1 {
                    let which = 1 + which.index(promises.len() - 1);
                    promises.swap_remove(which);
                    model.promised.swap_remove(which);
                }
            }
            Step::Store { through, len_bytes } => {
                let through = through.index(promises.len());
                let occupied = len_bytes.next_multiple_of(GRANULE).max(GRANULE);
                let own = model.promised[through];
                let allowed = model.free_bytes() - model.promised_bytes() + own;
                let bytes = vec![number.to_le_bytes()[0]; len_bytes];
                match promises[through].store(&bytes) {
                    Ok(extent) => {
                        assert!(occupied <= allowed);
                        assert_eq!(extent.occupied_bytes(), occupied);
                        model.mark(&extent, true);
                        model.promised[through] -= own.min(occupied);
                        live.push((extent, bytes));
                    }
                    Err(error) => {
                        let largest = model.largest_free_bytes();
                        assert!(occupied > allowed || occupied > largest, "{error}");
                        let told = Error::Full {
                            wanted_bytes: occupied,
                            free_bytes: allowed,
                            capacity_bytes: CAPACITY,
                            largest_free_bytes: largest,
                        };
                        assert_eq!(error.to_string(), told.to_string());
                    }
                }
            }
            Step::Free { which } => {
                if !live.is_empty() {
                    let (extent, bytes) = live.swap_remove(which.index(live.len()));
                    assert_eq!(extent.bytes(), bytes);
                    model.mark(&extent, false);
                }
            }
        }
        let report = check(&extents, &[]).unwrap();
        assert!(report.free_ranges <= report.extents + 1);
        let stats = extents.stats(0);
        assert_eq!(stats.used_bytes + stats.free_bytes, CAPACITY);
        assert_eq!(stats.free_bytes, model.free_bytes());
        assert_eq!(stats.largest_free_bytes, model.largest_free_bytes());
        assert_eq!(stats.promised_bytes, model.promised_bytes());
        assert_eq!((stats.extents, report.extents), (live.len(), live.len()));
    }

    for (extent, bytes) in &live {
        assert_eq!(extent.bytes(), bytes);
    }
    drop((live, promises));
    let stats = extents.stats(0);
    assert_eq!((stats.largest_free_bytes, stats.promised_bytes, stats.extents), (CAPACITY, 0, 0));
}

proptest! {
    #[test]
    fn extents_are_those_of_a_bitmap(steps in prop::collection::vec(any_step(), 1..300)) {
        run(steps);
    }
}

/// Replaces snapshots of mixed chunks at random in a pool that is always filled to the brim, and measures how full it
/// is whenever a chunk finds no place.
#[test]
fn snapshots_that_come_and_go_leave_room() {
    const CAPACITY: usize = 256 << 20;
    let extents = extents(CAPACITY);
    let promise = extents.promise(0).unwrap();
    let mut seed = 1_u64;
    let mut below = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % bound
    };
    let mut snapshots: Vec<Vec<Span>> = Vec::new();
    let mut fill_when_full: Vec<f64> = Vec::new();
    while fill_when_full.len() < 2_000 {
        let chunks = 8 + below(24);
        let mut snapshot = Vec::new();
        let full = (0..chunks).any(|_| {
            let len_bytes = match below(10) {
                0..5 => 20 + below(100),
                5..9 => 20_000 + below(1_000_000),
                _ => (2 << 20) + below(5_000),
            };
            promise.take(len_bytes.next_multiple_of(GRANULE)).map(|span| snapshot.push(span)).is_err()
        });
        if full {
            let used = extents.stats(0).used_bytes;
            fill_when_full.push(used as f64 / CAPACITY as f64);
            let victim = snapshots.swap_remove(below(snapshots.len()));
            victim.into_iter().chain(snapshot).for_each(|span| extents.give_back(span));
        } else {
            snapshots.push(snapshot);
        }
    }
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let quarters: Vec<f64> = fill_when_full.chunks(500).map(mean).collect();
    let worst = fill_when_full.iter().copied().fold(1.0, f64::min);
    println!("full at {quarters:.3?} of the capacity, at worst {worst:.3}");
    assert!(quarters.iter().all(|&quarter| quarter > 0.9), "{quarters:?}");
    assert!(quarters[3] > quarters[1] - 0.02, "fragmentation grows: {quarters:?}");
    assert!(worst > 0.75, "{worst}");
    check(&extents, &[]).unwrap();
}

#[test]
fn a_put_is_dominated_by_its_copy() {
    const BATCHES: u32 = 20;
    const BATCH: u32 = 100;
    let extents = extents(64 << 20);
    let promise = extents.promise(0).unwrap();
    // Makes a few hundred holes, so that the maps are as deep as in a pool in use.
    let mut holes: Vec<_> = (0..1_000).map(|_| Some(promise.store(&[0; 64]).unwrap())).collect();
    holes.iter_mut().step_by(2).for_each(|hole| *hole = None);
    // Takes the best of many batches, because the others were interrupted.
    let time = |bytes: &[u8]| {
        let batch = |_| {
            let start = Instant::now();
            (0..BATCH).for_each(|_| drop(promise.store(bytes).unwrap()));
            start.elapsed() / BATCH
        };
        (0..BATCHES).map(batch).min().unwrap()
    };
    let (books, with_copy) = (time(&[1; 128]), time(&vec![1; 1 << 20]));
    println!("put and drop: {books:?} for 128 bytes, {with_copy:?} for 1 MiB");
    assert!(books * 5 < with_copy, "{books:?} of {with_copy:?}");
}

#[test]
fn the_check_sees_books_that_are_wrong() {
    let pool = pool(2);
    let reservation = pool.reserve("a").unwrap();
    reservation.put_chunk(id(0), &[1; 64]).unwrap();
    reservation.put_chunk(id(1), &[1; 128]).unwrap();
    let _stored = reservation.publish();
    let good = pool.check().unwrap();
    let good_report = CheckReport {
        extents: 2,
        used_bytes: 192,
        free_ranges: 1,
        free_bytes: (2 << 20) - 192,
        snapshots: 1,
    };
    assert_eq!(good, good_report);
    let free_bytes = good.free_bytes;

    let gap = pool.extents.lock().live.remove(&64).unwrap();
    assert_eq!(pool.check(), Err(Inconsistency::NotTiled { expected: 64, found: 192 }));
    pool.extents.lock().live.insert(64, gap + 64);
    assert_eq!(pool.check(), Err(Inconsistency::NotTiled { expected: 256, found: 192 }));
    pool.extents.lock().live.insert(64, gap);
    pool.extents.lock().live.insert(2 << 20, 64);
    assert_eq!(pool.check(), Err(Inconsistency::NotTiled { expected: 0x20_0040, found: 0x20_0000 }));
    pool.extents.lock().live.remove(&(2 << 20));

    pool.extents.lock().live_bytes += 64;
    assert_eq!(pool.check(), Err(Inconsistency::Total { what: "used", booked: 256, counted: 192 }));
    pool.extents.lock().live_bytes -= 64;

    pool.extents.lock().promised_bytes = free_bytes + 64;
    let overpromised = Inconsistency::Overpromised { promised_bytes: free_bytes + 64, free_bytes };
    assert_eq!(pool.check(), Err(overpromised));
    pool.extents.lock().promised_bytes = 0;

    // Books both extents as one: the arena is still tiled.
    pool.extents.lock().live.remove(&64);
    pool.extents.lock().live.insert(0, 192);
    let name = "a".to_owned();
    assert_eq!(pool.check(), Err(Inconsistency::NotLive { name, start: 0, occupied_bytes: 64 }));
    pool.extents.lock().live.insert(0, 64);
    pool.extents.lock().live.insert(64, 128);
    assert_eq!(pool.check(), Ok(good));
}
