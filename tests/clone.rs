//! A clone has its source's memory and goes on where the source was; the source goes on as if nothing had happened.

use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use cloner::pool::{PoolBacking, PoolPages, Populate};
use cloner::progress::{Progress, Watch};
use cloner::restore::eager::{self, Restored};
use cloner::save::{SaveOptions, Saved};
use cloner_testing::folder::Folder;
use cloner_testing::linux::milliseconds;
use cloner_testing::{Guest, Studio, guest, huge_pages, note, room_for, value};
use guest_images::pulse::{DirtyRate, DirtyWork, Mix, Params, Status, Work, WriteOrder, check};
use vmm::memory::{Backing, GuestMemory, PageSize};
use vmm::{Announce, Config};

use crate::{GIB, KIB, MIB};

const NONCE: u64 = 0xfeed_f00d_0bad_cafe;
const IN_STATUS: Announce = Announce::InMemory { address: Status::IDENTITY };

/// Asserts that every beat of a guest follows the one before, and returns the first.
#[track_caller]
fn first_of_consecutive(beats: &[u64]) -> u64 {
    for pair in beats.windows(2) {
        assert_eq!(pair[1], pair[0] + 1, "{beats:?}");
    }
    beats[0]
}

/// A clone of a clone of a clone has the right memory, nonce, beats, checksum and identity.
#[test]
fn three_generations_of_pulse() {
    let Some(_room) = room_for(2) else { return };
    for vcpus in [1, 4] {
        let params = Params { beat_ms: 20, ..Params::new(NONCE, 16 * MIB) };
        let studio = Studio::new(64 * MIB);
        let mut source = Guest::boot(&guest::pulse(&params, 24 * MIB, vcpus));
        source.line("pulse: ready");
        source.beat();
        for generation in 1..=3 {
            let (snapshot, memory) =
                studio.save_and_compare(&source.pause(), &format!("generation-{generation}"));
            guest::verify(&params, &memory);
            let beats = guest::status(&memory).beats;

            let clone = Guest::restore(snapshot.state(), memory);
            let id = clone.tell(IN_STATUS).id;
            clone.vm.start();
            // The clone learns that it is one, then goes on.
            let line = clone.line("pulse: clone").text;
            assert_eq!(line, format!("pulse: clone generation={generation} id={id:032x}"));
            assert_eq!(clone.nonce(), NONCE);
            assert_eq!(clone.sum(), check::expected_sum(&params));
            clone.beat();
            let first = first_of_consecutive(&clone.beats());
            // One more if the pause fell into the middle of a line, whose rest is not recognised as a beat.
            assert!((beats..=beats + 2).contains(&first), "{beats} beats at the pause, then {first}");
            assert!(!clone.console.transcript().contains("ready"), "{}", clone.console.transcript());

            // The source has neither lost a beat nor counted one twice, and its memory is intact.
            let before = *source.beats().last().unwrap();
            while source.beat() <= before + 2 {}
            first_of_consecutive(&source.beats());
            assert_eq!(source.nonce(), NONCE);
            assert_eq!(source.sum(), check::expected_sum(&params));
            assert_eq!(guest::status(source.vm.memory()).generation, generation - 1);
            source = clone;
        }
        studio.check();
    }
}

/// The counter that a guest reports never goes back, however often the guest is paused and saved.
#[test]
fn the_source_never_goes_back_and_its_pause_is_short() {
    let Some(_room) = room_for(1) else { return };
    const SAVES: usize = 10;
    for backing in [Backing::Private(PageSize::Transparent), Backing::Shared(PageSize::Base)] {
        let params = Params { beat_ms: 10, ..Params::new(NONCE, 32 * MIB) };
        let studio = Studio::new(64 * MIB);
        let source = Guest::boot(&Config { backing: backing.clone(), ..guest::pulse(&params, 64 * MIB, 1) });
        source.line("pulse: ready");
        let mut last = 0;
        let mut pauses = Vec::new();
        for save in 0..SAVES {
            source.send("n");
            let counter = value(&source.line("pulse: nonce=").text, "counter", 10);
            assert!(counter >= last, "{counter} after {last}");
            last = counter;
            let paused = source.pause();
            let snapshot = studio.save(&paused, &format!("save-{save}"));
            pauses.push(milliseconds(paused.resume()));
            studio.pool.remove(snapshot.name()).unwrap();
        }
        let beats = source.beats();
        while source.beat() <= beats.last().unwrap() + 2 {}
        assert_eq!(first_of_consecutive(&source.beats()), 1);
        pauses.sort_by(f64::total_cmp);
        let (least, median, most) = (pauses[0], pauses[SAVES / 2], pauses[SAVES - 1]);
        note(format_args!(
            "pulse, 32 MiB touched, {backing}: paused {least:.1} ms at least, {median:.1} median, {most:.1} at most"
        ));
        // About 20 ms on the development machine. The limit only catches mistakes, such as reading untouched memory.
        assert!(median < 2000.0, "{pauses:?} ms");
    }
}

