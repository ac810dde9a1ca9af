//! A process that is killed while its memory arrives, from a source that never answers: it ends at once, and all that it had is
//! free again. If the kernel waited for a page that will never come, the process would stay, and could not be killed any more.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::thread;
use std::time::{Duration, Instant};

use cloner::restore::lazy::{self, LazyOptions, Restored};
use cloner_testing::{Guest, Studio, can_restore_lazily, guest, huge_pages, note, room_for};
use guest_images::pulse::Params;
use vmm::memory::{Backing, PageSize};

use crate::MIB;

use super::loss::{Door, Fate, Mortal};

const MEMORY: u64 = 16 * MIB;
/// Says to a process of this test where it is to get stuck, and on what memory.
const STUCK: &str = "CLONER_TEST_STUCK";
/// The process prints this when it is stuck.
const HERE: &str = "stuck here";

const BACKINGS: [Backing; 3] = [
    Backing::Private(PageSize::Transparent),
    Backing::Shared(PageSize::Base),
    Backing::Shared(PageSize::Huge),
];

/// Where a process is when it is killed.
#[derive(Debug, Clone, Copy)]
enum Stage {
    /// Memory is made, and nothing has touched it.
    Untouched,
    /// The vCPUs wait for the first page that they need.
    FirstPage,
    /// They wait for a page in the middle.
    LaterPage,
    /// A vCPU and this process wait for pages.
    BothWait,
    /// The background fill waits, and the vCPUs run.
    Fill,
    /// A save waits for all of the memory.
    Save,
    /// The memory is lost: what the vCPUs waited for was refused.
    Refused,
    /// The machine is being dropped while its vCPUs wait for a page.
    Dropped,
}

const STAGES: [Stage; 8] = [
    Stage::Untouched,
    Stage::FirstPage,
    Stage::LaterPage,
    Stage::BothWait,
    Stage::Fill,
    Stage::Save,
    Stage::Refused,
    Stage::Dropped,
];

/// Gets stuck at a stage, says so, and stays there.
fn get_stuck(stage: Stage, backing: Backing) -> ! {
    let params = Params { beat_ms: 20, ..Params::new(7, 8 * MIB) };
    let source = Guest::boot(&guest::pulse(&params, MEMORY, 2));
    source.line("pulse: ready");
    let studio = Studio::new(32 * MIB);
    let snapshot = studio.snapshot(&source, "template");
    drop(source);
    let door = Arc::<Door>::default();
    // Enough for the guest to answer on its console, except where it is to get nothing.
    let pages = if let Stage::FirstPage | Stage::Untouched = stage { 0 } else { 1000 };
    let source = Mortal {
        memory: studio.memory(&snapshot),
        left: AtomicUsize::new(pages),
        fate: Fate::Blocks(Arc::clone(&door)),
    };
    let limit =
        if let Stage::Refused = stage { Duration::from_millis(300) } else { Duration::from_secs(600) };
    let background = if let Stage::Fill = stage { Some(Duration::ZERO) } else { None };
    let options = LazyOptions { limit, background, ..LazyOptions::default() };
    let Restored { memory, fill } = lazy::memory_from(Box::new(source), backing, &options).unwrap();
    if let Stage::Untouched = stage {
        stay();
    }
    let clone = Arc::new(Guest::resume(snapshot.state(), memory));
    if let Stage::LaterPage | Stage::BothWait | Stage::Refused | Stage::Dropped = stage {
        clone.send("s");
    }
    if let Stage::BothWait | Stage::Save = stage {
        let clone = Arc::clone(&clone);
        let mut rest = vec![0; usize::try_from(MEMORY - 2 * MIB).unwrap()];
        thread::spawn(move || match stage {
            Stage::Save => drop(clone.vm.memory().supply_all()),
            _ => drop(clone.vm.memory().read(2 * MIB, &mut rest)),
        });
    }
    door.wait_for_visitor();
    match stage {
        Stage::Refused => drop(fill.wait().unwrap_err()),
        Stage::Dropped => {
            thread::spawn(|| drop(clone));
            // Until the kernel is closing the machine, if it can.
            thread::sleep(Duration::from_millis(500));
            stay()
        }
        _ => {}
    }
    stay()
}

