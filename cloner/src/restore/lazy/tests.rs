//! The whole service over memory that plain threads read, without a machine: with the kernel's own userfaultfd where this process may
//! use it, and with a simulated one.

mod stalls;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES, Page};
use vmm::memory::{PageSize, ReadError};

use super::faults::PageFaults;
use super::stand_ins::{
    BOUND, GuestReader, SimulatedKernel, TestSource, Trouble, bounded, content, wait_for,
};
use super::*;
use crate::layout::Chunk;

/// Pages of guests whose last chunk is short: below the gap for devices, and above it.
const SHORT: u64 = 512 + 300;
const ABOVE_GAP: u64 = 1536 * 512 + 512 + 37;
/// Pages that a thread of such guests reads: at the edges of chunks, regions and granules. One of them holds zeros.
const EDGES: [u64; 9] = [0, 1, 3, 255, 256, 511, 512, 512 + 298, 512 + 299];

const ON_DEMAND: LazyOptions =
    LazyOptions { granule_pages: 1, background: None, working_set: None, limit: BOUND };

/// Memory that arrives from a test's source, and how to read it as a guest does.
struct Scene {
    memory: GuestMemory,
    fill: Fill,
    reader: Arc<GuestReader>,
    simulated: Option<SimulatedKernel>,
}

fn start(
    simulated: bool,
    source: TestSource,
    backing: Backing,
    options: &LazyOptions,
    first: &[u64],
) -> Result<Scene, Error> {
    let memory = GuestMemory::new(source.layout, backing)?;
    let simulated = simulated.then(SimulatedKernel::default);
    let reader = Arc::new(GuestReader::new(&memory, simulated.clone()));
    let userfault: Box<dyn PageFaults> = match simulated.clone() {
        Some(kernel) => kernel.open(),
        None => Box::new(Userfault::open()?),
    };
    let pager = Pager::new(userfault, Box::new(source), &memory, options.granule_pages, Instant::now())?;
    let first = first.iter().copied().map(PageNumber).collect();
    let Restored { memory, fill } = supplied_by(pager, memory, options, first)?;
    Ok(Scene { memory, fill, reader, simulated })
}

fn base() -> Backing {
    Backing::Private(PageSize::Base)
}

/// Tests with a simulated kernel and, if this process may use its userfaultfd, with the real one. Each test must end.
fn with_each_kernel(test: impl Fn(bool) + Send + Sync + 'static) {
    bounded(move || {
        test(true);
        match Userfault::open() {
            Ok(_) => test(false),
            Err(error @ userfault::OpenError::NotAllowed { .. }) => {
                println!("SKIPPED with userfaultfd: {error}");
            }
            Err(error) => panic!("{error:?}"),
        }
    });
}

impl Scene {
    fn on_demand(simulated: bool, source: TestSource) -> Self {
        start(simulated, source, base(), &ON_DEMAND, &[]).unwrap()
    }

    /// Reads a page of the region below the gap on a thread of its own, as a guest does.
    fn guest_reads(&self, page: u64) -> JoinHandle<Result<Page, ReadError>> {
        let reader = Arc::clone(&self.reader);
        thread::spawn(move || reader.page(0, usize::try_from(page).unwrap() * PAGE_BYTES))
    }

    fn arrived_pages(&self) -> u64 {
        self.fill.arrived_bytes() / PAGE_BYTES as u64
    }

    /// Asserts that each page of these chunks holds what it should, as this process reads it.
    fn assert_right(&self, chunks: &[Chunk]) {
        for chunk in chunks {
            let mut bytes = vec![0x77; chunk.len_bytes()];
            self.memory.regions()[chunk.region].read(chunk.offset, &mut bytes).unwrap();
            for (page, bytes) in bytes.chunks(PAGE_BYTES).enumerate() {
                let number = PageNumber(u64::from(chunk.index.0) * 512 + page as u64);
                assert!(bytes == content(number), "wrong bytes on {number:?}");
            }
        }
    }

