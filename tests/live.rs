//! Snapshots of a machine that runs on: they are of one instant, and leave no trace in the machine whatever happens.

use std::fs;
use std::path::PathBuf;
use std::thread;

use cloner::admission::{self, CopyLimits};
use cloner::moment::{self, LiveReport, Moment};
use cloner::progress::Cancel;
use cloner::save::{self, SaveOptions, Saved};
use cloner::snapshot::Snapshot;
use cloner_testing::linux::{linux, milliseconds};
use cloner_testing::modes::only_holder;
use cloner_testing::studio::Failed;
use cloner_testing::{Guest, Studio, assert_names, guest, huge_pages, note, room_for};
use guest_images::pulse::{DirtyRate, DirtyWork, Params, Work, WriteOrder};
use vmm::Config;
use vmm::memory::{Backing, PageSize, ReadError, frozen};

use crate::MIB;

const NONCE: u64 = 0x11fe_11fe_0000_0001;

/// The children of this process that hold memory: they run this program, and have only one descriptor.
fn holders() -> Vec<u32> {
    let tasks = fs::read_dir("/proc/self/task").unwrap();
    let children = tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("children")).ok());
    let program = fs::read_link("/proc/self/exe").unwrap();
    let holds = |pid: &u32| {
        let process = PathBuf::from(format!("/proc/{pid}"));
        fs::read_link(process.join("exe")).is_ok_and(|exe| exe == program)
            && fs::read_dir(process.join("fd")).is_ok_and(|descriptors| descriptors.count() == 1)
    };
    let children: Vec<String> = children.collect();
    children
        .iter()
        .flat_map(|pids| pids.split_whitespace())
        .map(|pid| pid.parse().unwrap())
        .filter(holds)
        .collect()
}

/// Each vCPU writes to its share of all memory as fast as it can, and numbers every write.
fn dirtying(filled_bytes: u64, order: WriteOrder) -> Params {
    let work =
        Work::Dirty(DirtyWork { rate: DirtyRate::FullSpeed, working_set: 1000, order, words_per_page: 8 });
    Params { beat_ms: 20, work, ..Params::new(NONCE, filled_bytes) }
}

fn boot(params: &Params, memory_bytes: u64, vcpus: u8, pages: PageSize) -> Guest {
    let config = Config { backing: Backing::Private(pages), ..guest::pulse(params, memory_bytes, vcpus) };
    let source = Guest::boot(&config);
    source.line("pulse: ready");
    source
}

fn try_save(
    studio: &Studio,
    source: &Guest,
    name: &str,
    limits: CopyLimits,
    options: &SaveOptions<'_>,
) -> Result<(Snapshot, LiveReport), Failed> {
    let reservation = studio.pool.reserve(name).unwrap();
    let Saved { snapshot, report } =
        studio.saver.save(Moment::live(&source.vm, limits)?, reservation, options)?;
    Ok((snapshot, report.live.unwrap()))
}

#[track_caller]
fn save(studio: &Studio, source: &Guest, name: &str) -> (Snapshot, LiveReport) {
    try_save(studio, source, name, CopyLimits::default(), &SaveOptions::default()).unwrap()
}

/// Asserts that the machine beats on, its memory is consistent, and a save has left nothing behind.
#[track_caller]
fn assert_unharmed(studio: &Studio, source: &Guest, params: &Params) {
    assert_eq!(holders(), Vec::<u32>::new());
    assert_eq!(studio.pool.stats().used_bytes, 0);
    studio.check();
    source.beat();
    source.beat();
    guest::verify(params, source.pause().memory());
}

/// Two hundred snapshots with vCPUs that never stop writing: none of them mixes two instants.
#[test]
fn two_hundred_live_snapshots_are_each_of_one_instant() {
    let Some(_room) = room_for(1) else { return };
    let _only = only_holder();
    let mut pauses = Vec::new();
    let mut copied = 0;
    for (vcpus, order, pages) in [
        (1, WriteOrder::Random, PageSize::Transparent),
        (2, WriteOrder::Sequential, PageSize::Transparent),
        (2, WriteOrder::Random, PageSize::Base),
        (4, WriteOrder::Random, PageSize::Transparent),
    ] {
        let params = dirtying(4 * MIB, order);
        let studio = Studio::new(32 * MIB);
        let source = boot(&params, 8 * MIB, vcpus, pages);
        let mut before = vec![0; usize::from(vcpus)];
        for number in 0..50 {
            let name = format!("live-{number}");
            let (snapshot, report) = save(&studio, &source, &name);
            let memory = studio.memory(&snapshot);
            guest::verify(&params, &memory);
            for (before, cpu) in before.iter_mut().zip(&guest::status(&memory).cpus) {
                assert!(cpu.sequence >= *before, "the guest went back");
                *before = cpu.sequence;
            }
            assert!(report.copied_bytes.is_none_or(|bytes| bytes <= report.copy_bound_bytes), "{report:?}");
            pauses.push(milliseconds(report.pause));
            copied += report.copied_bytes.unwrap_or(0);
            studio.pool.remove(&name).unwrap();
        }
        assert_unharmed(&studio, &source, &params);
    }
    assert!(copied > 0, "the kernel copied nothing although the guests never stopped writing");
    pauses.sort_by(f64::total_cmp);
    note(format_args!(
        "live: {} snapshots, paused {:.2} ms median, {:.2} at most",
        pauses.len(),
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    ));
}