/// The time a source is paused depends on the memory it has touched, not on the memory it has.
#[test]
fn a_larger_guest_takes_no_longer_to_save() {
    let Some(_room) = room_for(2) else { return };
    const TOUCHED_BYTES: u64 = 64 * MIB;
    let params = Params { beat_ms: 0, ..Params::new(NONCE, TOUCHED_BYTES) };
    let studio = Studio::new(64 * MIB);
    let sources = [GIB, 4 * GIB].map(|memory_bytes| {
        let source = Guest::boot(&guest::pulse(&params, memory_bytes, 1));
        source.line("pulse: ready");
        source
    });
    // The two take turns and the best time of each counts, because other tests run meanwhile.
    let mut best = [f64::INFINITY; 2];
    for _ in 0..10 {
        for (source, best) in sources.iter().zip(&mut best) {
            let paused = source.pause();
            let Saved { snapshot, report } =
                studio.try_save(&paused, "large", &SaveOptions::default()).unwrap();
            *best = best.min(milliseconds(paused.resume()));
            // The filled memory, the image and the boot structures, in whole huge pages.
            assert!((TOUCHED_BYTES..TOUCHED_BYTES + 8 * MIB).contains(&report.touched_bytes), "{report:?}");
            studio.pool.remove(snapshot.name()).unwrap();
        }
    }
    note(format_args!(
        "pulse, 64 MiB touched: paused {:.1} ms of 1 GiB, {:.1} ms of 4 GiB",
        best[0], best[1]
    ));
    assert!(best[1] <= 1.5 * best[0], "{best:?} ms");
}

/// What is typed while the source is paused is neither lost nor part of the snapshot.
#[test]
fn typing_waits_while_the_source_stands_still() {
    let Some(_room) = room_for(2) else { return };
    let params = Params { beat_ms: 0, ..Params::new(NONCE, 0) };
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&params, MIB, 1));
    source.line("pulse: ready");
    let paused = source.pause();
    source.send("nn");
    let snapshot = studio.save(&paused, "typed");
    assert!(snapshot.state().get().devices.serial.receive_fifo.is_empty());
    drop(paused);
    source.line("pulse: nonce=");
    source.line("pulse: nonce=");
    let clone = studio.clone_of(&snapshot);
    clone.send("s");
    assert_eq!(clone.line("pulse: ").text, source_sum(&params));
}

/// As long as a guard lives the machine stays paused, whatever other thread pauses it.
#[test]
fn pauses_take_turns() {
    let Some(_room) = room_for(1) else { return };
    let source = Guest::boot(&guest::pulse(&Params { beat_ms: 10, ..Params::new(NONCE, 0) }, MIB, 1));
    source.line("pulse: ready");
    let first = source.pause();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let second = scope.spawn(|| {
            let _second = source.pause();
            over.load(Ordering::Relaxed)
        });
        let beats = guest::status(first.memory()).beats;
        thread::sleep(Duration::from_millis(100));
        assert_eq!(guest::status(first.memory()).beats, beats);
        over.store(true, Ordering::Relaxed);
        drop(first);
        assert!(second.join().unwrap(), "two pauses existed at the same time");
    });
    source.beat();
}

/// The line with which `pulse` answers `s`.
fn source_sum(params: &Params) -> String {
    format!("pulse: sum={:016x}", check::expected_sum(params))
}

fn dirtying(order: WriteOrder, words_per_page: u16) -> Params {
    let work = Work::Dirty(DirtyWork { rate: DirtyRate::FullSpeed, working_set: 500, order, words_per_page });
    let mix = Mix { zero: 200, fill: 200, duplicate: 200, structured: 200, random: 200 };
    Params { beat_ms: 0, mix, work, ..Params::new(NONCE, 8 * MIB) }
}

