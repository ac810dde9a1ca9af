//! Ctrl-C at any moment: the program ends, says so with its exit code, and leaves no huge pages set aside.

use std::thread;
use std::time::Duration;

use cloner_testing::{huge_pages, note, room_for};
use rustix::process::Signal;

use crate::PROGRAM;

const DEMO: &[&str] = &["demo", "--json", "--memory", "512M", "--touched", "256M", "--clones", "4"];

#[test]
fn ends_a_demo_at_any_moment() {
    let Some(_room) = room_for(4) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let mut interrupted = 0;
    for (delay_ms, signal) in [
        (5, Signal::INT),
        (60, Signal::TERM),
        (150, Signal::INT),
        (300, Signal::HUP),
        (600, Signal::INT),
        (1000, Signal::TERM),
        (1500, Signal::INT),
    ] {
        let program = PROGRAM.start(DEMO);
        thread::sleep(Duration::from_millis(delay_ms));
        program.signal(signal);
        // Before the program catches signals, the signal ends it like any other program.
        let Some(outcome) = program.finish_if_not_killed() else { continue };
        match outcome.code {
            130 => interrupted += 1,
            // The demo had ended before the signal came.
            0 => {}
            _ => panic!("{signal:?} after {delay_ms} ms: {outcome:?}"),
        }
        assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
        huge.assert_as_before();
    }
    assert!(interrupted > 0, "the demo always ended before it could be interrupted");
    note(format_args!("cloner demo: {interrupted} of 7 interrupted in the middle"));
    huge.assert_all_back();
}

#[test]
fn ends_guests_that_run_side_by_side() {
    let Some(_room) = room_for(3) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let args = ["clone", "--pulse", "--memory", "16M", "--when", "beat 2 ", "--clones", "2"];
    let program = PROGRAM.start(&args);
    program.stdout.line("clone 2 | pulse: beat");
    program.signal(Signal::INT);
    let outcome = program.finish();
    assert_eq!(outcome.code, 130, "{outcome:?}");
    huge.assert_all_back();
}

#[test]
fn ends_the_wait_for_a_console() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let args = ["clone", "--pulse", "--memory", "8M", "--when", "never said"];
    let program = PROGRAM.start(&args);
    program.stdout.line("source  | pulse: beat");
    program.signal(Signal::INT);
    program.finish().assert_failed(130, &["interrupted"]);
    huge.assert_all_back();
}

/// A user who presses Ctrl-C twice wants the program to end at once; the huge pages still go back to the host.
#[test]
fn twice_leaves_no_huge_pages_either() {
    let Some(_room) = room_for(4) else { return };
    let Some(huge) = huge_pages(0) else { return };
    for delay_ms in [150, 400, 800] {
        let program = PROGRAM.start(DEMO);
        thread::sleep(Duration::from_millis(delay_ms));
        program.signal(Signal::INT);
        thread::sleep(Duration::from_millis(1));
        program.signal(Signal::INT);
        let outcome = program.finish();
        assert!([0, 130].contains(&outcome.code), "{outcome:?}");
        huge.assert_as_before();
    }
}
