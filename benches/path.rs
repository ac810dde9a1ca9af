//! Measures the path of a clone, stage by stage, on a real guest: `pulse` with 64 MiB of its 256 MiB touched.
//!
//! README.md beside this file describes the method and how to read the results.

use cloner::moment::Moment;
use cloner::save::SaveOptions;
use std::io;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use cloner::pool::{PageChoice, Populate, ProvidedPool, provide};
use cloner::progress::Watch;
use cloner::restore::Restorer;
use cloner::save::Saver;
use cloner::walk::Threads;
use cloner_testing::{Guest, guest};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use guest_images::pulse::Params;
use vmm::Vm;
use vmm::memory::{Backing, PageSize};

const MEMORY_BYTES: u64 = 256 << 20;
const TOUCHED_BYTES: u64 = 64 << 20;
const POOL_BYTES: usize = 128 << 20;

/// Passes on each byte of the console.
struct Bytes(mpsc::Sender<u8>);

impl io::Write for Bytes {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for byte in bytes {
            // An error means that the bench has stopped listening.
            let _ = self.0.send(*byte);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn boot() -> Guest {
    let params = Params { beat_ms: 0, ..Params::new(1, TOUCHED_BYTES) };
    let guest = Guest::boot(&guest::pulse(&params, MEMORY_BYTES, 1));
    guest.line("pulse: ready");
    guest
}

fn path(criterion: &mut Criterion) {
    let ProvidedPool { pool, .. } =
        &provide(POOL_BYTES, PageChoice::Auto, Populate::AtOnce).expect("a small pool");
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = Threads::new(threads).expect("threads can be started");
    let (saver, restorer) = (Saver::new(&threads), Restorer::new(&threads));
    let guest = boot();

    let mut group = criterion.benchmark_group("path");
    group.sample_size(20);
    group.throughput(Throughput::Bytes(TOUCHED_BYTES));
    group.bench_function("save (the pause)", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut paused_for = Duration::ZERO;
            for _ in 0..rounds {
                let reservation = pool.reserve("bench").expect("the name is free");
                let paused = guest.pause();
                let moment = Moment::of(&paused).expect("a state");
                let snapshot =
                    saver.save(moment, reservation, &SaveOptions::default()).expect("a save").snapshot;
                paused_for += paused.resume();
                pool.remove(snapshot.name()).expect("it was just saved");
            }
            paused_for
        });
    });

    let reservation = pool.reserve("source").expect("the name is free");
    let paused = guest.pause();
    let moment = Moment::of(&paused).expect("a state");
    let snapshot = saver.save(moment, reservation, &SaveOptions::default()).expect("a save").snapshot;
    paused.resume();
    let backing = || Backing::Private(PageSize::Transparent);
    group.bench_function("restore memory (eager)", |bencher| {
        bencher.iter(|| restorer.eager(&snapshot, backing(), Watch::default()).expect("it is restored"));
    });

    group.throughput(Throughput::Elements(1));
    group.bench_function("build the VM", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut built_in = Duration::ZERO;
            for _ in 0..rounds {
                let memory =
                    restorer.eager(&snapshot, backing(), Watch::default()).expect("it is restored").memory;
                let started = Instant::now();
                let clone = Vm::restore(snapshot.state(), memory, Box::new(io::sink())).expect("it is built");
                built_in += started.elapsed();
                drop(clone);
            }
            built_in
        });
    });
    group.bench_function("request to first output", |bencher| {
        bencher.iter_custom(|rounds| {
            let mut answered_in = Duration::ZERO;
            for _ in 0..rounds {
                let (sender, console) = mpsc::channel();
                let started = Instant::now();
                let memory =
                    restorer.eager(&snapshot, backing(), Watch::default()).expect("it is restored").memory;
                let clone =
                    Vm::restore(snapshot.state(), memory, Box::new(Bytes(sender))).expect("it is built");
                clone.console_input(b"n");
                clone.start();
                console.recv_timeout(Duration::from_secs(60)).expect("a clone answers");
                answered_in += started.elapsed();
                drop(clone);
            }
            answered_in
        });
    });
    group.finish();
}

criterion_group!(benches, path);
criterion_main!(benches);
