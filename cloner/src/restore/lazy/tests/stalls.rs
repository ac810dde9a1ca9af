//! A source that does not answer costs the memory, and hangs nothing but the threads that ask it.

use super::super::stand_ins::Gate;
use super::*;

const LIMIT: Duration = Duration::from_millis(100);

/// Memory whose page 3 never arrives while the gate is closed.
fn stalling(simulated: bool, background: Option<Duration>) -> (Scene, Gate, std::sync::Weak<()>) {
    let gate = Gate::default();
    let source = TestSource::new(SHORT, &[0, 1]).troubled(3, Trouble::Stall(gate.clone()));
    let exists = Arc::downgrade(&source.exists);
    let options = LazyOptions { background, limit: LIMIT, ..ON_DEMAND };
    (start(simulated, source, base(), &options, &[]).unwrap(), gate, exists)
}

#[test]
fn every_thread_that_waits_is_released_whichever_workers_hang() {
    with_each_kernel(|simulated| {
        // With a background fill both workers hang, one after the other.
        for background in [None, Some(Duration::ZERO)] {
            let (scene, gate, exists) = stalling(simulated, background);
            if background.is_some() {
                // The fill hangs for as long as it may before the fault handler begins to hang.
                assert!(scene.fill.wait().is_err());
            }
            let waiting = scene.guest_reads(3);
            assert!(waiting.join().unwrap().is_err());
            // The watchdog refuses what comes later.
            assert!(scene.guest_reads(811).join().unwrap().is_err());
            let thread = if background.is_some() { "background fill" } else { "fault handler" };
            scene.assert_lost(811, &format!("{thread} has been busy with one request for more than 100ms"));
            // A thread that hangs is left behind, and keeps the source that it needs.
            drop(scene);
            assert_eq!(exists.strong_count(), 1);
            gate.open();
            wait_for("the threads that hung have ended", || exists.strong_count() == 0);
        }
    });
}

#[test]
fn a_second_worker_that_hangs_is_noticed_after_the_first() {
    with_each_kernel(|simulated| {
        let (scene, gate, exists) = stalling(simulated, Some(Duration::ZERO));
        // Both ask for the same page: the fill at once, the fault handler somewhat later.
        let waiting = scene.guest_reads(3);
        assert!(waiting.join().unwrap().is_err());
        scene.assert_lost(811, "has been busy with one request for more than 100ms");
        drop(scene);
        gate.open();
        wait_for("the threads that hung have ended", || exists.strong_count() == 0);
    });
}

#[test]
fn dropping_memory_waits_no_longer_for_a_hanging_worker_than_one_request_may_take() {
    with_each_kernel(|simulated| {
        for background in [None, Some(Duration::ZERO)] {
            let (scene, gate, exists) = stalling(simulated, background);
            let Scene { memory, fill, reader, .. } = scene;
            // Keeps its address from being given to something else, which the guest's thread would then read.
            let _mapping = Arc::clone(memory.regions()[0].mapping());
            let waiting = background.is_none().then(|| thread::spawn(move || reader.page(0, 3 * PAGE_BYTES)));
            // Long before the watchdog has a reason to step in, or just when it does.
            drop(memory);
            assert!(fill.wait().is_err());
            gate.open();
            wait_for("the threads that hung have ended", || exists.strong_count() == 0);
            // The thread is released; what it finds no longer matters, for the memory is gone.
            let _ = waiting.map(JoinHandle::join);
        }
    });
}
