//! Forks: machines in processes of their own, over one template that none of them can change.

use std::collections::HashSet;
use std::fs;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use cloner::restore::fork::{End, Error, ForkedVm, Template, Zygote};
use cloner::walk::Progress;
use guest_images::pulse::{Params, Status, check};
use vmm::{Announce, Identity};

use crate::MIB;
use crate::support::console::Console;
use crate::support::linux::linux;
use crate::support::{Guest, Studio, guest, program, room_for, value};

const NONCE: u64 = 0xf0f0_0000_f0f0_0001;
const PATIENCE: Duration = Duration::from_secs(180);

/// A fork and what it prints.
struct Fork {
    vm: Option<ForkedVm>,
    identity: Identity,
    console: Console,
    typing: UnixStream,
    reader: Option<JoinHandle<()>>,
}

impl Fork {
    fn of(zygote: &Zygote, announce: Option<Announce>) -> Self {
        let vm = zygote.fork(announce).unwrap();
        let identity = vm.wait_running().unwrap();
        let (console, mut output) = Console::new(PATIENCE);
        let mut reading = vm.console().try_clone().unwrap();
        let typing = vm.console().try_clone().unwrap();
        // Ends when the fork does.
        let reader = thread::spawn(move || drop(io::copy(&mut reading, &mut output)));
        Self { vm: Some(vm), identity, console, typing, reader: Some(reader) }
    }

    fn ask(&mut self, letter: &str, answer: &str) -> String {
        self.typing.write_all(letter.as_bytes()).unwrap();
        self.console.line(answer).text
    }

    fn nonce(&mut self) -> u64 {
        value(&self.ask("n", "pulse: nonce="), "nonce", 16)
    }

    fn sum(&mut self) -> u64 {
        value(&self.ask("s", "pulse: sum="), "sum", 16)
    }

    fn pid(&self) -> u32 {
        self.vm.as_ref().unwrap().pid()
    }

    /// Ends it, and makes sure that it is gone.
    fn end(mut self) {
        let pid = self.pid();
        self.vm.take().unwrap().end().unwrap();
        assert!(!is_running(pid));
    }
}

impl Drop for Fork {
    fn drop(&mut self) {
        drop(self.vm.take());
        let _ = self.typing.shutdown(Shutdown::Both);
        let _ = self.reader.take().unwrap().join();
    }
}

/// Neither gone nor a zombie.
fn is_running(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

const IN_STATUS: Announce = Announce::InMemory { address: Status::IDENTITY };

fn params() -> Params {
    Params { beat_ms: 20, ..Params::new(NONCE, 4 * MIB) }
}

/// A template of a `pulse` that has beaten.
fn template() -> Template {
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&params(), 8 * MIB, 1));
    source.line("pulse: ready");
    source.beat();
    let snapshot = studio.snapshot(&source, "template");
    Template::new(&studio.restorer, &snapshot, &Progress::default()).unwrap()
}

fn zygote(template: &Template) -> Zygote {
    Zygote::start(Path::new(program::PATH), template).unwrap()
}

fn template_bytes(template: &Template) -> Vec<u8> {
    let memory = template.memory().unwrap();
    let mut bytes = vec![0; 8 << 20];
    memory.read(0, &mut bytes).unwrap();
    bytes
}

/// Each knows who it is, has the source's memory, and neither sees the other's writes nor changes the template.
#[test]
fn forks_are_alike_and_apart() {
    let Some(_room) = room_for(4) else { return };
    let template = template();
    let before = template_bytes(&template);
    let zygote = zygote(&template);
    let mut forks: Vec<Fork> = (0..3).map(|_| Fork::of(&zygote, Some(IN_STATUS))).collect();
    for fork in &mut forks {
        let (line, id) = (fork.console.line("pulse: clone").text, fork.identity.id);
        assert_eq!(line, format!("pulse: clone generation=1 id={id:032x}"));
        assert_eq!((fork.nonce(), fork.sum()), (NONCE, check::expected_sum(&params())));
    }
    // Drawn in processes that have the zygote's memory, and whatever random state is in it.
    let ids: HashSet<u128> = forks.iter().map(|fork| fork.identity.id).collect();
    assert_eq!(ids.len(), forks.len(), "{ids:x?}");
    // They have all written by now: the identity they took note of, their counters.
    assert!(template_bytes(&template) == before, "a fork has written to the template");
    let mut late = Fork::of(&zygote, None);
    late.console.line("pulse: beat");
    assert_eq!((late.nonce(), late.sum()), (NONCE, check::expected_sum(&params())));
    assert!(!late.console.transcript().contains("pulse: clone"), "it is told who others are");
    late.end();
    for fork in forks {
        fork.end();
    }
    let pid = zygote.pid();
    drop(zygote);
    assert!(!is_running(pid));
}