fn stay() -> ! {
    note(format_args!("{HERE}"));
    loop {
        thread::park();
    }
}

/// The memory files that a process holds, by device and inode.
fn memory_files(process: u32) -> BTreeSet<(u64, u64)> {
    let Ok(descriptors) = fs::read_dir(format!("/proc/{process}/fd")) else { return BTreeSet::new() };
    let is_memory = |path: &std::path::Path| {
        fs::read_link(path).is_ok_and(|target| target.to_string_lossy().starts_with("/memfd:"))
    };
    let files = descriptors.filter_map(|entry| Some(entry.ok()?.path())).filter(|path| is_memory(path));
    files.filter_map(|path| fs::metadata(path).ok()).map(|file| (file.dev(), file.ino())).collect()
}

fn processes() -> impl Iterator<Item = u32> {
    let entries = fs::read_dir("/proc").unwrap();
    entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
}

/// Kills the process and waits until it is gone. If it does not go, what its threads do is the message.
#[track_caller]
fn kill(mut child: Child) {
    child.kill().unwrap();
    let deadline = Instant::now() + Duration::from_secs(60);
    while child.try_wait().unwrap().is_none() {
        if Instant::now() > deadline {
            let threads = fs::read_dir(format!("/proc/{}/task", child.id())).unwrap();
            let read = |path: std::path::PathBuf| fs::read_to_string(path).unwrap_or_default();
            let stacks: String = threads
                .flatten()
                .map(|thread| read(thread.path().join("stat")) + &read(thread.path().join("stack")))
                .collect();
            panic!("killed, and still there after a minute:\n{stacks}");
        }
        thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn a_process_killed_at_any_stage_of_a_fill_is_gone() {
    if let Ok(stuck) = env::var(STUCK) {
        let (stage, backing) = stuck.split_once(' ').unwrap();
        get_stuck(
            STAGES[stage.parse::<usize>().unwrap()],
            BACKINGS[backing.parse::<usize>().unwrap()].clone(),
        );
    }
    let Some(_room) = room_for(2) else { return };
    if !can_restore_lazily() {
        return;
    }
    let Some(huge) = huge_pages(usize::try_from(MEMORY / (2 * MIB)).unwrap()) else { return };
    for (stage, _) in STAGES.iter().enumerate() {
        for (backing, _) in BACKINGS.iter().enumerate() {
            let mut child = Command::new(env::current_exe().unwrap())
                .args([
                    "lazy::kill::a_process_killed_at_any_stage_of_a_fill_is_gone",
                    "--exact",
                    "--nocapture",
                ])
                .arg("--test-threads=1")
                .env(STUCK, format!("{stage} {backing}"))
                .stdout(Stdio::null())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap();
            let mut output = BufReader::new(child.stderr.take().unwrap());
            let what = (STAGES[stage], &BACKINGS[backing]);
            let mut said = String::new();
            while !said.ends_with(&format!("{HERE}\n")) {
                let bytes = output.read_line(&mut said).unwrap();
                assert!(bytes > 0, "{what:?} was not reached:\n{said}");
            }
            let files = memory_files(child.id());
            assert_eq!(files.is_empty(), matches!(BACKINGS[backing], Backing::Private(_)), "{what:?}");
            kill(child);
            // Whatever it started has ended as well: nothing holds its output or its memory.
            output.read_to_string(&mut said).unwrap();
            for process in processes() {
                assert!(
                    memory_files(process).is_disjoint(&files),
                    "{what:?}: process {process} holds its memory"
                );
            }
            huge.assert_as_before();
        }
    }
    huge.assert_all_back();
}