/// Every word of memory is of the instant of the pause, though all vCPUs write as fast as they can; the clone, which
/// goes on in the middle of a write, leaves memory as consistent.
#[test]
fn memory_is_of_one_instant_while_the_guest_writes() {
    let Some(_room) = room_for(2) else { return };
    for vcpus in [1, 4] {
        for (order, words) in [(WriteOrder::Random, 512), (WriteOrder::Sequential, 8)] {
            let params = dirtying(order, words);
            let studio = Studio::new(64 * MIB);
            let mut source = Guest::boot(&guest::pulse(&params, 12 * MIB, vcpus));
            source.line("pulse: ready");
            for generation in 1..=3 {
                wait_for_writes(&source, 2 * params.working_set_pages());
                let (snapshot, memory) =
                    studio.save_and_compare(&source.pause(), &format!("generation-{generation}"));
                guest::verify(&params, &memory);
                let before = guest::status(&memory);

                let clone = Guest::resume(snapshot.state(), memory);
                wait_for_writes(&clone, params.working_set_pages());
                let paused = clone.pause();
                guest::verify(&params, paused.memory());
                let after = guest::status(paused.memory());
                for (before, after) in before.cpus.iter().zip(&after.cpus) {
                    assert!(after.sequence > before.sequence, "{before:?} {after:?}");
                }
                drop(paused);
                guest::verify(&params, source.pause().memory());
                source = clone;
            }
        }
    }
}

/// Waits until the vCPUs together have written `pages` more pages, and each vCPU some of them.
fn wait_for_writes(guest: &Guest, pages: u64) {
    let now = || guest::status(guest.vm.memory()).cpus;
    let start = now();
    let each = pages / start.len() as u64;
    while now().iter().zip(&start).any(|(now, start)| now.sequence < start.sequence + each) {
        assert_eq!(guest.vm.ending(), None, "{}", guest.console.transcript());
        thread::yield_now();
    }
}

#[test]
fn the_comparison_of_memories_finds_a_single_changed_bit() {
    let Some(_room) = room_for(1) else { return };
    let params = Params { beat_ms: 0, ..Params::new(NONCE, 4 * MIB) };
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&params, 8 * MIB, 1));
    source.line("pulse: ready");
    let paused = source.pause();
    let (_, memory) = studio.save_and_compare(&paused, "whole");
    // In a filled page, in a page that neither side has touched, and in the very last byte.
    for address in [2 * MIB + 4095, 7 * MIB, 8 * MIB - 1] {
        let mut byte = [0];
        memory.read(address, &mut byte).unwrap();
        memory.write(address, &[byte[0] ^ 0x10]).unwrap();
        let found = studio.comparer.first_difference(paused.memory(), &memory).unwrap();
        assert_eq!(found, Some(address & !4095));
        memory.write(address, &byte).unwrap();
    }
    assert_eq!(studio.comparer.first_difference(paused.memory(), &memory).unwrap(), None);
}

/// Memory above 4 GiB, and a short last chunk on either side of the gap.
#[test]
fn memory_above_the_gap_is_cloned() {
    let Some(_room) = room_for(2) else { return };
    let params = Params { beat_ms: 20, ..Params::new(NONCE, MIB) };
    for memory_bytes in [5 * GIB, 3 * GIB + 12 * KIB] {
        let studio = Studio::new(32 * MIB);
        let source = Guest::boot(&guest::pulse(&params, memory_bytes, 1));
        source.line("pulse: ready");
        let high_bytes = memory_bytes - 3 * GIB;
        let marks = [3 * GIB - 8, 4 * GIB, 4 * GIB + high_bytes / 2, 4 * GIB + high_bytes - 8];
        for mark in marks {
            source.vm.memory().write(mark, &mark.to_le_bytes()).unwrap();
        }
        let (snapshot, memory) = studio.save_and_compare(&source.pause(), "high");
        for mark in marks {
            let mut bytes = [0; 8];
            memory.read(mark, &mut bytes).unwrap();
            assert_eq!(u64::from_le_bytes(bytes), mark);
        }
        let clone = Guest::resume(snapshot.state(), memory);
        assert_eq!(clone.nonce(), NONCE);
        clone.beat();
    }
}