/// Live, then live of its clone, then in stop mode, then live again: all modes make the same snapshots.
#[test]
fn generations_in_both_modes() {
    let Some(_room) = room_for(2) else { return };
    let _only = only_holder();
    let params = dirtying(4 * MIB, WriteOrder::Random);
    let studio = Studio::new(32 * MIB);
    let mut source = boot(&params, 8 * MIB, 2, PageSize::Transparent);
    for generation in 0..4 {
        let name = format!("generation-{generation}");
        let snapshot =
            if generation == 2 { studio.snapshot(&source, &name) } else { save(&studio, &source, &name).0 };
        let clone = studio.clone_of(&snapshot);
        assert_eq!(clone.nonce(), NONCE);
        clone.beat();
        guest::verify(&params, clone.pause().memory());
        guest::verify(&params, source.pause().memory());
        source = clone;
    }
}

#[test]
fn only_what_differs_is_saved_against_a_parent() {
    let Some(_room) = room_for(1) else { return };
    let _only = only_holder();
    let params = Params { beat_ms: 20, ..Params::new(NONCE, 8 * MIB) };
    let studio = Studio::new(32 * MIB);
    let source = boot(&params, 12 * MIB, 1, PageSize::Transparent);
    let (parent, _) = save(&studio, &source, "parent");
    let reservation = studio.pool.reserve("child").unwrap();
    let moment = Moment::live(&source.vm, CopyLimits::default()).unwrap();
    let options = SaveOptions::default().parent(&parent);
    let child = studio.saver.save(moment, reservation, &options).unwrap().snapshot;
    assert!(child.occupied_bytes() < parent.occupied_bytes() / 4, "{child:?}");
    guest::verify(&params, &studio.memory(&child));
}

/// Whatever ends a save early, the source does not notice, and the pool is as it was.
#[test]
fn failures_leave_the_source_running_and_the_pool_as_it_was() {
    let Some(_room) = room_for(1) else { return };
    let _only = only_holder();
    let params = dirtying(32 * MIB, WriteOrder::Random);
    let studio = Studio::new(128 * MIB);
    let source = boot(&params, 48 * MIB, 2, PageSize::Transparent);

    // There is no room for copies.
    let limits = CopyLimits { copy_bytes: Some(MIB) };
    let error = try_save(&studio, &source, "limited", limits, &SaveOptions::default()).unwrap_err();
    let refused = |error: &Failed| match error {
        Failed::Moment(moment::Error::Admission(admission::Error::TooLittleMemory {
            needed_bytes,
            available_bytes,
        })) => *needed_bytes >= 32 * MIB && *available_bytes == MIB,
        _ => false,
    };
    assert!(refused(&error), "{error:?}");
    assert_unharmed(&studio, &source, &params);

    // The pool is full half-way through.
    let small = Studio::new(2 * MIB);
    let error =
        try_save(&small, &source, "full", CopyLimits::default(), &SaveOptions::default()).unwrap_err();
    assert!(matches!(error, Failed::Save(save::Error::Pool(_))), "{error:?}");
    assert_unharmed(&small, &source, &params);

    // The save is cancelled before the first chunk is read.
    let cancel = Cancel::new();
    cancel.cancel();
    let options = SaveOptions::default().cancel(&cancel);
    let error = try_save(&studio, &source, "cancelled", CopyLimits::default(), &options).unwrap_err();
    assert!(matches!(error, Failed::Save(save::Error::Cancelled)), "{error:?}");
    assert_unharmed(&studio, &source, &params);

    // The holder is killed, as the kernel's out-of-memory killer might do.
    let mut killed = false;
    for attempt in 0..20 {
        let name = format!("killed-{attempt}");
        let result = thread::scope(|scope| {
            let saving = scope
                .spawn(|| try_save(&studio, &source, &name, CopyLimits::default(), &SaveOptions::default()));
            while !saving.is_finished() {
                if let [holder] = holders()[..] {
                    kill(holder);
                    break;
                }
            }
            saving.join().unwrap()
        });
        match result {
            Err(
                Failed::Save(save::Error::Memory(ReadError::Holder { .. }) | save::Error::Touched(_))
                | Failed::Moment(moment::Error::Freeze(frozen::Error::Pagemap(_))),
            ) => {
                killed = true;
            }
            // The holder was killed after the last page was read.
            Ok((snapshot, _)) => {
                guest::verify(&params, &studio.memory(&snapshot));
                studio.pool.remove(&name).unwrap();
            }
            Err(error) => panic!("{error:?}"),
        }
        assert_unharmed(&studio, &source, &params);
        if killed {
            break;
        }
    }
    assert!(killed, "never killed in time");
}

