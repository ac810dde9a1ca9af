//! `cloner run`.

use cloner_testing::folder::Folder;
use cloner_testing::room_for;
use cloner_testing::terminal::Terminal;
use rustix::process::Signal;

use crate::{PROGRAM, run};

#[test]
fn ends_with_the_guests_code() {
    let Some(_room) = room_for(1) else { return };
    let folder = Folder::new();
    for (name, code, image) in [
        // mov al, 42; out 0xf4, al
        ("shutdown", 42, vec![0xb0, 42, 0xe6, 0xf4, 0xf4]),
        // mov al, 0xfe; out 0x64, al: a reset, which ends the guest in order
        ("reset", 0, vec![0xb0, 0xfe, 0xe6, 0x64, 0xf4]),
    ] {
        let path = folder.file(name, &image);
        let outcome = run(&["run", "--flat", path.to_str().unwrap(), "--memory", "1M"]);
        assert_eq!((outcome.code, outcome.stderr.as_str()), (code, ""), "{name}");
    }
}

#[test]
fn passes_the_console_both_ways() {
    let Some(_room) = room_for(1) else { return };
    let outcome = PROGRAM.run_with_input(&["run", "--pulse", "--memory", "4M"], "nq");
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{outcome:?}");
    assert!(outcome.stdout.contains("pulse: ready nonce="), "{outcome:?}");
    assert!(outcome.stdout.contains("pulse: nonce="), "{outcome:?}");
}

#[test]
fn reports_a_crash_with_rip_and_bytes() {
    let Some(_room) = room_for(1) else { return };
    let outcome = PROGRAM.run_with_input(&["run", "--pulse", "--memory", "4M"], "t");
    outcome.assert_failed(125, &["cloner: the guest crashed: vCPU 0 took a triple fault at RIP 0x", "bytes"]);
    let outcome = PROGRAM.run_with_input(&["run", "--pulse", "--memory", "4M"], "e");
    // FBLD, which the guest has sent to an address where there is no memory.
    outcome.assert_failed(125, &["cloner: the guest crashed: vCPU 0 at RIP 0x", "cannot emulate", "df 23"]);
}

/// However the program ends, every setting of the user's terminal is as it was.
#[test]
fn restores_the_terminal() {
    let Some(_room) = room_for(1) else { return };
    type End<'a> = &'a dyn Fn(&Terminal) -> Option<Signal>;
    let typed = |keys: &'static str| {
        move |terminal: &Terminal| {
            terminal.type_keys(keys);
            None
        }
    };
    let ends: [(&str, i32, End<'_>); 6] = [
        ("Ctrl-A x", 0, &typed("\u{1}x")),
        ("the guest's end", 0, &typed("q")),
        ("the guest's crash", 125, &typed("t")),
        ("SIGINT", 130, &|_| Some(Signal::INT)),
        ("SIGTERM", 130, &|_| Some(Signal::TERM)),
        ("SIGHUP", 130, &|_| Some(Signal::HUP)),
    ];
    for (name, code, end) in ends {
        let terminal = Terminal::new();
        let program = terminal.start(PROGRAM, &["run", "--pulse", "--memory", "4M"]);
        terminal.screen.line("pulse: ready");
        assert!(terminal.is_raw(), "{name}");
        // Every key goes to the guest, Ctrl-C included.
        terminal.type_keys("\u{3}");
        terminal.screen.line("pulse: ? 03");
        if let Some(signal) = end(&terminal) {
            program.signal(signal);
        }
        assert_eq!(program.finish(), code, "{name}");
        terminal.assert_restored();
    }
}

/// The second signal ends the program at once, but the terminal is restored even then.
#[test]
fn restores_the_terminal_when_told_twice() {
    let Some(_room) = room_for(1) else { return };
    for _ in 0..5 {
        let terminal = Terminal::new();
        let program = terminal.start(PROGRAM, &["run", "--pulse", "--memory", "4M"]);
        terminal.screen.line("pulse: ready");
        program.signal(Signal::TERM);
        program.signal(Signal::INT);
        assert_eq!(program.finish(), 130);
        terminal.assert_restored();
    }
}

#[test]
fn restores_the_terminal_when_the_guest_cannot_boot() {
    let Some(_room) = room_for(1) else { return };
    let terminal = Terminal::new();
    let program = terminal.start(PROGRAM, &["run", "--kernel", "/nonexistent"]);
    assert_eq!(program.finish(), 1);
    terminal.assert_restored();
}