    /// Asserts that memory is lost for this reason, wherever it is asked for.
    fn assert_lost(&self, page: u64, reason: &str) {
        let lost = self.fill.wait().unwrap_err().reason();
        assert!(lost.contains(reason), "{lost}");
        assert!(self.memory.supply_all().unwrap_err().reason().contains(reason));
        let missing = self.memory.read(page * PAGE_BYTES as u64, &mut [0]).unwrap_err().to_string();
        assert!(missing.contains("lost"), "{missing}");
        assert!(!self.fill.is_complete() && self.fill.time().is_none());
    }
}

#[test]
fn guests_find_the_right_bytes_up_to_odd_ends_on_every_kind_of_memory_and_granule() {
    use PageSize::{Base, Huge, Transparent};
    with_each_kernel(|simulated| {
        let kinds =
            [Base, Transparent, Huge].into_iter().flat_map(|p| [Backing::Private(p), Backing::Shared(p)]);
        for (granule_pages, backing) in
            [1, 2, 16, 512].into_iter().flat_map(|g| kinds.clone().map(move |k| (g, k)))
        {
            let huge = matches!(backing, Backing::Private(Huge) | Backing::Shared(Huge));
            for pages in if huge { [1024].as_slice() } else { &[256, SHORT] } {
                let held: &[u32] = if *pages < 512 { &[0] } else { &[0, 1] };
                let (source, options) =
                    (TestSource::new(*pages, held), LazyOptions { granule_pages, ..ON_DEMAND });
                let held = source.held.clone();
                let scene = match start(simulated, source, backing.clone(), &options, &[]) {
                    Err(Error::Memory(error @ memory::Error::TooFewHugePages { .. })) => {
                        println!("SKIPPED on huge pages: {error}");
                        continue;
                    }
                    scene => scene.unwrap(),
                };
                let edges = EDGES.into_iter().filter(|page| page < pages);
                let guests: Vec<_> = edges.map(|page| (page, scene.guest_reads(page))).collect();
                for (page, guest) in guests {
                    let bytes = guest.join().unwrap().unwrap();
                    assert!(
                        bytes == content(PageNumber(page)),
                        "{page} of {pages} on {backing:?}, {granule_pages}"
                    );
                }
                scene.assert_right(&held);
                scene.memory.supply_all().unwrap();
                scene.fill.wait().unwrap();
                scene.assert_right(&held);
                assert_eq!(scene.fill.arrived_bytes(), pages * PAGE_BYTES as u64);
                assert!(scene.fill.is_complete() && scene.fill.time().is_some());
            }
        }
    });
}

#[test]
fn memory_above_the_gap_arrives_in_its_own_place() {
    with_each_kernel(|simulated| {
        let source = TestSource::new(ABOVE_GAP, &[0, 1535, 1536, 1537]);
        let held = source.held.clone();
        let scene = Scene::on_demand(simulated, source);
        let guest = |region, page: usize| scene.reader.page(region, page * PAGE_BYTES).unwrap();
        let (first, last) = (1536 * 512, ABOVE_GAP - 1);
        assert!(guest(1, 0) == content(PageNumber(first)));
        assert!(guest(1, 512 + 36) == content(PageNumber(last)));
        assert!(guest(0, 1535 * 512) == content(PageNumber(1535 * 512)));
        // A chunk that the source does not hold is zero, and nothing is asked for it.
        assert!(guest(0, 512) == [0; PAGE_BYTES]);
        wait_for("three faults", || scene.fill.faults().len() == 3);
        let faults: Vec<u64> = scene.fill.faults().iter().map(|fault| fault.page.0).collect();
        assert_eq!(faults, [first, last, 1535 * 512]);
        assert_eq!(scene.arrived_pages(), 3);
        scene.memory.supply_all().unwrap();
        scene.assert_right(&held);
    });
}

