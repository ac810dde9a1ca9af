//! A running Linux is cloned.

use cloner_testing::linux::{Linux, Tick, linux, milliseconds};
use cloner_testing::modes::{Build, Take, builds, only_holder};
use cloner_testing::{Guest, Studio, note, room_for};
use vmm::host::{Host, Virtualization};
use vmm::{Announce, Ending};

use crate::MIB;

/// Builds a clone and waits for its first tick.
fn clone_of(linux: &Linux) -> Guest {
    linux.studio.clone_of(&linux.snapshot)
}

/// Asserts that the guest goes on from `before`: same nonce, next tick, later but not much later, and no boot.
#[track_caller]
fn assert_goes_on(guest: &Guest, before: &Tick) -> Tick {
    let tick = guest.tick();
    assert_eq!(tick.nonce, before.nonce);
    // One more if the pause fell into the middle of a line, whose rest is not recognised as a tick.
    assert!((before.number + 1..=before.number + 2).contains(&tick.number), "{tick:?} after {before:?}");
    assert!(tick.uptime > before.uptime, "{tick:?} after {before:?}");
    // For the guest, the time in the pool did not pass; but a page-table based KVM cannot hide the host's time stamp
    // counter, by which this kernel counts, from the guest. Ticks are a second apart; emulated ring 0 is slow.
    let in_pool = match Host::get().unwrap().virtualization() {
        Virtualization::Hardware => 0.0,
        Virtualization::PageTableBased => (tick.at - before.at).as_secs_f64(),
    };
    assert!(tick.uptime < before.uptime + in_pool + 15.0, "{tick:?} after {before:?}, {in_pool} s");
    let text = guest.console.transcript();
    assert!(
        !text.contains("ready") && !text.contains("Linux version") && !text.contains("Command line"),
        "{text}"
    );
    tick
}

#[test]
fn source_and_two_clones_run_side_by_side() {
    let Some(_room) = room_for(3) else { return };
    let Some(linux) = linux() else { return };
    // Waits for each machine in turn; none of the machines waits for another.
    let source = linux.source.lock().unwrap().take().expect("only this test takes the source");
    let clones = [clone_of(linux), clone_of(linux)];
    let mut last: Vec<Tick> = clones.iter().map(|clone| assert_goes_on(clone, &linux.tick)).collect();
    for _ in 0..2 {
        for (clone, last) in clones.iter().zip(&mut last) {
            let tick = clone.tick();
            assert_eq!((tick.number, &tick.nonce), (last.number + 1, &linux.nonce));
            *last = tick;
        }
    }
    assert_eq!(source.ask("nonce"), linux.nonce);
    source.tick();
    let ticks: Vec<Tick> = source.console.lines().iter().filter_map(Tick::parse).collect();
    for pair in ticks.windows(2) {
        assert_eq!(pair[1].number, pair[0].number + 1, "{ticks:?}");
        assert!(pair[1].uptime > pair[0].uptime, "{ticks:?}");
    }
    assert!(ticks.iter().all(|tick| tick.nonce == linux.nonce));
    assert!(ticks.last().unwrap().number > linux.tick.number);
    // The clones have parted: what one is told, no other sees.
    assert_eq!(clones[0].ask("sh echo one >/tmp/mark; cat /tmp/mark; ls /tmp"), "exit=0");
    assert!(clones[0].console.transcript().contains("one"));
    clones[1].ask("sh ls /tmp");
    assert!(!clones[1].console.transcript().contains("mark"), "{}", clones[1].console.transcript());
}

#[test]
fn three_generations() {
    let Some(_room) = room_for(2) else { return };
    let Some(linux) = linux() else { return };
    let studio = Studio::new(128 * MIB);
    let mut source = clone_of(linux);
    let mut before = linux.tick.clone();
    for generation in 1..=3 {
        assert_goes_on(&source, &before);
        let paused = source.pause();
        before = source.last_tick();
        let (snapshot, memory) = studio.save_and_compare(&paused, &format!("generation-{generation}"));
        drop(paused);
        source = Guest::resume(snapshot.state(), memory);
    }
    assert_goes_on(&source, &before);
    assert_eq!(source.ask("nonce"), linux.nonce);
}

