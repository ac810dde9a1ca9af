//! Branches: machines made from running ones, of one instant, and without a trace in their source whatever happens.

mod huge;
mod trouble;

use cloner::save::SaveOptions;
use cloner::save::Saved;
use cloner_testing::linux::{linux, milliseconds};
use cloner_testing::process::{IN_STATUS, PATIENCE, Process, eventually};
use cloner_testing::{Studio, guest, note, room_for, value};
use std::fs;

use cloner::admission::CopyLimits;
use cloner::process::FrozenGuest;
use cloner::process::fork::Zygote;
use cloner::progress::Watch;
use guest_images::pulse::{DirtyRate, DirtyWork, Params, Status, Work, WriteOrder, check, layout};
use vmm::config::Kernel;
use vmm::memory::{Backing, PageSize, StillMemory};
use vmm::{Announce, Config};

use crate::{MIB, PROGRAM, run};

const NONCE: u64 = 0xb2a2_c400_b2a2_c400;

/// Each vCPU writes to its share of all memory as fast as it can, and numbers every write.
fn dirtying(filled_bytes: u64, order: WriteOrder) -> Params {
    let work =
        Work::Dirty(DirtyWork { rate: DirtyRate::FullSpeed, working_set: 1000, order, words_per_page: 8 });
    Params { beat_ms: 20, work, ..Params::new(NONCE, filled_bytes) }
}

fn idle() -> Params {
    Params { beat_ms: 20, ..Params::new(NONCE, 2 * MIB) }
}

#[track_caller]
fn boot(params: &Params, memory_bytes: u64, vcpus: u8, backing: Backing) -> Process {
    let source = Process::boot(PROGRAM, &Config { backing, ..guest::pulse(params, memory_bytes, vcpus) });
    source.line("pulse: ready");
    source
}

fn private() -> Backing {
    Backing::Private(PageSize::Transparent)
}

#[track_caller]
fn freeze(process: &Process) -> FrozenGuest {
    process.vm().freeze(CopyLimits::default()).unwrap().0
}

/// Checks every word of the filled memory of a machine at this instant, and returns the machine's status block.
#[track_caller]
fn verify(params: &Params, process: &Process) -> Status {
    verify_frozen(params, &freeze(process))
}

#[track_caller]
fn verify_frozen(params: &Params, frozen: &FrozenGuest) -> Status {
    let read = |address, buffer: &mut [u8]| frozen.memory().read_guest(address, buffer).unwrap();
    let mut bytes = [0; Status::LEN];
    read(layout::STATUS, &mut bytes);
    let status = Status::from_bytes(&bytes).unwrap();
    check::verify(params, &status, frozen.memory().layout().low_bytes(), read).unwrap();
    status
}

/// The memory of a frozen guest, page by page.
fn pages(frozen: &FrozenGuest) -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (region, range) in frozen.memory().layout().ranges().enumerate() {
        for offset in (0..usize::try_from(range.len_bytes).unwrap()).step_by(4096) {
            let mut page = vec![0; 4096];
            frozen.memory().read(region, offset, &mut page).unwrap();
            all.push(page);
        }
    }
    all
}

/// What a process has open, without the numbers of sockets, pipes and the like.
fn descriptors(process: &Process) -> Vec<String> {
    let folder = fs::read_dir(format!("/proc/{}/fd", process.pid())).unwrap();
    let names = folder.map(|entry| fs::read_link(entry.unwrap().path()).unwrap());
    let mut names: Vec<String> = names
        .map(|name| name.to_string_lossy().split(':').next().unwrap().to_owned())
        .map(|name| if name.ends_with("/pagemap") { String::from("pagemap") } else { name })
        .collect();
    names.sort();
    names
}

/// With vCPUs that never stop writing, no branch mixes two instants and neither side sees what the other writes, in three
/// generations that are all alive.
#[test]
fn branches_are_of_one_instant_and_apart() {
    let Some(_room) = room_for(4) else { return };
    let mut pauses = Vec::new();
    for (vcpus, order, pages) in [
        (1, WriteOrder::Random, PageSize::Transparent),
        (2, WriteOrder::Sequential, PageSize::Base),
        (4, WriteOrder::Random, PageSize::Transparent),
    ] {
        let params = dirtying(4 * MIB, order);
        let mut line = vec![boot(&params, 8 * MIB, vcpus, Backing::Private(pages))];
        for generation in 1..=3 {
            let source = line.last().unwrap();
            let before = verify(&params, source);
            let (branch, report) = source.branch(IN_STATUS);
            assert_eq!(value(&branch.line("pulse: clone"), "generation", 10), generation);
            assert_eq!(branch.identity.generation, generation);
            assert_eq!(branch.nonce(), NONCE);
            assert!(
                !branch.console.transcript().contains("pulse: ready"),
                "the branch has booted instead of going on"
            );
            // A vCPU that had no processor between the two looks has not moved; looked at again, it has.
            eventually(|| {
                let after = verify(&params, &branch);
                let mut pairs = before.cpus.iter().zip(&after.cpus);
                assert!(
                    pairs.clone().all(|(before, after)| after.sequence >= before.sequence),
                    "the branch went back"
                );
                pairs.all(|(before, after)| after.sequence > before.sequence).then_some(())
            });
            assert!(report.pause >= report.fork_time && report.copy_bound_bytes >= 4 * MIB, "{report:?}");
            pauses.push(milliseconds(report.pause));
            line.push(branch);
        }
        for process in &line {
            process.beat();
            verify(&params, process);
        }
        assert_eq!(
            descriptors(&line[1]),
            descriptors(&line[3]),
            "a generation has inherited open files of the one before"
        );
        // The middle of the chain ends; the branches made from it live on.
        line.remove(1).end();
        for process in line {
            verify(&params, &process);
            process.end();
        }
    }
    pauses.sort_by(f64::total_cmp);
    note(format_args!(
        "branch: {} branches, source paused {:.2} ms median, {:.2} at most",
        pauses.len(),
        pauses[pauses.len() / 2],
        pauses[pauses.len() - 1]
    ));
}

