//! The program as a user whose only privilege is `/dev/kvm`.

use cloner_testing::own_dev::{OwnDev, everybody_may_clone_lazily};
use cloner_testing::room_for;

use crate::PROGRAM;

/// Huge pages that were asked for by name and are not there are an error with its remedy, and nothing has booted.
#[test]
fn is_refused_huge_pages_that_are_not_there() {
    let Some(_room) = room_for(1) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    host.assert_huge_pages_refused_to_nobody(&[
        ("live --memory 16M --count 1 --pages huge", "cloner-bench: pool: "),
        (
            "live --memory 16M --count 1 --pages ordinary --hugepages",
            "cloner-bench: guest memory on huge pages: ",
        ),
    ]);
}

/// Lazy clones name what they take before anything is booted.
#[test]
fn is_told_what_lazy_clones_take() {
    let Some(_room) = room_for(1) else { return };
    let Some(host) = OwnDev::new(PROGRAM) else { return };
    if !everybody_may_clone_lazily() {
        let lazy = "lazy --memory 16M --count 1 --pages ordinary";
        host.assert_lazy_clones_refused_to_nobody(lazy, "cloner-bench: lazy restore: ");
    }
}
