//! Whatever goes wrong with a branch is named, and its source goes on.

use std::fs;
use std::io::Read;

use cloner::admission::CopyLimits;
use cloner::process::{Error, GuestProcess};
use cloner::restore::lazy;
use cloner_testing::process::{PATIENCE, Process, eventually, is_running, kill};
use cloner_testing::{Guest, Studio, alone, can_restore_lazily_too, guest, room_for};
use guest_images::pulse::WriteOrder;
use rustix::process::{Pid, Resource, Rlimit, prlimit};
use vmm::config::Kernel;
use vmm::host::fork;
use vmm::machine::branch::{self, BranchSide};
use vmm::memory::{Backing, PageSize, StillMemory};
use vmm::{Announce, Config};

use super::{NONCE, boot, dirtying, freeze, idle, private, verify};
use crate::{KIB, MIB, PROGRAM};

#[test]
fn what_cannot_be_branched_is_refused_by_name() {
    let Some(_room) = room_for(2) else { return };
    let params = idle();
    let refused = |process: &Process, limits: CopyLimits, what: &[&str]| {
        let error = process.vm().branch(Announce::Never, limits).unwrap_err();
        let Error::Refused(why) = &error else { panic!("{error:?}") };
        assert!(what.iter().all(|part| why.contains(part)), "{why}");
        assert_eq!(process.nonce(), NONCE);
    };
    let shared = boot(&params, 4 * MIB, 1, Backing::Shared(PageSize::Base));
    refused(&shared, CopyLimits::default(), &["shared memfd", "private"]);
    shared.end();

    let source = boot(&params, 4 * MIB, 1, private());
    refused(&source, CopyLimits { copy_bytes: Some(64 * KIB) }, &["65536 bytes are available", "twice"]);
    // An address outside the guest's memory, which the branch notices.
    let outside = Announce::InMemory { address: 4 * MIB - 1 };
    let (branch, _) = source.vm().branch(outside, CopyLimits::default()).unwrap();
    let error = branch.wait_running().unwrap_err();
    assert!(matches!(&error, Error::Refused(why) if why.contains("0x3fffff")), "{error:?}");
    assert_eq!(source.nonce(), NONCE);
    // A source whose guest has ended.
    source.send("q");
    let end = source.vm().wait_timeout(PATIENCE).unwrap().unwrap();
    assert!(end.orderly, "{end:?}");
    let error = source.vm().branch(Announce::Never, CopyLimits::default()).unwrap_err();
    assert!(matches!(&error, Error::GuestEnded(reported) if *reported == end), "{error:?}");
}

/// A test process has threads that are not parked, and a lazy clone has a thread that fills it. Runs alone, because other tests
/// have vCPUs.
#[test]
fn a_process_with_other_threads_is_not_forked() {
    let Some(_room) = room_for(2) else { return };
    alone("branch::trouble::a_process_with_other_threads_is_not_forked", || {
        let studio = Studio::new(16 * MIB);
        let source = Guest::boot(&guest::pulse(&idle(), 4 * MIB, 2));
        source.line("pulse: ready");
        let snapshot = studio.snapshot(&source, "lazy");
        let Guest { vm, console, .. } = source;
        let BranchSide::Source { vm, branched } = vm.branch() else { panic!("this is not a child") };
        let error = branched.unwrap_err();
        let branch::Error::Fork(fork::Error::UnknownThreads { names }) = &error else { panic!("{error:?}") };
        assert!(!names.contains("vcpu"), "{names}");
        // The source runs on.
        console.line("pulse: beat ");
        vm.console_input(b"n");
        console.line("pulse: nonce=");

        if !can_restore_lazily_too() {
            return;
        }
        let options = lazy::LazyOptions::default();
        let lazy::Restored { memory, fill } = studio.restorer.lazy(&snapshot, private(), &options).unwrap();
        let clone = Guest::resume(snapshot.state(), memory);
        let Guest { vm, console, .. } = clone;
        let BranchSide::Source { vm: _vm, branched } = vm.branch() else { panic!("this is not a child") };
        assert!(matches!(branched.unwrap_err(), branch::Error::Lazy));
        console.line("pulse: beat ");
        drop(fill);
    });
}

