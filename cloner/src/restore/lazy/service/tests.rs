//! The watchdog by itself: what the workers do is up to the test.

use vmm::memory::{Backing, GuestMemory, PageSize};

use super::super::stand_ins::{GuestReader, SimulatedKernel, TestSource, bounded, wait_for};
use super::*;

#[test]
fn the_watchdog_notices_each_worker_that_hangs() {
    bounded(|| {
        let source = TestSource::new(812, &[0, 1]);
        let memory = GuestMemory::new(source.layout, Backing::Private(PageSize::Base)).unwrap();
        let kernel = SimulatedKernel::default().open();
        let pager = Arc::new(Pager::new(kernel, Box::new(source), &memory, 1, Instant::now()).unwrap());
        let [server, filler] = ["fault handler", "background fill"].map(WorkerStatus::new);
        let hangs = |worker: &WorkerStatus, fault| {
            *lock(&worker.fault) = fault;
            let now = u64::try_from(worker.epoch.elapsed().as_nanos()).unwrap();
            worker.since.store(now, Ordering::Release);
        };
        hangs(&filler, None);
        let watching = thread::spawn({
            let (pager, workers) = (Arc::clone(&pager), [Arc::clone(&server), filler]);
            move || watch(&pager, &workers, Duration::from_millis(40))
        });
        wait_for("the memory is not lost", || pager.status.is_lost());
        // The fault handler hangs later, and with it the thread that touched this page.
        let page = 3 * PAGE_BYTES;
        hangs(&server, pager.at_offset(0, page));
        let reader = GuestReader::new(&memory, None);
        wait_for("the page is not refused", || reader.page(0, page).is_err());
        assert!(reader.page(0, page + PAGE_BYTES).is_ok());
        pager.status.go();
        watching.join().unwrap();
    });
}
