//! Many clones of one stock Linux, all alive.

use std::time::Instant;

use cloner::process::fork::Zygote;
use cloner::progress::Watch;
use cloner_testing::process::Process;
use cloner_testing::stock::{Flavour, Talks, room_for_ring_0};
use cloner_testing::{Studio, note};
use vmm::Announce;
use vmm::memory::{Backing, PageSize};

use crate::{MIB, PROGRAM};

const CLONES: usize = 100;

/// The clones share what they have not written, and each answers with its source's nonce and with its own clocks.
#[test]
fn a_hundred_clones() {
    let Some(_room) = room_for_ring_0(4) else { return };
    let source = Flavour::Cloud.boot(1, Backing::Private(PageSize::Transparent));
    // At its normal pace, a hundred witnesses would be more than the host can run.
    source.tell_witness("pace 5000");
    let before = source.report();
    let studio = Studio::new(128 * MIB);
    let snapshot = studio.snapshot(&source, "debian");
    drop(source);
    let template = studio.restorer.template(&snapshot, Watch::default()).unwrap();
    let zygote = Zygote::start(PROGRAM.path(), &template).unwrap();
    let started = Instant::now();
    let clones: Vec<Process> =
        (0..CLONES).map(|_| Process::of(zygote.fork(Announce::Never).unwrap())).collect();
    let forked = started.elapsed();
    for clone in &clones {
        let report = clone.report();
        report.assert_sound(1);
        assert_eq!(report.text("nonce"), before.text("nonce"));
        let went = report.monotonic().checked_sub(before.monotonic()).expect("it went back");
        assert!(went <= before.asked.elapsed(), "{went:?}");
    }
    note(format_args!(
        "stock: {CLONES} clones alive after {:.1} s, all had answered after {:.1} s",
        forked.as_secs_f64(),
        started.elapsed().as_secs_f64()
    ));
    // No clone waits for another to end.
    for clone in clones {
        clone.end();
    }
}
