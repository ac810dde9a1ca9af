//! Tests with many threads on one pool.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use super::*;

const THREADS: u64 = 8;
/// The environment variable that says for how many seconds the stress test runs: 60 by hand, a few in CI.
const STRESS_SECONDS: &str = "CLONER_STRESS_SECONDS";

fn run_time() -> Duration {
    let seconds = std::env::var(STRESS_SECONDS).ok().map(|seconds| seconds.parse().unwrap());
    Duration::from_secs(seconds.unwrap_or(2))
}

/// What thread `writer` puts as chunk `index` of its snapshot `round`. A single word of it is enough to recognise it.
fn content(writer: u64, round: u64, index: u32) -> Vec<u8> {
    let word = writer << 48 | round << 16 | u64::from(index);
    let words = 1 + (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 50);
    word.to_le_bytes().repeat(usize::try_from(words).unwrap())
}

#[derive(Default)]
struct Counts {
    published: AtomicUsize,
    full: AtomicUsize,
    abandoned: AtomicUsize,
    read: AtomicUsize,
}

/// Fills one snapshot from this thread. Every eighth is abandoned before it is published.
fn put(pool: &Pool, writer: u64, round: u64, counts: &Counts) {
    let name = format!("{writer}-{}", round % 4);
    let promise_bytes = if round.is_multiple_of(2) { 100_000 } else { 0 };
    // No other thread removes the names of this one.
    let _: Result<(), Error> = pool.remove(&name);
    let fill = || {
        let reservation = pool.reserve_promised(&name, promise_bytes)?;
        for index in 0..20 {
            reservation.put_chunk(id(index), &content(writer, round, index))?;
        }
        reservation.put_blob("round", &round.to_le_bytes())?;
        // Depends on another thread's snapshot, if it is there. Its memory then stays as long as this one's, even if its name goes.
        if let Ok(other) = pool.get(&format!("{}-{}", (writer + 1) % THREADS, round % 4))
            && other.dependencies().is_empty()
        {
            reservation.depend_on(other);
        }
        Ok(reservation)
    };
    match fill() {
        Ok(reservation) if round.is_multiple_of(8) => {
            drop(reservation);
            counts.abandoned.fetch_add(1, Ordering::Relaxed);
        }
        Ok(reservation) => {
            reservation.publish();
            counts.published.fetch_add(1, Ordering::Relaxed);
        }
        Err(Error::Full { .. }) => {
            counts.full.fetch_add(1, Ordering::Relaxed);
        }
        Err(other) => panic!("{other}"),
    }
}

/// Reads another thread's snapshot, which may be removed, and its name reused, meanwhile.
fn read(pool: &Pool, writer: u64, slot: u64, counts: &Counts) {
    let Ok(stored) = pool.get(&format!("{writer}-{slot}")) else { return };
    let round = u64::from_le_bytes(stored.blob("round").unwrap().try_into().unwrap());
    assert_eq!(stored.chunks().len(), 20);
    for chunk in stored.chunks() {
        assert_eq!(chunk.bytes(), content(writer, round, chunk.id().index));
    }
    for shared in stored.dependencies() {
        let writer: u64 = shared.name().split('-').next().unwrap().parse().unwrap();
        let round = u64::from_le_bytes(shared.blob("round").unwrap().try_into().unwrap());
        assert_eq!(shared.chunk(0, 7), Some(&content(writer, round, 7)[..]));
    }
    counts.read.fetch_add(1, Ordering::Relaxed);
}

#[test]
fn eight_threads_put_read_and_remove_under_the_check() {
    let pool = pool(24);
    let (counts, done) = (Counts::default(), AtomicBool::new(false));
    let checks = thread::scope(|scope| {
        for writer in 0..THREADS {
            let (pool, counts, done) = (&pool, &counts, &done);
            scope.spawn(move || {
                let mut round = 0;
                while !done.load(Ordering::Relaxed) {
                    put(pool, writer, round, counts);
                    read(pool, (writer + round) % THREADS, round % 4, counts);
                    round += 1;
                }
            });
        }
        let checker = scope.spawn(|| {
            let mut checks = 0;
            while !done.load(Ordering::Relaxed) {
                pool.check().unwrap();
                checks += 1;
            }
            checks
        });
        thread::sleep(run_time());
        done.store(true, Ordering::Relaxed);
        checker.join().unwrap()
    });

    let Counts { published, full, abandoned, read } = counts;
    let [published, full, abandoned, read] = [published, full, abandoned, read].map(AtomicUsize::into_inner);
    println!(
        "{published} published, {full} found the pool full, {abandoned} abandoned, {read} read, {checks} checks"
    );
    assert!(published > 0 && full > 0 && abandoned > 0 && read > 0 && checks > 0);
    for listing in pool.list() {
        pool.remove(&listing.name).unwrap();
    }
    assert_empty(&pool);
}

#[test]
fn one_reservation_is_filled_by_all_threads_of_rayon() {
    use rayon::prelude::*;

    let pool = pool(64);
    let reservation = pool.reserve_promised("a", 32 << 20).unwrap();
    (0..1_000_u32)
        .into_par_iter()
        .try_for_each(|index| reservation.put_chunk(id(index), &content(1, 2, index)))
        .unwrap();
    let stored = reservation.publish();
    assert_eq!(stored.chunks().len(), 1_000);
    stored.chunks().par_iter().for_each(|chunk| assert_eq!(chunk.bytes(), content(1, 2, chunk.id().index)));
}

#[test]
fn of_many_that_want_a_name_one_gets_it() {
    let pool = pool(2);
    let won = AtomicUsize::new(0);
    let everybody = std::sync::Barrier::new(8);
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                everybody.wait();
                let reservation = pool.reserve_promised("a", 64);
                // Nobody gives up before everybody has tried.
                everybody.wait();
                match reservation {
                    Ok(reservation) => {
                        reservation.publish();
                        won.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) => assert!(matches!(error, Error::NameTaken { .. })),
                }
            });
        }
    });
    assert_eq!(won.into_inner(), 1);
    assert_eq!(pool.list().len(), 1);
}