/// A live snapshot of a clone, forked; a live snapshot of the fork, built lazily; an incremental one of that, built eagerly. Each
/// clone is told who it is, and all are the same Linux.
#[test]
fn live_forked_and_lazy_in_one_chain() {
    let Some(_room) = room_for(2) else { return };
    let Some(linux) = linux() else { return };
    let _only = only_holder();
    let studio = Studio::new(128 * MIB);
    let mut source = clone_of(linux);
    source.tick();
    let ways = [(Take::Live, Build::Fork), (Take::Live, Build::Lazy), (Take::Incremental, Build::Eager)];
    let builds = builds();
    let ways = ways.into_iter().filter(|(_, build)| builds.contains(build));
    let mut chain = String::new();
    for (generation, (take, build)) in (2..).zip(ways) {
        let snapshot = studio.take(&source, take, &format!("generation-{generation}"));
        let clone = studio.build(&snapshot, build);
        let identity = clone.tell(Announce::OnConsole);
        assert_eq!(identity.generation, generation);
        clone.vm.start();
        assert!(identity.is_confirmed_by(&clone.line("clone ").text), "{}", clone.console.transcript());
        // The source has gone on meanwhile; the clone goes on from the snapshot.
        let (before, tick) = (source.last_tick(), clone.tick());
        assert!(
            (linux.tick.number + 1..=before.number + 2).contains(&tick.number),
            "{tick:?} after {before:?}"
        );
        assert_eq!(tick.nonce, linux.nonce);
        assert_eq!(clone.ask(&format!("sh echo {generation} >>/tmp/chain")), "exit=0");
        chain.push_str(&format!("{generation}\n"));
        source.tick();
        source = clone;
    }
    source.ask("sh cat /tmp/chain");
    assert!(source.console.transcript().contains(&chain), "{}", source.console.transcript());
    assert!(!source.console.transcript().contains("Linux version"));
}

#[test]
fn commands_work_in_a_clone() {
    let Some(_room) = room_for(1) else { return };
    let Some(linux) = linux() else { return };
    let clone = clone_of(linux);
    assert_eq!(clone.ask("nonce"), linux.nonce);
    assert_eq!(clone.ask("echo hello, clone"), "hello, clone");
    assert!(clone.ask("uptime").parse::<f64>().unwrap() > linux.tick.uptime);
    assert!(clone.ask("free").starts_with("total_kib="));
    assert_eq!(clone.ask("quiet"), "");
    assert_eq!(clone.ask("sh exit 7"), "exit=7");
    let ticks = clone.console.lines().iter().filter(|line| line.text.starts_with("tick ")).count();
    assert_eq!(clone.ask("loud"), "");
    assert_eq!(clone.tick().nonce, linux.nonce);
    assert!(clone.console.lines().iter().filter(|line| line.text.starts_with("tick ")).count() > ticks);
}

#[test]
fn poweroff_and_reboot_end_a_clone_as_they_should() {
    let Some(_room) = room_for(1) else { return };
    let Some(linux) = linux() else { return };
    for code in [0, 42, 255] {
        let clone = clone_of(linux);
        assert_eq!(clone.ask(&format!("poweroff {code}")), code.to_string());
        assert_eq!(clone.end(), Ending::Shutdown { code });
    }
    let clone = clone_of(linux);
    clone.ask("reboot");
    assert_eq!(clone.end(), Ending::Reset);
}

#[test]
fn a_kernel_panic_ends_a_clone_with_a_reset() {
    let Some(_room) = room_for(1) else { return };
    let Some(linux) = linux() else { return };
    let clone = clone_of(linux);
    clone.ask("crash");
    assert_eq!(clone.end(), Ending::Reset);
}

/// A clone of a guest in the middle of a computation finishes it, and what it prints continues what its source had printed.
#[test]
fn a_snapshot_of_a_busy_linux() {
    let Some(_room) = room_for(2) else { return };
    let Some(linux) = linux() else { return };
    let studio = Studio::new(128 * MIB);
    let source = clone_of(linux);
    source.send("sh echo begun; i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; echo done $i\n");
    // By then the guest has the whole command: bytes that wait on the host's side for room in its FIFO are not part of a snapshot.
    source.line("begun");
    for save in 0..3 {
        let paused = source.pause();
        let printed = source.console.transcript();
        // The guest cannot count so fast that it has finished already.
        assert!(save > 0 || !printed.contains("done"), "{printed}");
        let (snapshot, memory) = studio.save_and_compare(&paused, &format!("busy-{save}"));
        drop(paused);
        let clone = Guest::resume(snapshot.state(), memory);
        // Commands are answered one after the other, so with this answer the one before has been given.
        assert_eq!(clone.ask("nonce"), linux.nonce);
        note(format_args!(
            "tiny-linux: {:.0} ms from restore to answer",
            milliseconds(clone.since.elapsed())
        ));
        let whole = printed + &clone.console.transcript();
        assert!(whole.contains("done 100000\n") && whole.contains("sh exit=0\n"), "{whole}");
        studio.pool.remove(snapshot.name()).unwrap();
    }
    source.line("done 100000");
    source.line("sh exit=0");
}
