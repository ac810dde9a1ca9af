//! The program as a user whose only privilege is `/dev/kvm`.

use std::fs;

use cloner_testing::own_dev::{EVERYBODYS_KVM, NOBODY, OwnDev};
use cloner_testing::{huge_pages, room_for};

use crate::PROGRAM;

/// Huge pages that were asked for by name and are not there are an error with its remedy, and nothing has booted.
#[test]
fn is_refused_huge_pages_that_are_not_there() {
    let Some(_room) = room_for(1) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let parts = ["huge pages of 2 MiB are needed, 0 of the host's", "as root, `sysctl vm.nr_hugepages="];
    for (args, what) in [
        ("live --memory 16M --count 1 --pages huge", "cloner-bench: pool: "),
        (
            "live --memory 16M --count 1 --pages ordinary --hugepages",
            "cloner-bench: guest memory on huge pages: ",
        ),
    ] {
        let outcome = host.run(EVERYBODYS_KVM, NOBODY, args);
        outcome.assert_failed(1, &[what, parts[0], parts[1]]);
        assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "{args}: {outcome:?}");
    }
    huge.assert_all_back();
}

/// Lazy clones name what they take before anything is booted.
#[test]
fn is_told_what_lazy_clones_take() {
    let Some(_room) = room_for(1) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    if fs::read_to_string("/proc/sys/vm/unprivileged_userfaultfd").is_ok_and(|setting| setting.trim() == "1")
    {
        return;
    }
    let outcome = host.run(EVERYBODYS_KVM, NOBODY, "lazy --memory 16M --count 1 --pages ordinary");
    let ways = ["chgrp kvm /dev/userfaultfd", "vm.unprivileged_userfaultfd=1", "CAP_SYS_PTRACE"];
    outcome.assert_failed(1, &[&["cloner-bench: lazy restore: "][..], &ways].concat());
    assert_eq!((outcome.stderr.lines().count(), outcome.stdout.as_str()), (1, ""), "nothing has booted");
}
