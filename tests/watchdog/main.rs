//! The watchdog of the tests, which ends a program that hangs. The programs here are scripts that talk like Rust's test harness.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail as tests do")]

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Output};
use std::{fs, str};

use cloner_testing::folder::Folder;

/// Runs a script as Cargo runs a program of tests, with `limit_s` seconds for each test.
fn watched(script: &str, limit_s: u32) -> Output {
    let folder = Folder::new();
    let program = folder.path().join("deps/program-0123");
    fs::create_dir(folder.path().join("deps")).unwrap();
    fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let runner = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/watchdog/runner");
    Command::new(runner).arg(&program).env("CLONER_TEST_LIMIT", limit_s.to_string()).output().unwrap()
}

fn errors(output: &Output) -> &str {
    str::from_utf8(&output.stderr).unwrap()
}

/// Asserts that the watchdog has named the process whose number the script printed, and that the process has ended.
#[track_caller]
fn assert_ended(output: &Output) {
    let out = str::from_utf8(&output.stdout).unwrap();
    let child = out.lines().find_map(|line| line.strip_prefix("child ")).expect("the script prints a child");
    assert!(errors(output).contains(&format!("process {child}, ")), "{}", errors(output));
    let state = fs::read_to_string(format!("/proc/{child}/stat")).unwrap_or_default();
    assert!(state.is_empty() || state.contains(") Z "), "{state}");
}

#[test]
fn output_and_status_are_those_of_the_program() {
    let output = watched("echo out; echo err >&2; exit 101", 900);
    assert_eq!((&*output.stdout, errors(&output)), (&b"out\n"[..], "err\n"));
    assert_eq!(output.status.code(), Some(101));
    assert_eq!(watched("kill -9 $$", 900).status.code(), Some(128 + 9));
}

/// With several threads, the harness tells of a test that has run for 60 s. Its children are killed even in a session of their own.
#[test]
fn a_test_that_hangs_is_named_and_ended_with_its_children() {
    let script = "printf some::test >/proc/$$/comm
        setsid sleep 1000 & echo child $!
        echo 'test other::test has been running for over 60 seconds'
        echo 'test some::test has been running for over 60 seconds'
        echo 'test other::test ... ok'
        wait";
    let output = watched(script, 61);
    assert_eq!(output.status.code(), Some(124), "{}", errors(&output));
    assert!(errors(&output).contains("some::test has run for 61 s"), "{}", errors(&output));
    assert!(!errors(&output).contains("other::test"), "{}", errors(&output));
    assert_ended(&output);
}

/// With a single thread, the harness prints a name when the test begins.
#[test]
fn a_test_that_hangs_on_the_only_thread_is_named() {
    let script = "echo 'test first ... ok'
        printf 'test second - should panic ... noise\\nok\\n'
        sleep 1000 & echo child $!
        printf 'test third - should panic ... '
        wait";
    let output = watched(script, 1);
    assert_eq!(output.status.code(), Some(124), "{}", errors(&output));
    assert!(errors(&output).contains("third has run for 1 s"), "{}", errors(&output));
    assert_ended(&output);
}

/// A terse harness does not say that a slow test has passed; that its thread is gone does.
#[test]
fn a_slow_test_that_is_over_is_not_ended() {
    let script = "echo 'test some::test has been running for over 60 seconds'; sleep 2; echo .";
    assert!(watched(script, 61).status.success());
}

#[test]
fn a_process_that_is_left_behind_is_named_and_ended_and_a_failure() {
    let output = watched("setsid sleep 1000 >/dev/null & echo child $!", 900);
    assert_eq!(output.status.code(), Some(1), "{}", errors(&output));
    assert!(errors(&output).contains("left these processes behind"), "{}", errors(&output));
    assert_ended(&output);
}

#[test]
fn what_cannot_be_watched_is_named() {
    let folder = Folder::new();
    let watch = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/watchdog/watch");
    let output = Command::new(watch).arg(folder.path().join("none")).output().unwrap();
    assert_eq!(output.status.code(), Some(127));
    assert!(errors(&output).contains("none: No such file or directory"), "{}", errors(&output));
    for limit in ["soon", "0", "-1", "inf"] {
        let output = Command::new(watch).arg("/bin/true").env("CLONER_TEST_LIMIT", limit).output().unwrap();
        assert_eq!(output.status.code(), Some(2), "{limit}");
        assert!(errors(&output).contains(&format!("'{limit}', and must be")), "{}", errors(&output));
    }
}

/// What is not a program of tests is not watched: the shell is replaced by it.
#[test]
fn other_programs_are_started_as_they_are() {
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/watchdog/runner"));
    let output = command.arg0("runner").args(["/bin/sh", "-c", "echo $$; exit 7"]);
    let child = output.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let id = child.id();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(str::from_utf8(&output.stdout).unwrap().trim(), id.to_string());
}