#[test]
fn this_process_waits_for_exactly_the_pages_that_it_reads() {
    with_each_kernel(|simulated| {
        let page = PAGE_BYTES;
        for (offset, len, pages) in [
            (0, 0, 0),
            (0, 1, 1),
            (page - 1, 1, 1),
            (page - 1, 2, 2),
            (5 * page, 3 * page, 3),
            (CHUNK_BYTES - 1, 2, 2),
            (300 * page, CHUNK_BYTES, 512),
            (CHUNK_BYTES + 299 * page, page, 1),
            (CHUNK_BYTES + 300 * page - 1, 1, 1),
            (0, 812 * page, 812),
        ] {
            let scene = Scene::on_demand(simulated, TestSource::new(SHORT, &[0, 1]));
            let mut bytes = vec![0x77; len];
            scene.memory.regions()[0].read(offset, &mut bytes).unwrap();
            let expected = |at: usize| content(PageNumber((at / page) as u64))[at % page];
            assert!(bytes.iter().zip(offset..).all(|(byte, at)| *byte == expected(at)), "{len} at {offset}");
            assert_eq!(scene.arrived_pages(), pages, "{len} at {offset}");
            // A write waits as well: the rest of its page has to be there before it.
            scene.memory.regions()[0].write(offset, &bytes).unwrap();
            assert!(scene.fill.faults().is_empty(), "this process faulted for {len} at {offset}");
            let mut beyond = vec![0; len + 812 * page];
            assert!(scene.memory.regions()[0].read(offset + 1, &mut beyond).is_err());
        }
    });
}

#[test]
fn the_working_set_is_there_before_anything_runs_and_the_rest_waits_to_be_wanted() {
    with_each_kernel(|simulated| {
        let options = LazyOptions { granule_pages: 16, ..ON_DEMAND };
        // The last granule of the short chunk has 12 pages. The guest has no page 812 or 5000.
        let first = [600, 17, 18, 811, 812, 5000, u64::MAX];
        let scene = start(simulated, TestSource::new(SHORT, &[0, 1]), base(), &options, &first).unwrap();
        assert_eq!(scene.arrived_pages(), 16 + 16 + 12);
        assert!(scene.guest_reads(0).join().unwrap().unwrap() == content(PageNumber(0)));
        wait_for("one fault", || scene.fill.faults().len() == 1);
        assert_eq!(scene.arrived_pages(), 16 + 16 + 12 + 16);
        assert!(!scene.fill.is_complete());
    });
}

#[test]
fn a_background_fill_ends_by_itself_and_leaves_zeros_to_the_kernel() {
    with_each_kernel(|simulated| {
        let options = LazyOptions { background: Some(Duration::ZERO), ..ON_DEMAND };
        let source = TestSource::new(SHORT, &[0, 1]);
        let (held, exists) = (source.held.clone(), Arc::downgrade(&source.exists));
        let scene = start(simulated, source, base(), &options, &[]).unwrap();
        scene.fill.wait().unwrap();
        // The threads end with their work, and the source is closed.
        wait_for("the source is closed", || exists.strong_count() == 0);
        let zeros = |page: u64| content(PageNumber(page)) == [0; PAGE_BYTES];
        match &scene.simulated {
            Some(kernel) => {
                let wanted = (0..SHORT).filter(|page| !zeros(*page)).count();
                assert_eq!(kernel.with(|state| state.installed.len()), wanted);
            }
            None => {
                let mut touched = [0; 13];
                scene.memory.regions()[0].touched(0, 812, &mut touched).unwrap();
                for page in 0..SHORT {
                    let bit = touched[usize::try_from(page / 64).unwrap()] >> (page % 64) & 1 == 1;
                    assert_eq!(bit, !zeros(page), "page {page}");
                }
            }
        }
        scene.assert_right(&held);
        for page in EDGES {
            assert!(scene.guest_reads(page).join().unwrap().unwrap() == content(PageNumber(page)));
        }
        assert!(scene.fill.faults().is_empty());
    });
}

