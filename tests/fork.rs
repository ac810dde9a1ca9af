//! Forks: machines in processes of their own, over one template that none of them can change.

use std::collections::HashSet;
use std::path::Path;

use cloner::process::fork::{Error, Zygote};
use cloner::process::{self, GuestEnding};
use cloner::progress::Watch;
use cloner::restore::Template;
use cloner_testing::linux::linux;
use cloner_testing::process::{IN_STATUS, PATIENCE, Process, eventually, is_running, kill};
use cloner_testing::{Guest, Studio, guest, room_for};
use guest_images::pulse::{Params, check};
use vmm::Announce;

use crate::{MIB, PROGRAM, run};

const NONCE: u64 = 0xf0f0_0000_f0f0_0001;

#[track_caller]
fn fork(zygote: &Zygote, announce: Announce) -> Process {
    Process::of(zygote.fork(announce).unwrap())
}

fn params() -> Params {
    Params { beat_ms: 20, ..Params::new(NONCE, 4 * MIB) }
}

/// A template of a `pulse` that has already printed beats.
fn template() -> Template {
    let studio = Studio::new(16 * MIB);
    let source = Guest::boot(&guest::pulse(&params(), 8 * MIB, 1));
    source.line("pulse: ready");
    source.beat();
    let snapshot = studio.snapshot(&source, "template");
    studio.restorer.template(&snapshot, Watch::default()).unwrap()
}

fn zygote(template: &Template) -> Zygote {
    Zygote::start(PROGRAM.path(), template).unwrap()
}

fn template_bytes(template: &Template) -> Vec<u8> {
    let memory = template.memory().unwrap();
    let mut bytes = vec![0; 8 << 20];
    memory.read(0, &mut bytes).unwrap();
    bytes
}

/// Each fork knows who it is and has the source's memory; none sees another's writes or changes the template.
#[test]
fn forks_are_alike_and_apart() {
    let Some(_room) = room_for(4) else { return };
    let template = template();
    let before = template_bytes(&template);
    let zygote = zygote(&template);
    let forks: Vec<Process> = (0..3).map(|_| fork(&zygote, IN_STATUS)).collect();
    for fork in &forks {
        let (line, id) = (fork.line("pulse: clone"), fork.identity.id);
        assert_eq!(line, format!("pulse: clone generation=1 id={id:032x}"));
        assert_eq!((fork.nonce(), fork.sum()), (NONCE, check::expected_sum(&params())));
    }
    // The ids are drawn in processes that share the zygote's memory, including any random state in it.
    let ids: HashSet<u128> = forks.iter().map(|fork| fork.identity.id).collect();
    assert_eq!(ids.len(), forks.len(), "{ids:x?}");
    // By now all of them have written: the identity they were told, and their counters.
    assert!(template_bytes(&template) == before, "a fork has written to the template");
    let late = fork(&zygote, Announce::Never);
    late.line("pulse: beat");
    assert_eq!((late.nonce(), late.sum()), (NONCE, check::expected_sum(&params())));
    assert!(!late.console.transcript().contains("pulse: clone"), "it was told another fork's identity");
    late.end();
    for fork in forks {
        fork.end();
    }
    let pid = zygote.pid();
    drop(zygote);
    assert!(!is_running(pid));
}

/// The template outlives its zygote and forks outlive theirs, but nothing outlives its owner.
#[test]
fn who_lives_on_when_somebody_dies() {
    let Some(_room) = room_for(2) else { return };
    let template = template();
    let first = zygote(&template);
    let old = fork(&first, Announce::Never);
    kill(first.pid());
    assert!(matches!(
        eventually(|| first.fork(Announce::Never).err()),
        Error::ZygoteEnded | Error::Channel(_)
    ));
    assert_eq!(old.nonce(), NONCE);
    old.end();
    drop(first);

    let second = zygote(&template);
    let killed = fork(&second, Announce::Never);
    kill(killed.pid());
    assert!(matches!(killed.vm().wait_timeout(PATIENCE), Err(process::Error::Ended)));
    // Later forks of the same zygote do not notice.
    fork(&second, Announce::Never).end();
}

#[test]
fn what_goes_wrong_is_named() {
    let Some(_room) = room_for(2) else { return };
    let template = template();
    let error = Zygote::start(Path::new("/nonexistent/cloner"), &template).unwrap_err();
    assert!(matches!(&error, Error::Start { program, .. } if program.contains("nonexistent")), "{error:?}");
    // Programs that are not zygotes.
    let error = Zygote::start(Path::new("/bin/true"), &template).unwrap_err();
    assert!(matches!(error, Error::ZygoteEnded | Error::Channel(_)), "{error:?}");

    let zygote = zygote(&template);
    // An address outside the guest's memory: the fork is refused, and the zygote goes on.
    let vm = zygote.fork(Announce::InMemory { address: 8 * MIB - 1 }).unwrap();
    let error = vm.wait_running().unwrap_err();
    assert!(matches!(&error, process::Error::Refused(why) if why.contains("0x7fffff")), "{error:?}");
    fork(&zygote, Announce::Never).end();
}

#[test]
fn the_zygote_command_wants_a_socket() {
    let outcome = run(&["zygote"]);
    assert_eq!(outcome.code, 1, "{outcome:?}");
    assert!(outcome.stderr.contains("cloner: "), "{outcome:?}");
}

/// A forked Linux goes on from the template, takes commands, and reports how it ended.
#[test]
fn linux_forks() {
    let Some(_room) = room_for(2) else { return };
    let Some(linux) = linux() else { return };
    let template = linux.studio.restorer.template(&linux.snapshot, Watch::default()).unwrap();
    let zygote = zygote(&template);
    let forks = [fork(&zygote, Announce::Never), fork(&zygote, Announce::Never)];
    for (fork, code) in forks.iter().zip([7, 0]) {
        assert!(fork.ask("nonce\n", "nonce ").contains(&linux.nonce));
        assert!(fork.line("tick ").contains(&linux.nonce));
        assert!(!fork.console.transcript().contains("Linux version"));
        fork.ask(&format!("poweroff {code}\n"), "poweroff");
        let end = fork.vm().wait_timeout(PATIENCE).unwrap();
        assert_eq!(
            end,
            Some(GuestEnding { message: format!("the guest shut down with code {code}"), orderly: true })
        );
    }
}