/// Clones from each kind of source memory to each kind of target memory, through a pool of huge pages; all pages go back.
#[test]
fn every_kind_of_memory_is_cloned_through_huge_pages() {
    let Some(_room) = room_for(2) else { return };
    const MEMORY_BYTES: u64 = 8 * MIB;
    const POOL_BYTES: u64 = 16 * MIB;
    // A source and a target, each counted twice: pages come back some time after a guest has ended.
    let pages = usize::try_from((POOL_BYTES + 4 * MEMORY_BYTES) / (2 * MIB)).unwrap();
    let Some(huge) = huge_pages(pages) else { return };
    let studio = Studio::with_pool(POOL_BYTES, PoolPages::Huge, Populate::AtOnce);
    assert_eq!(studio.pool.backing(), PoolBacking::Huge { pages: 8 });
    let params = Params { beat_ms: 20, ..Params::new(NONCE, 4 * MIB) };
    for pages in [PageSize::Base, PageSize::Transparent, PageSize::Huge] {
        for backing in [Backing::Private(pages), Backing::Shared(pages)] {
            let source =
                Guest::boot(&Config { backing: backing.clone(), ..guest::pulse(&params, MEMORY_BYTES, 1) });
            source.line("pulse: ready");
            let paused = source.pause();
            let snapshot = studio.save(&paused, "any");
            let progress = Progress::default();
            let watch = Watch::default().progress(&progress);
            let Restored { memory, report } =
                studio.restorer.eager(&snapshot, backing.clone(), watch).unwrap();
            assert_eq!(
                studio.comparer.first_difference(paused.memory(), &memory).unwrap(),
                None,
                "{backing}"
            );
            assert_eq!(
                (progress.done_bytes(), progress.total_bytes()),
                (report.decoded_bytes, report.decoded_bytes)
            );
            drop(paused);
            let clone = Guest::resume(snapshot.state(), memory);
            assert_eq!((clone.nonce(), clone.sum()), (NONCE, check::expected_sum(&params)), "{backing}");
            studio.pool.remove(snapshot.name()).unwrap();
        }
    }
    studio.check();
    drop(studio);
    huge.assert_all_back();
}

/// Two guests on private memory over one file: each sees the template, and neither sees the other's writes.
#[test]
fn clones_run_over_one_template() {
    let Some(_room) = room_for(3) else { return };
    const MEMORY_BYTES: u64 = 8 * MIB;
    let params = Params { beat_ms: 0, ..Params::new(NONCE, 4 * MIB) };
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&params, MEMORY_BYTES, 1));
    source.line("pulse: ready");
    let (snapshot, memory) = studio.save_and_compare(&source.pause(), "template");
    let mut content = vec![0; usize::try_from(MEMORY_BYTES).unwrap()];
    memory.read(0, &mut content).unwrap();
    let folder = Folder::new();
    let path = folder.file("template", &content);
    let template = Arc::new(fs::File::open(&path).unwrap());

    let over =
        || GuestMemory::new(snapshot.state().layout(), Backing::OverTemplate(Arc::clone(&template))).unwrap();
    let clones: Vec<Guest> = (1..=2)
        .map(|_| {
            let own = over();
            assert_eq!(studio.comparer.first_difference(&memory, &own).unwrap(), None);
            let clone = Guest::restore(snapshot.state(), own);
            clone.tell(IN_STATUS);
            clone.vm.start();
            clone
        })
        .collect();
    for clone in &clones {
        assert_eq!(value(&clone.line("pulse: clone").text, "generation", 10), 1);
        assert_eq!((clone.nonce(), clone.sum()), (NONCE, check::expected_sum(&params)));
    }
    assert!(fs::read(&path).unwrap() == content, "a clone has written to the template");

    // A clone of such a clone: its untouched pages come from the template, and are still part of it.
    let (snapshot, memory) = studio.save_and_compare(&clones[0].pause(), "of-a-fork");
    assert_eq!(Guest::resume(snapshot.state(), memory).sum(), check::expected_sum(&params));
}

/// A template may be shared, so an eager restore does not write to it.
#[test]
fn an_eager_restore_into_a_template_is_refused() {
    let Some(_room) = room_for(1) else { return };
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&Params::new(NONCE, 0), MIB, 1));
    source.line("pulse: ready");
    let snapshot = studio.snapshot(&source, "any");
    let folder = Folder::new();
    let path = folder.file("template", &vec![0; usize::try_from(MIB).unwrap()]);
    let backing = Backing::OverTemplate(Arc::new(fs::File::open(path).unwrap()));
    let error = studio.restorer.eager(&snapshot, backing, Watch::default()).unwrap_err();
    assert!(matches!(error, eager::Error::NotSole(_)), "{error}");
}