#[test]
fn a_page_that_cannot_be_brought_is_refused_to_all_who_wait_and_never_becomes_zeros() {
    for trouble in [Trouble::Fail, Trouble::Panic] {
        with_each_kernel(move |simulated| {
            let scene =
                Scene::on_demand(simulated, TestSource::new(SHORT, &[0, 1]).troubled(700, trouble.clone()));
            let before = scene.guest_reads(699).join().unwrap().unwrap();
            assert!(before == content(PageNumber(699)));
            let stops = Arc::new(AtomicUsize::new(0));
            let stop = Arc::clone(&stops);
            scene.fill.0.on_loss(Box::new(move |_| {
                stop.fetch_add(1, Ordering::Relaxed);
            }));
            let waiting = [700, 700, 811].map(|page| scene.guest_reads(page));
            let [one, other, last] = waiting.map(|guest| guest.join().unwrap());
            assert!(one.is_err() && other.is_err(), "a page that was lost could be read");
            // The machine is stopped before any of its threads learns of the loss, and once.
            assert_eq!(stops.load(Ordering::Relaxed), 1);
            // The last page was either brought before the loss or refused after it.
            assert!(last.is_err() || last.unwrap() == content(PageNumber(811)));
            assert!(scene.guest_reads(1).join().unwrap().is_err(), "nothing is brought after a loss");
            assert!(scene.guest_reads(699).join().unwrap().unwrap() == before, "what is there stays");
            let reason = match trouble {
                Trouble::Fail => "cannot bring page 188 of chunk 1: the disk is gone",
                _ => "the fault handler has died",
            };
            scene.assert_lost(2, reason);
            // What asks to be told after the loss is told at once.
            let stop = Arc::clone(&stops);
            scene.fill.0.on_loss(Box::new(move |_| {
                stop.fetch_add(1, Ordering::Relaxed);
            }));
            assert_eq!(stops.load(Ordering::Relaxed), 2);
        });
    }
}

#[test]
fn what_the_fill_or_a_request_cannot_bring_is_lost_for_all() {
    with_each_kernel(|simulated| {
        let background = LazyOptions { background: Some(Duration::ZERO), ..ON_DEMAND };
        let source = |trouble| TestSource::new(SHORT, &[0, 1]).troubled(700, trouble);
        for (trouble, reason) in
            [(Trouble::Fail, "the disk is gone"), (Trouble::Panic, "background fill has died")]
        {
            let scene = start(simulated, source(trouble), base(), &background, &[]).unwrap();
            assert!(scene.fill.wait().is_err());
            assert!(scene.guest_reads(700).join().unwrap().is_err());
            scene.assert_lost(701, reason);
        }
        let scene = Scene::on_demand(simulated, source(Trouble::Fail));
        assert!(scene.memory.read(700 * 4096, &mut [0]).is_err());
        scene.assert_lost(700, "the disk is gone");

        let source = source(Trouble::Fail);
        let exists = Arc::downgrade(&source.exists);
        let error = start(simulated, source, base(), &ON_DEMAND, &[3, 700]).map(|_| ()).unwrap_err();
        assert!(matches!(&error, Error::Lost(lost) if lost.reason().contains("the disk is gone")), "{error}");
        assert_eq!(exists.strong_count(), 0, "threads are gone when the error is returned");
    });
}

#[test]
fn memory_that_is_dropped_while_it_arrives_ends_its_threads_and_says_so() {
    with_each_kernel(|simulated| {
        let source = TestSource::new(ABOVE_GAP, &[0, 1, 1537]);
        let exists = Arc::downgrade(&source.exists);
        let Scene { memory, fill, .. } = Scene::on_demand(simulated, source);
        memory.read(0, &mut [0; 10]).unwrap();
        let watching = thread::spawn({
            let fill = fill.clone();
            move || fill.wait()
        });
        drop(memory);
        assert_eq!(exists.strong_count(), 0);
        for lost in [watching.join().unwrap(), fill.wait()] {
            assert!(lost.unwrap_err().reason().contains("dropped"));
        }
        assert_eq!((fill.arrived_bytes(), fill.is_complete()), (PAGE_BYTES as u64, false));
    });
}

#[test]
fn options_and_memory_that_do_not_fit_are_refused() {
    let from = |backing, granule_pages| {
        let options = LazyOptions { granule_pages, ..ON_DEMAND };
        memory_from(Box::new(TestSource::new(512, &[0])), backing, &options).map(|_| ()).unwrap_err()
    };
    for granule in [0, 3, 511, 513, 1024] {
        assert!(matches!(from(base(), granule), Error::Granule(found) if found == granule));
    }
    let template = memory::memfd::create(c"template", 512 * 4096, false).unwrap();
    assert!(matches!(from(Backing::OverTemplate(Arc::new(template)), 1), Error::NotOwn(_)));
}