/// The template outlives its zygote, forks outlive theirs, and nothing outlives whoever wanted it.
#[test]
fn who_lives_on_when_somebody_dies() {
    let Some(_room) = room_for(2) else { return };
    let template = template();
    let first = zygote(&template);
    let mut fork = Fork::of(&first, None);
    kill(first.pid());
    assert!(matches!(eventually(|| first.fork(None).err()), Error::ZygoteEnded | Error::Channel(_)));
    assert_eq!(fork.nonce(), NONCE);
    fork.end();
    drop(first);

    let second = zygote(&template);
    let fork = Fork::of(&second, None);
    let killed = fork.vm.as_ref().unwrap();
    kill(fork.pid());
    assert!(matches!(killed.wait_timeout(PATIENCE), Err(Error::ForkEnded)));
    // Its siblings to come do not notice.
    Fork::of(&second, None).end();
}

fn kill(pid: u32) {
    let status = std::process::Command::new("kill").args(["-9", &pid.to_string()]).status().unwrap();
    assert!(status.success());
}

fn eventually<T>(mut attempt: impl FnMut() -> Option<T>) -> T {
    (0..10_000)
        .find_map(|_| {
            attempt().or_else(|| {
                thread::sleep(Duration::from_millis(1));
                None
            })
        })
        .unwrap()
}

#[test]
fn what_goes_wrong_is_named() {
    let Some(_room) = room_for(2) else { return };
    let template = template();
    let error = Zygote::start(Path::new("/nonexistent/cloner"), &template).unwrap_err();
    assert!(matches!(&error, Error::Start { program, .. } if program.contains("nonexistent")), "{error:?}");
    // Programs that are no zygotes.
    let error = Zygote::start(Path::new("/bin/true"), &template).unwrap_err();
    assert!(matches!(error, Error::ZygoteEnded | Error::Channel(_)), "{error:?}");

    let zygote = zygote(&template);
    // Out of the guest's memory: the fork is refused, and the zygote goes on.
    let vm = zygote.fork(Some(Announce::InMemory { address: 8 * MIB - 1 })).unwrap();
    let error = vm.wait_running().unwrap_err();
    assert!(matches!(&error, Error::Refused(why) if why.contains("0x7fffff")), "{error:?}");
    Fork::of(&zygote, None).end();
}

#[test]
fn the_zygote_command_wants_a_socket() {
    let outcome = program::run(&["zygote"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("cloner: "), "{outcome:?}");
}

/// Linux, forked: it goes on from the template, takes commands, and says how it ended.
#[test]
fn linux_forks() {
    let Some(_room) = room_for(2) else { return };
    let linux = linux();
    let template = Template::new(&linux.studio.restorer, &linux.snapshot, &Progress::default()).unwrap();
    let zygote = zygote(&template);
    let mut forks = [Fork::of(&zygote, None), Fork::of(&zygote, None)];
    for (fork, code) in forks.iter_mut().zip([7, 0]) {
        assert!(fork.ask("nonce\n", "nonce ").contains(&linux.nonce));
        assert!(fork.console.line("tick ").text.contains(&linux.nonce));
        assert!(!fork.console.transcript().contains("Linux version"));
        fork.ask(&format!("poweroff {code}\n"), "poweroff");
        let end = fork.vm.as_ref().unwrap().wait_timeout(PATIENCE).unwrap();
        assert_eq!(
            end,
            Some(End { message: format!("the guest shut down with code {code}"), orderly: true })
        );
    }
}