/// Two branches of an idle machine are equal in every byte and every register.
#[test]
fn a_branch_begins_as_its_source_stood() {
    let Some(_room) = room_for(1) else { return };
    // mov dx, 0x3f8; mov al, '\n'; out dx, al; again: jmp again, with interrupts off; followed by a megabyte of memory of its own.
    let mut image = vec![0x66, 0xba, 0xf8, 0x03, 0xb0, b'\n', 0xee, 0xeb, 0xfe];
    image.extend((0..MIB / 8).flat_map(|i| i.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()));
    let kernel = Kernel::Flat { image: image.clone().into() };
    let source = Process::boot(PROGRAM, &Config { vcpus: 1, ..Config::new(8 * MIB, kernel) });
    // By then the source's page tables are marked as accessed.
    source.line("");
    let [one, other] = [freeze(&source), freeze(&source)];
    let memory = pages(&one);
    assert_eq!(memory.len(), 2048);
    let at = usize::try_from(layout::LOAD_ADDRESS).unwrap();
    assert!(memory.concat()[at..at + image.len()] == image);
    let differing = |(number, (one, other)): (usize, (&Vec<u8>, &Vec<u8>))| {
        let at = one.iter().zip(other).position(|(one, other)| one != other)?;
        Some(format!("page {number} at {at:#x}: {} and {}", one[at], other[at]))
    };
    let differences: Vec<String> =
        memory.iter().zip(&pages(&other)).enumerate().filter_map(differing).collect();
    assert_eq!(differences, Vec::<String>::new());
    let [one, other] = [&one, &other].map(|frozen| frozen.state().get().clone());
    assert_eq!(one.devices, other.devices);
    assert_eq!(
        (one.vcpus[0].regs.clone(), one.vcpus[0].sregs.clone()),
        (other.vcpus[0].regs.clone(), other.vcpus[0].sregs.clone())
    );
}

/// What one of two branches writes stays its own, whether the other runs or is frozen.
#[test]
fn a_frozen_guest_stays_as_it_is() {
    let Some(_room) = room_for(2) else { return };
    let params = idle();
    let source = boot(&params, 8 * MIB, 2, private());
    let [one, other] = [freeze(&source), freeze(&source)];
    let before = pages(&other);
    let running = Process::of(one.run().unwrap());
    assert_eq!((running.nonce(), running.sum()), (NONCE, check::expected_sum(&params)));
    running.beat();
    source.beat();
    for process in [&running, &source] {
        assert!(pages(&freeze(process)) != before, "a guest that beats writes");
    }
    assert!(pages(&other) == before);
    verify_frozen(&params, &other);
}

/// Boot, freeze, save into the pool, decode, fork, branch, and branch that: every step can follow another.
#[test]
fn generations_of_all_kinds() {
    let Some(_room) = room_for(4) else { return };
    let params = dirtying(4 * MIB, WriteOrder::Random);
    let studio = Studio::new(32 * MIB);
    let source = boot(&params, 8 * MIB, 2, private());
    let frozen = freeze(&source);
    let reservation = studio.pool.reserve("frozen").unwrap();
    let saved = studio.saver.save(frozen.moment(), reservation, &SaveOptions::default());
    let Saved { snapshot, report } = saved.unwrap();
    assert!(report.touched_bytes >= 4 * MIB);
    drop(frozen);
    let memory = studio.memory(&snapshot);
    guest::verify(&params, &memory);

    let template = studio.restorer.template(&snapshot, Watch::default()).unwrap();
    let zygote = Zygote::start(PROGRAM.path(), &template).unwrap();
    let fork = Process::of(zygote.fork(Announce::Never).unwrap());
    let (branch, _) = fork.branch(IN_STATUS);
    let (grandchild, _) = branch.branch(IN_STATUS);
    drop(zygote);
    fork.end();
    assert_eq!(value(&grandchild.line("pulse: clone"), "generation", 10), 3);
    for process in [&source, &branch, &grandchild] {
        assert_eq!(process.nonce(), NONCE);
        verify(&params, process);
    }
}

/// Linux is branched between two instructions of its kernel: both sides go on from there, and neither sees what the other is told.
#[test]
fn linux_branches() {
    let Some(_room) = room_for(3) else { return };
    let Some(linux) = linux() else { return };
    let template = linux.studio.restorer.template(&linux.snapshot, Watch::default()).unwrap();
    let zygote = Zygote::start(PROGRAM.path(), &template).unwrap();
    let source = Process::of(zygote.fork(Announce::Never).unwrap());
    source.line("tick ");
    let (branch, report) = source.branch(Announce::Never);
    let (second, _) = branch.branch(Announce::Never);
    for process in [&source, &branch, &second] {
        assert!(process.ask("nonce\n", "nonce ").contains(&linux.nonce));
        assert!(process.line("tick ").contains(&linux.nonce));
    }
    assert!(!branch.console.transcript().contains("Linux version"));
    branch.ask("poweroff 7\n", "poweroff");
    assert_eq!(
        branch.vm().wait_timeout(PATIENCE).unwrap().unwrap().message,
        "the guest shut down with code 7"
    );
    source.line("tick ");
    second.line("tick ");
    note(format_args!("branch: tiny-linux paused {:.2} ms", milliseconds(report.pause)));
}

#[test]
fn the_guest_command_wants_a_socket() {
    let outcome = run(&["guest"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("cloner: "), "{outcome:?}");
}
