//! The handle for a machine: the same operations, whether it runs in this process or in one of its own.

use cloner::admission::{self, CopyLimits};
use cloner::machine::{Error, Machine};
use cloner::process::GuestProcess;
use cloner::save::SaveOptions;
use cloner_testing::console::Console;
use cloner_testing::process::{PATIENCE, eventually, is_running, kill};
use cloner_testing::{Studio, guest, room_for, value};
use guest_images::pulse::Params;
use vmm::{Announce, Config};

use crate::{MIB, PROGRAM};

const NONCE: u64 = 0x00ac_4e00_00ac_4e00;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Here,
    Apart,
}

/// A machine and its console.
struct Guest {
    machine: Machine,
    console: Console,
}

fn config() -> Config {
    guest::pulse(&Params { beat_ms: 20, ..Params::new(NONCE, 2 * MIB) }, 4 * MIB, 1)
}

#[track_caller]
fn boot(kind: Kind) -> Guest {
    let (console, output) = Console::new(PATIENCE);
    let machine = match kind {
        Kind::Here => Machine::boot(&config(), output),
        Kind::Apart => {
            let process = GuestProcess::boot(PROGRAM.path(), &config()).unwrap();
            Machine::apart(process, output)
        }
    };
    let guest = Guest { machine: machine.unwrap(), console };
    guest.console.line("pulse: ready");
    guest
}

impl Guest {
    #[track_caller]
    fn nonce(&self) -> u64 {
        self.machine.console_input(b"n").unwrap();
        value(&self.console.line("pulse: nonce=").text, "nonce", 16)
    }
}

#[test]
fn both_kinds_are_used_in_the_same_way() {
    let Some(_room) = room_for(2) else { return };
    let studio = Studio::new(16 * MIB);
    for kind in [Kind::Here, Kind::Apart] {
        let source = boot(kind);
        assert_eq!(source.nonce(), NONCE, "{kind:?}");
        assert_eq!(source.machine.identity().generation, 0);
        assert_eq!(source.machine.pid().is_some(), kind == Kind::Apart);

        // Taken at one instant, saved and restored, while it runs on.
        let moment = source.machine.moment(CopyLimits::default()).unwrap();
        let reservation = studio.pool.reserve(&format!("{kind:?}")).unwrap();
        let instant = studio.comparer.copy_of(moment.memory()).unwrap();
        let saved = studio.saver.save(moment, reservation, &SaveOptions::default()).unwrap();
        let report = saved.report.live.as_ref().expect("it ran on");
        assert!(report.freeze_time <= report.pause && report.pause <= report.total_time, "{report:?}");
        let memory = studio.memory(&saved.snapshot);
        assert_eq!(studio.comparer.first_difference(&instant, &memory).unwrap(), None, "{kind:?}");
        let (console, output) = Console::new(PATIENCE);
        let clone = Machine::restore(saved.snapshot.state(), memory, Announce::Never, output).unwrap();
        let clone = Guest { machine: clone, console };
        assert_eq!(clone.nonce(), NONCE);
        assert_eq!(clone.machine.identity().generation, 1);
        assert_eq!(source.nonce(), NONCE);

        // Refused, it goes on.
        let error = source.machine.moment(CopyLimits { copy_bytes: Some(0) }).unwrap_err();
        let chain = cloner::chain(&error);
        assert!(chain.contains("only 0 bytes are available"), "{chain}");
        if let Error::Moment(cloner::moment::Error::Admission(short)) = &error {
            assert!(matches!(short, admission::Error::TooLittleMemory { available_bytes: 0, .. }));
        }
        assert_eq!(source.nonce(), NONCE);

        // Its guest ends, and says how.
        assert_eq!(source.machine.wait_timeout(std::time::Duration::ZERO).unwrap(), None);
        source.machine.console_input(b"q").unwrap();
        let end = source.machine.wait_timeout(PATIENCE).unwrap().unwrap();
        assert!(end.orderly, "{end:?}");
        eventually(|| source.machine.is_silent().then_some(()));
        let again = source.machine.wait_timeout(PATIENCE).unwrap();
        assert_eq!(again, Some(end));
        source.machine.console_input(b"n").unwrap();
        assert!(source.machine.moment(CopyLimits::default()).is_err());
        clone.machine.end().unwrap();
    }
}

#[test]
fn only_a_machine_with_a_process_of_its_own_is_branched() {
    let Some(_room) = room_for(2) else { return };
    let (console, output) = Console::new(PATIENCE);
    let error = boot(Kind::Here).machine.branch(Announce::Never, CopyLimits::default(), output).unwrap_err();
    assert!(matches!(error, Error::NotApart), "{error:?}");
    drop(console);

    let source = boot(Kind::Apart);
    let (console, output) = Console::new(PATIENCE);
    let (branch, report) = source.machine.branch(Announce::Never, CopyLimits::default(), output).unwrap();
    assert!(report.fork_time <= report.pause, "{report:?}");
    let branch = Guest { machine: branch, console };
    assert_eq!(branch.nonce(), NONCE);
    assert_eq!(branch.machine.identity().generation, 1);

    // Each ends alone, and its process is gone.
    let pids = [&source, &branch].map(|guest| guest.machine.pid().unwrap());
    source.machine.end().unwrap();
    assert!(!is_running(pids[0]));
    assert_eq!(branch.nonce(), NONCE);
    drop(branch.machine);
    eventually(|| (!is_running(pids[1])).then_some(()));
}

#[test]
fn a_process_that_is_killed_is_an_error() {
    let Some(_room) = room_for(1) else { return };
    let source = boot(Kind::Apart);
    kill(source.machine.pid().unwrap());
    let error = source.machine.wait_timeout(PATIENCE).unwrap_err();
    assert!(matches!(error, Error::Process(cloner::process::Error::Ended)), "{error:?}");
    eventually(|| source.machine.is_silent().then_some(()));
}
