//! Clones know that they are clones and which: they have a generation and an id, and do not draw each other's random numbers.

use std::collections::HashSet;

use cloner::process::fork::Zygote;
use cloner::progress::Watch;
use cloner::restore::lazy;
use cloner::snapshot::Snapshot;
use cloner_testing::linux::{Linux, linux};
use cloner_testing::{Guest, Studio, can_restore_lazily_too, guest, note, room_for};
use guest_images::pulse::{Params, Status};
use vmm::memory::{self, Backing, PageSize};
use vmm::{Announce, VmState};

use crate::{MIB, PROGRAM};

/// However a clone is made, it is one generation after its source, and no two clones have the same id.
#[test]
fn every_way_to_clone_gives_a_generation_and_an_id() {
    let Some(_room) = room_for(2) else { return };
    let lazily = can_restore_lazily_too();
    let studio = Studio::new(16 * MIB);
    let mut source = Guest::boot(&guest::pulse(&Params::new(7, MIB), 4 * MIB, 1));
    source.line("pulse: ready");
    assert_eq!(source.vm.identity().generation, 0);
    let mut ids = HashSet::from([source.vm.identity().id]);
    for generation in 1..=3 {
        let name = format!("generation-{generation}");
        let snapshot = studio.snapshot(&source, &name);
        // In the form that goes to a disk or to another process.
        let state = VmState::from_bytes(&snapshot.state().to_bytes()).unwrap();

        let eager = Guest::restore(&state, studio.memory(&snapshot));
        let backing = Backing::Private(PageSize::Transparent);
        let lazy = lazily.then(|| {
            let restored = studio.restorer.lazy(&snapshot, backing, &lazy::LazyOptions::default()).unwrap();
            Guest::restore(&state, restored.memory)
        });
        let template = studio.restorer.template(&snapshot, Watch::default()).unwrap();
        let over_template = Guest::restore(template.state(), template.memory().unwrap());
        let zygote = Zygote::start(PROGRAM.path(), &template).unwrap();
        let forks = [zygote.fork(Announce::Never).unwrap(), zygote.fork(Announce::Never).unwrap()];
        let forked = forks.iter().map(|fork| fork.wait_running().unwrap());

        let here = [&eager, &over_template].into_iter().chain(&lazy).map(|clone| clone.vm.identity());
        for identity in here.chain(forked) {
            assert_eq!(identity.generation, generation);
            assert!(ids.insert(identity.id), "{identity} twice");
        }
        eager.vm.start();
        source = eager;
    }
}

#[test]
fn an_identity_needs_memory_to_be_written_to() {
    let Some(_room) = room_for(1) else { return };
    let source = Guest::boot(&guest::pulse(&Params::new(7, 0), MIB, 1));
    source.line("pulse: ready");
    let error = source.vm.announce(Announce::InMemory { address: MIB - 23 }).unwrap_err();
    assert!(matches!(error, memory::Error::NoMemory { len_bytes: 24, .. }), "{error}");
    source.tell(Announce::InMemory { address: Status::IDENTITY });
    assert_eq!(guest::status(source.vm.memory()).unique_id, source.vm.identity().id);
}

/// Clones of one snapshot, taken of a Linux that has just drawn random numbers.
struct Siblings {
    studio: Studio,
    snapshot: Snapshot,
}

impl Siblings {
    fn new(linux: &Linux) -> Self {
        let studio = Studio::new(64 * MIB);
        let source = linux.studio.clone_of(&linux.snapshot);
        source.ask("quiet");
        // A kernel reseeds itself when its seed is old and a program draws: a snapshot in between would part siblings by chance.
        source.ask("random");
        let snapshot = studio.snapshot(&source, "template");
        Self { studio, snapshot }
    }

    /// The random bytes that a clone draws as the first thing it does, or as the second if it is told who it is.
    fn draw(&self, announce: Announce) -> String {
        let clone = Guest::restore(self.snapshot.state(), self.studio.memory(&self.snapshot));
        let identity = clone.tell(announce);
        clone.send("random\n");
        clone.vm.start();
        if announce != Announce::Never {
            assert!(identity.is_confirmed_by(&clone.line("clone ").text), "{}", clone.console.transcript());
            assert_eq!(identity.generation, 2, "a clone of a clone");
        }
        clone.line("random ").text
    }
}

/// Clones that are not told that they are clones draw the same random bytes; clones that are told do not.
#[test]
fn linux_clones_draw_different_random_bytes() {
    let Some(_room) = room_for(2) else { return };
    let Some(linux) = linux() else { return };
    // On a busy host a clone may take so long to draw that its kernel finds the seed old and reseeds by itself.
    let alike = (1..=5).find(|_| {
        let untold = Siblings::new(linux);
        let first = untold.draw(Announce::Never);
        first == untold.draw(Announce::Never)
    });
    let attempts =
        alike.expect("clones that are not told never drew the same bytes, so this test shows nothing");
    note(format_args!("tiny-linux: untold clones drew the same bytes, at attempt {attempts}"));

    let told = Siblings::new(linux);
    let drawn: HashSet<String> = (0..4).map(|_| told.draw(Announce::OnConsole)).collect();
    assert_eq!(drawn.len(), 4, "{drawn:?}");
    assert!(!drawn.contains(&told.draw(Announce::Never)), "{drawn:?}");
}

#[test]
fn a_linux_knows_who_it_is_and_refuses_what_is_no_identity() {
    let Some(_room) = room_for(1) else { return };
    let Some(linux) = linux() else { return };
    let clone = linux.studio.clone_of(&linux.snapshot);
    assert_eq!(clone.ask("clone"), "0", "before it is told, a clone takes itself for its source");
    for wrong in ["clone 1", "clone x 0123456789abcdef0123456789abcdef", "clone 1 0123", "clone 1 ZZ"] {
        clone.send(&format!("{wrong}\n"));
        clone.line("error clone: ");
    }
    assert_eq!(clone.ask("clone"), "0");
    let identity = clone.tell(Announce::OnConsole);
    assert!(identity.is_confirmed_by(&clone.line("clone 1 ").text));
    assert_eq!(clone.ask("clone"), format!("1 {:032x}", identity.id));
    // A clone of this clone takes itself for this clone, until it is told otherwise.
    let studio = Studio::new(64 * MIB);
    let snapshot = studio.snapshot(&clone, "told");
    assert_eq!(studio.clone_of(&snapshot).ask("clone"), format!("1 {:032x}", identity.id));
}
