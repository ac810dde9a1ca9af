//! `cloner clone`.

use cloner_testing::program::{Outcome, is_quiet};
use cloner_testing::{can_restore_lazily, huge_pages, linux, room_for, value};
use guest_images::pulse::{self, Params};

use crate::run;

/// The beats of the guest whose lines start with `prefix`.
fn beats(stdout: &str, prefix: &str) -> Vec<u64> {
    let of_guest = stdout
        .lines()
        .filter_map(|line| line.strip_prefix(prefix)?.trim_start().strip_prefix("| pulse: beat "));
    of_guest.map(|rest| rest.split(' ').next().unwrap().parse().unwrap()).collect()
}

#[test]
fn runs_source_and_clones_side_by_side() {
    let Some(_room) = room_for(3) else { return };
    let Some(huge) = huge_pages(0) else { return };
    for (how, says) in [
        (&["--branch"][..], "fork() of its process"),
        (&[], "live, frozen by fork()"),
        (&["--mode", "stop"], "until all was saved"),
        (&["--shared"], "until all was saved"),
        (&["--fork"], "as process"),
    ] {
        assert_runs_side_by_side(how, says);
        huge.assert_as_before();
    }
    huge.assert_all_back();
}

#[test]
fn runs_lazy_clones_beside_their_source() {
    let Some(_room) = room_for(3) else { return };
    if !can_restore_lazily() {
        return;
    }
    let Some(huge) = huge_pages(0) else { return };
    assert_runs_side_by_side(&["--lazy"], "runs after");
    huge.assert_all_back();
}

/// Each clone goes on from where the source was, and so does the source.
#[track_caller]
fn assert_runs_side_by_side(how: &[&str], says: &str) {
    let args =
        ["clone", "--pulse", "--memory", "16M", "--when", "beat [3-9] ", "--clones", "2", "--for", "2"];
    let Outcome { code, stdout, stderr } = run(&[&args, how].concat());
    assert!(code == 0 && is_quiet(&stderr), "{stderr}\n{stdout}");
    assert!(stdout.contains("the source stood still for") && stdout.contains(says), "{stdout}");

    let source = beats(&stdout, "source");
    assert!(source.len() > 4 && source[0] == 1, "{stdout}");
    for prefix in ["clone 1", "clone 2"] {
        let clone = beats(&stdout, prefix);
        // It starts where the source was when its third beat had been seen, and not at one.
        assert!(clone.len() > 2 && clone[0] >= 3, "{stdout}");
        for beats in [&source, &clone] {
            assert!(beats.windows(2).all(|pair| pair[1] == pair[0] + 1), "{stdout}");
        }
        assert!(!stdout.contains(&format!("{prefix} | pulse: ready")), "{stdout}");
        let id = id_of(&stdout, prefix);
        let line = format!("{prefix} | pulse: clone generation=1 id={id}");
        assert!(stdout.contains(&line), "{line:?} in {stdout}");
    }
    let nonces: Vec<u64> =
        stdout.lines().filter(|line| line.contains("nonce=")).map(|line| value(line, "nonce", 16)).collect();
    assert!(nonces.iter().all(|nonce| *nonce == nonces[0]), "{stdout}");
}

/// The id that the program reports for a clone.
#[track_caller]
fn id_of<'a>(stdout: &'a str, clone: &str) -> &'a str {
    let start = format!("cloner: {clone} (generation 1, id ");
    let rest = stdout.lines().find_map(|line| line.strip_prefix(&start)?.split_once(") runs"));
    let (id, _) = rest.unwrap_or_else(|| panic!("no {start:?} in {stdout}"));
    assert!(id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()), "{id}");
    id
}

/// A Linux with the agent: each clone has reseeded its random numbers before the next is made.
#[test]
fn linux_clones_are_told_who_they_are() {
    let Some(_room) = room_for(3) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let Some(image) = linux::image() else { return };
    let path = |path: &'static std::path::Path| path.to_str().unwrap();
    let command_line = linux::command_line();
    let boot =
        ["--kernel", path(&image.vmlinux), "--initrd", path(&image.initramfs), "--cmdline", &command_line];
    let args =
        ["clone", "--memory", "128M", "--when", "tick 1 ", "--fork", "--announce", "console", "--for", "1"];
    let Outcome { code, stdout, stderr } = run(&[&args[..], &boot].concat());
    assert!(code == 0 && is_quiet(&stderr), "{stderr}\n{stdout}");
    for clone in ["clone 1", "clone 2"] {
        let id = id_of(&stdout, clone);
        let answer = format!("{clone} | clone 1 {id} reseeded");
        let says = format!("cloner: {clone} has reseeded its random numbers after ");
        for text in [answer, says] {
            assert!(stdout.contains(&text), "{text:?} in {stdout}");
        }
    }
    assert_ne!(id_of(&stdout, "clone 1"), id_of(&stdout, "clone 2"));
    huge.assert_all_back();
}

/// `pulse` has no agent: it takes the command as single letters, of which e ends it.
#[test]
fn a_guest_that_crashes_instead_of_confirming_who_it_is() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let folder = cloner_testing::folder::Folder::new();
    let image = pulse::image(&Params { beat_ms: 20, ..Params::new(1, 0) }).unwrap();
    let image = folder.file("pulse", &image);
    let args =
        ["clone", "--flat", image.to_str().unwrap(), "--memory", "2M", "--when", "beat", "--clones", "1"];
    for how in [&[][..], &["--fork"]] {
        let outcome = run(&[&args[..], &["--announce", "console"], how].concat());
        outcome.assert_failed(125, &["cloner: a clone ended too early", "cannot emulate the instruction"]);
    }
    huge.assert_all_back();
}

#[test]
fn gives_up_when_the_console_never_matches() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let args = ["clone", "--pulse", "--memory", "8M", "--when", "never said", "--wait", "1"];
    for how in [&[][..], &["--branch"]] {
        let outcome = run(&[&args, how].concat());
        outcome.assert_failed(1, &["cloner: the source", "never said", "within 1 s"]);
    }
    huge.assert_all_back();
}

#[test]
fn a_source_that_crashes_before_it_is_cloned() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let folder = cloner_testing::folder::Folder::new();
    // An interrupt table without entries, then an invalid instruction: push 0; push 0; lidt [rsp]; ud2 (on a stack).
    let image = folder.file("crash", &[0xbc, 0, 0, 1, 0, 0x6a, 0, 0x6a, 0, 0x0f, 1, 0x1c, 0x24, 0x0f, 0x0b]);
    let args = ["clone", "--flat", image.to_str().unwrap(), "--memory", "2M", "--when", "x", "--wait", "60"];
    for how in [&[][..], &["--branch"]] {
        let outcome = run(&[&args, how].concat());
        outcome.assert_failed(125, &["cloner: the source ended too early", "triple fault", "RIP"]);
    }
    huge.assert_all_back();
}