/// What the source writes meanwhile is copied to further huge pages. If there are none, the kernel takes the old ones away from the
/// holder, whatever was promised when the save began: the snapshot then fails, and never has zeros in their place.
#[test]
fn huge_pages_that_run_out_end_the_snapshot_and_not_the_source() {
    let Some(_room) = room_for(1) else { return };
    const PAGES: usize = 16;
    let Some(huge) = huge_pages(PAGES) else { return };
    {
        let _only = only_holder();
        let params = dirtying(24 * MIB, WriteOrder::Sequential);
        let studio = Studio::new(128 * MIB);
        let source = boot(&params, PAGES as u64 * 2 * MIB, 1, PageSize::Huge);

        // The source has all that are free. When asked beforehand, the host says that it has none left.
        let error =
            try_save(&studio, &source, "asked", CopyLimits::default(), &SaveOptions::default()).unwrap_err();
        let Failed::Moment(moment::Error::Admission(short)) = &error else { panic!("{error:?}") };
        let named = matches!(
            short,
            admission::Error::TooLittleMemory { available_bytes: 0, needed_bytes } if *needed_bytes >= 24 * MIB
        );
        assert!(named, "{error:?}");
        assert_unharmed(&studio, &source, &params);

        // This time the pages are gone only after the question.
        let limits = CopyLimits { copy_bytes: Some(u64::MAX) };
        let mut failed = 0;
        for attempt in 0..20 {
            let name = format!("attempt-{attempt}");
            match try_save(&studio, &source, &name, limits, &SaveOptions::default()) {
                Err(error @ Failed::Save(save::Error::Touched(_))) => {
                    assert_names(&error, &["run out of huge pages"]);
                    failed += 1;
                }
                Err(Failed::Save(save::Error::Memory(ReadError::Holder { .. }))) => failed += 1,
                // All was read before the source wrote again.
                Ok((snapshot, _)) => {
                    guest::verify(&params, &studio.memory(&snapshot));
                    studio.pool.remove(&name).unwrap();
                }
                Err(error) => panic!("{error:?}"),
            }
            assert_unharmed(&studio, &source, &params);
        }
        assert!(failed > 0, "the source never wrote meanwhile");
        note(format_args!("live: without huge pages for copies {failed} of 20 snapshots failed"));
    }
    huge.assert_all_back();
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

#[test]
fn shared_memory_is_refused_by_name() {
    let Some(_room) = room_for(1) else { return };
    let _only = only_holder();
    let params = Params { beat_ms: 20, ..Params::new(NONCE, MIB) };
    let studio = Studio::new(16 * MIB);
    let backing = Backing::Shared(PageSize::Base);
    let source = Guest::boot(&Config { backing, ..guest::pulse(&params, 4 * MIB, 1) });
    source.line("pulse: ready");
    let error =
        try_save(&studio, &source, "shared", CopyLimits::default(), &SaveOptions::default()).unwrap_err();
    assert!(
        matches!(error, Failed::Moment(moment::Error::Freeze(frozen::Error::NotPrivate(_)))),
        "{error:?}"
    );
    assert!(cloner::chain(&error).contains("shared memfd"), "{error:?}");
    assert_unharmed(&studio, &source, &params);
}

/// Linux is frozen between two instructions of its kernel, and goes on from there.
#[test]
fn linux_is_saved_while_it_runs() {
    let Some(_room) = room_for(2) else { return };
    let Some(linux) = linux() else { return };
    let _only = only_holder();
    let source = linux.studio.clone_of(&linux.snapshot);
    source.tick();
    let studio = Studio::new(64 * MIB);
    let before = source.last_tick();
    let (snapshot, report) = save(&studio, &source, "live");
    let after = source.last_tick();
    let clone = studio.clone_of(&snapshot);
    let tick = clone.tick();
    assert_eq!(tick.nonce, linux.nonce);
    // The snapshot is of an instant within the save, however often the source ticked meanwhile: what comes next is the next tick,
    // or the one after it if that instant was in the middle of a line.
    let next = before.number + 1..=after.number + 2;
    assert!(next.contains(&tick.number), "{tick:?}, saved between {before:?} and {after:?}");
    assert_eq!(clone.ask("nonce"), linux.nonce);
    source.tick();
    note(format_args!("live: tiny-linux paused {:.2} ms", milliseconds(report.pause)));
}
