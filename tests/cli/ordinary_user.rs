//! A user who may open `/dev/kvm` and nothing else: what works, and what is said about the rest.

use std::fs;
use std::os::unix::fs::MetadataExt;

use cloner_testing::own_dev::{EVERYBODYS_KVM, NOBODY, OwnDev, everybody_may_clone_lazily};
use cloner_testing::program::Outcome;
use cloner_testing::{huge_pages, note, room_for};
use serde_json::Value;

use crate::PROGRAM;

/// Limits as low as a distribution's, and lower.
const LIMITED: &str = "ulimit -l 64 && ulimit -n 1024 && :";

/// Checks the line about a pool's pages on a host that has no free huge page.
#[track_caller]
fn assert_ordinary_pages(outcome: &Outcome) {
    assert_eq!((outcome.code, outcome.stderr.lines().count()), (0, 1), "{outcome:?}");
    let said = outcome.stderr.strip_prefix("cloner: pool on ordinary pages: ").unwrap_or_default();
    let (needed, rest) =
        said.split_once(" huge pages needed, 0 free, and only root may set more aside; ").unwrap();
    let needed: usize = needed.parse().unwrap();
    let enough =
        rest.strip_prefix("`sysctl vm.nr_hugepages=").and_then(|rest| rest.strip_suffix("` changes that\n"));
    let total = cloner::pool::hugepages::HugePages::read().unwrap().total;
    assert!(needed > 0 && enough == Some(&(total + needed).to_string()), "{total} pages: {said}");
}

/// The README's first command.
#[test]
fn runs_the_demo() {
    let Some(_room) = room_for(3) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let outcome = host.run(EVERYBODYS_KVM, NOBODY, "demo");
    assert_ordinary_pages(&outcome);
    for clone in ["1.1 ", "1.2 "] {
        let line = outcome.stdout.lines().find(|line| line.starts_with(clone)).unwrap();
        assert!(line.contains(" equal ") && line.contains("same nonce, goes on"), "{line}");
    }
    assert!(outcome.stdout.contains(" times less, in ordinary pages\n"), "{}", outcome.stdout);

    let outcome = host.run(EVERYBODYS_KVM, NOBODY, "demo --json --memory 16M");
    assert_ordinary_pages(&outcome);
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(object["pool"]["hugepages"], false);
    let backing = object["pool"]["backing"].as_str().unwrap();
    let said = outcome.stderr.strip_prefix("cloner: pool on ").unwrap();
    assert_eq!(backing, said.trim_end());
    for clone in object["clones"].as_array().unwrap() {
        let outcome = (&clone["memory_equal"], &clone["verified"]);
        assert_eq!(outcome, (&Value::Bool(true), &Value::Bool(true)), "{object}");
    }
    huge.assert_all_back();
}

/// Free huge pages are for every user.
#[test]
fn has_the_huge_pages_that_are_free() {
    let Some(_room) = room_for(3) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let Some(huge) = huge_pages(32) else { return };
    for pages in ["auto", "huge"] {
        let args = format!("demo --json --memory 16M --clones 1 --pages {pages}");
        let outcome = host.run(EVERYBODYS_KVM, NOBODY, &args);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
        let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
        assert_eq!(object["pool"]["hugepages"], true, "{object}");
    }
    huge.assert_all_back();
}

/// A kernel may be built without huge pages.
#[test]
fn needs_no_kernel_with_huge_pages() {
    let Some(_room) = room_for(2) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let devices = format!("{EVERYBODYS_KVM} && mount -t tmpfs none /sys/kernel/mm/hugepages");
    for args in ["demo --json --memory 16M --clones 1", "demo --json --memory 64M --power-loss"] {
        let outcome = host.run(&devices, NOBODY, args);
        assert_eq!(outcome.code, 0, "{outcome:?}");
        let said = |line: &str| {
            line.starts_with("cloner: pool on ordinary pages: ") && line.contains("No such file")
        };
        assert_eq!(outcome.stderr.lines().filter(|line| said(line)).count(), 1, "{outcome:?}");
    }
    huge.assert_all_back();
}

/// If huge pages are requested explicitly, they are used, or nothing is started.
#[test]
fn is_refused_huge_pages_that_are_not_there() {
    let Some(_room) = room_for(1) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    host.assert_huge_pages_refused_to_nobody(&[
        ("demo --memory 16M --pages huge", "cloner: pool: "),
        ("clone --pulse --when beat --memory 16M --pages huge", "cloner: pool: "),
        ("demo --memory 16M --pages ordinary --hugepages", "cloner: guest memory on huge pages: "),
    ]);
}

/// Runs with little memory to lock and few descriptors.
#[test]
fn runs_clones_of_every_kind() {
    let Some(_room) = room_for(3) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let devices = format!("{EVERYBODYS_KVM} && {LIMITED}");
    let clone = "clone --pulse --memory 16M --when beat --clones 2 --for 1 --pages ordinary";
    for how in ["", "--fork", "--branch", "--mode stop", "--mode live", "--shared"] {
        let outcome = host.run(&devices, NOBODY, &format!("{clone} {how}"));
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
        for guest in ["source  |", "clone 1 |", "clone 2 |"] {
            assert!(outcome.stdout.contains(&format!("{guest} pulse: beat ")), "{how}: {outcome:?}");
        }
    }
    let outcome = host.run(&devices, NOBODY, "demo --power-loss --memory 64M --json --pages ordinary");
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!((&object["verified"], &object["pool"]), (&Value::Bool(true), &Value::from("ordinary pages")));
    huge.assert_all_back();
}

/// Lazy clones need more than `/dev/kvm`: the program says what before the source boots, and what it says is true.
#[test]
fn is_told_what_lazy_clones_take() {
    let Some(_room) = room_for(3) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    const CLONE: &str = "clone --pulse --memory 16M --when beat --clones 1 --for 1 --pages ordinary --lazy";
    let assert_works = |devices: &str, user: &str| {
        let outcome = host.run(devices, user, CLONE);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
        assert!(outcome.stdout.contains("clone 1 | pulse: beat "), "{outcome:?}");
    };
    if everybody_may_clone_lazily() {
        return assert_works(EVERYBODYS_KVM, NOBODY);
    }
    host.assert_lazy_clones_refused_to_nobody(CLONE, "cloner: lazy restore: ");
    let capable =
        NOBODY.replace("--clear-groups", "--clear-groups --inh-caps=+sys_ptrace --ambient-caps=+sys_ptrace");
    assert_works(EVERYBODYS_KVM, &capable);
    let Ok(device) = fs::metadata("/dev/userfaultfd") else {
        return note(format_args!("this kernel has no /dev/userfaultfd to try"));
    };
    let (major, minor) = (rustix::fs::major(device.rdev()), rustix::fs::minor(device.rdev()));
    let devices = format!("{EVERYBODYS_KVM} && mknod -m 666 /dev/userfaultfd c {major} {minor}");
    assert_works(&devices, NOBODY);
}