/// Whatever happens to a branch, its source counts on, and the other way round.
#[test]
fn who_lives_on_when_somebody_dies() {
    let Some(_room) = room_for(3) else { return };
    let params = dirtying(8 * MIB, WriteOrder::Random);
    let source = boot(&params, 16 * MIB, 1, private());

    // A branch is killed while it is being built, or when it runs: its caller is told.
    for _ in 0..5 {
        let (branch, _) = source.vm().branch(Announce::Never, CopyLimits::default()).unwrap();
        kill(branch.pid());
        let error = branch.wait_timeout(PATIENCE).unwrap_err();
        assert!(matches!(error, Error::Ended), "{error:?}");
        source.beat();
    }
    let frozen = freeze(&source);
    let (pid, mut byte) = (frozen.process().pid(), [0]);
    kill(pid);
    eventually(|| frozen.memory().read(0, 0, &mut byte).err());
    verify(&params, &source);

    // The source is killed: its branches do not notice, and can be branched.
    let (branch, _) = source.branch(Announce::Never);
    kill(source.pid());
    assert!(matches!(source.vm().wait_timeout(PATIENCE), Err(Error::Ended)));
    assert!(matches!(
        source.vm().branch(Announce::Never, CopyLimits::default()),
        Err(Error::Ended | Error::Channel(_))
    ));
    let (grandchild, _) = branch.branch(Announce::Never);
    verify(&params, &grandchild);

    // The branch is dropped.
    let pid = branch.pid();
    drop(branch);
    eventually(|| (!is_running(pid)).then_some(()));
    grandchild.beat();
    verify(&params, &grandchild);
}

/// There is no address space for a second machine: the branch reports it, and the source goes on.
#[test]
fn a_branch_that_cannot_be_built_says_why() {
    let Some(_room) = room_for(2) else { return };
    let source = boot(&idle(), 4 * MIB, 1, private());
    // Branched once before, so that the source already has all the memory it needs itself.
    source.branch(Announce::Never).0.end();
    let status = fs::read_to_string(format!("/proc/{}/status", source.pid())).unwrap();
    let used = status.lines().find_map(|line| line.strip_prefix("VmSize:")).unwrap();
    let used: u64 = used.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let pid = Pid::from_raw(i32::try_from(source.pid()).unwrap());
    let limit = |bytes| Rlimit { current: bytes, maximum: None };
    prlimit(pid, Resource::As, limit(Some((used - 16) * KIB))).unwrap();
    let (branch, _) = source.vm().branch(Announce::Never, CopyLimits::default()).unwrap();
    let error = branch.wait_running().unwrap_err();
    assert!(matches!(&error, Error::Refused(why) if why.contains("Cannot allocate memory")), "{error:?}");
    prlimit(pid, Resource::As, limit(None)).unwrap();
    assert_eq!(source.nonce(), NONCE);
    assert_eq!(source.branch(Announce::Never).0.nonce(), NONCE);
}

/// A branch need not wait for a vCPU that waits for its console to be read.
#[test]
fn a_console_that_nobody_reads_stops_nobody() {
    let Some(_room) = room_for(2) else { return };
    // mov dx, 0x3f8; mov al, '.'; again: out dx, al; jmp again.
    let image = [0x66, 0xba, 0xf8, 0x03, 0xb0, b'.', 0xee, 0xeb, 0xfd].as_slice().into();
    let config = Config::new(2 * MIB, Kernel::Flat { image });
    let source = GuestProcess::boot(PROGRAM.path(), &config).unwrap();
    source.wait_running().unwrap();
    // The console is full when it holds as much as a moment ago, and not nothing.
    let mut before = 0;
    eventually(|| {
        std::thread::sleep(std::time::Duration::from_millis(100));
        let now = rustix::io::ioctl_fionread(source.console()).unwrap();
        (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
    });
    let (branch, _) = source.branch(Announce::Never, CopyLimits::default()).unwrap();
    branch.wait_running().unwrap();
    for mut console in [branch.console(), source.console()] {
        let mut some = vec![0; 64 << 10];
        console.read_exact(&mut some).unwrap();
        assert!(some.iter().all(|byte| *byte == b'.'));
    }
}
