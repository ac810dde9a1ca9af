//! The pager by itself, over a kernel that installs less than it is asked to.

use super::super::stand_ins::{
    GuestReader, RACED, Reply, SimulatedKernel, TestSource, Trouble, bounded, content,
};
use super::*;

/// Pages of a guest with a short chunk below the gap for devices, and of one with a short chunk above it.
const SHORT: u64 = 512 + 300;
const ABOVE_GAP: u64 = GAP_CHUNKS as u64 * 512 + 512 + 37;
/// Number of chunks below the gap, if it is full there.
const GAP_CHUNKS: u32 = 1536;

struct Scene {
    kernel: SimulatedKernel,
    memory: GuestMemory,
    pager: Pager,
}

fn scene(source: TestSource, granule_pages: usize, script: &[Reply]) -> Scene {
    let kernel = SimulatedKernel::scripted(script);
    let memory = GuestMemory::new(source.layout, Backing::Private(PageSize::Base)).unwrap();
    let pager = Pager::new(kernel.open(), Box::new(source), &memory, granule_pages, Instant::now()).unwrap();
    Scene { kernel, memory, pager }
}

impl Scene {
    fn bring(&self, chunk: usize, pages: Range<usize>, zeros: ZeroPages) -> Result<(), LossReason> {
        let chunk = self.pager.chunks()[chunk];
        self.pager.bring(&chunk, pages, zeros, &mut vec![0x77; CHUNK_BYTES])
    }

    fn arrived(&self) -> u64 {
        self.pager.fill().arrived_bytes() / PAGE_BYTES as u64
    }

    fn address(&self, chunk: &Chunk, page: usize) -> u64 {
        self.pager.regions[chunk.region].mapping.host_address() + (chunk.offset + page * PAGE_BYTES) as u64
    }

    /// Asserts that of all chunks exactly these pages of one are there, and hold what they should.
    fn assert_there(&self, chunk: usize, is_there: impl Fn(usize) -> bool, what: &str) {
        let raced = self.kernel.with(|state| state.woken.clone());
        for (number, chunk) in self.pager.chunks().iter().map(|at| (*at == self.pager.chunks()[chunk], at)) {
            for page in 0..chunk.pages {
                let (place, address) = (PageInChunk { chunk: *chunk, page }, self.address(chunk, page));
                let there = number && is_there(page);
                assert_eq!(self.pager.is_present(chunk, page), there, "{what}: {place:?}");
                assert_eq!(
                    self.kernel.with(|state| state.installed.contains(&address)),
                    there,
                    "{what}: {place:?}"
                );
                let mut bytes = [0; PAGE_BYTES];
                let offset = chunk.offset + page * PAGE_BYTES;
                self.memory.regions()[chunk.region].mapping().read(offset, &mut bytes).unwrap();
                let expected = match there {
                    // What another thread has installed stays, and the threads that wait for it go on.
                    true if raced.contains(&(address, PAGE_BYTES)) => [RACED; PAGE_BYTES],
                    true => content(place.number()),
                    false => [0; PAGE_BYTES],
                };
                assert!(bytes == expected, "{what}: wrong bytes on {place:?}");
            }
        }
        let there = (0..self.pager.chunks()[chunk].pages).filter(|page| is_there(*page)).count();
        assert_eq!(self.arrived(), there as u64, "{what}");
    }
}

#[test]
fn every_page_gets_its_own_bytes_however_little_is_installed_at_a_time() {
    let scripts: &[&[Reply]] = &[
        &[],
        &[Reply::Part(1), Reply::Part(2), Reply::Part(3)],
        &[Reply::Part(0), Reply::Part(0), Reply::Part(1), Reply::Part(0)],
        &[Reply::Raced(0), Reply::Raced(0)],
        &[Reply::Raced(1), Reply::Raced(0), Reply::Part(0), Reply::Raced(2)],
        &[Reply::Part(1), Reply::Raced(1), Reply::Part(0), Reply::Part(1), Reply::Raced(0)],
    ];
    for script in scripts {
        for (chunk, pages) in
            [(0, 0..512), (1, 0..300), (1, 299..300), (1, 62..67), (0, 509..512), (0, 7..12), (0, 7..7)]
        {
            for zeros in [ZeroPages::Install, ZeroPages::Leave] {
                let scene = scene(TestSource::new(SHORT, &[0, 1]), 1, script);
                scene.bring(chunk, pages.clone(), zeros).unwrap();
                let number = |page| PageNumber((chunk * CHUNK_PAGES + page) as u64);
                let left = |page| zeros == ZeroPages::Leave && is_zero(&content(number(page)));
                let what = format!("{script:?}, {pages:?} of chunk {chunk}, {zeros:?}");
                scene.assert_there(chunk, |page| pages.contains(&page) && !left(page), &what);
                // Nothing is left to be done, and nothing is done.
                scene.kernel.with(|state| state.script = [Reply::Refuse(rustix::io::Errno::IO)].into());
                if zeros == ZeroPages::Install {
                    scene.bring(chunk, pages.clone(), zeros).unwrap();
                }
            }
        }
    }
}

#[test]
fn random_partial_success_leaves_no_page_out_and_none_wrong() {
    let mut seed = 14_u64;
    let mut below = |bound: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(seed >> 33).unwrap() % bound
    };
    for round in 0..60 {
        let script: Vec<Reply> = (0..40)
            .map(|_| if below(2) == 0 { Reply::Part(below(9)) } else { Reply::Raced(below(4)) })
            .collect();
        let scene = scene(TestSource::new(ABOVE_GAP, &[0, GAP_CHUNKS, GAP_CHUNKS + 1]), 1, &script);
        let chunk = below(3);
        let start = below(scene.pager.chunks()[chunk].pages);
        let end = (start + below(40)).min(scene.pager.chunks()[chunk].pages);
        scene.bring(chunk, start..end, ZeroPages::Install).unwrap();
        let what = format!("round {round}: {start}..{end} of chunk {chunk}, {script:?}");
        scene.assert_there(chunk, |page| (start..end).contains(&page), &what);
    }
}

#[test]
fn a_page_is_brought_with_its_granule_up_to_the_end_of_its_chunk() {
    for granule in [1, 2, 16, 64, 256, 512] {
        for page in [0, 1, 15, 16, 255, 256, 288, 299] {
            let scene = scene(TestSource::new(SHORT, &[1]), granule, &[]);
            let place = PageInChunk { chunk: scene.pager.chunks()[0], page };
            scene.pager.bring_around(&place, &mut vec![0; CHUNK_BYTES]).unwrap();
            let of_granule = |other: usize| other / granule == page / granule;
            scene.assert_there(0, of_granule, &format!("granule {granule}, page {page}"));
        }
    }
}

#[test]
fn huge_pages_are_brought_whole_and_once() {
    for script in [&[][..], &[Reply::Part(0), Reply::Part(0)]] {
        let mut scene = scene(TestSource::new(1024, &[0, 1]), 1, script);
        scene.pager.huge = true;
        for _ in 0..2 {
            scene.bring(1, 17..18, ZeroPages::Leave).unwrap();
            scene.assert_there(1, |_| true, "a huge page");
            scene.kernel.with(|state| state.script = [Reply::Refuse(rustix::io::Errno::IO)].into());
        }
    }
    // Another thread has installed it: all of it is there, and the threads that wait for any part of it go on.
    let mut scene = scene(TestSource::new(1024, &[0, 1]), 1, &[Reply::Raced(0)]);
    scene.pager.huge = true;
    scene.bring(1, 17..18, ZeroPages::Leave).unwrap();
    let chunk = scene.pager.chunks()[1];
    assert!((0..512).all(|page| scene.pager.is_present(&chunk, page)));
    let woken = scene.kernel.with(|state| state.woken.clone());
    assert_eq!((woken, scene.arrived()), (vec![(scene.address(&chunk, 0), CHUNK_BYTES)], 512));
}

#[test]
fn nothing_more_is_installed_once_the_memory_is_unregistered_lost_or_refused() {
    let source = || TestSource::new(SHORT, &[0, 1]);
    // None of these pages holds zeros, so they are one run.
    let (pages, there) = (2..6, |page| (2..4).contains(&page));
    let calls = [Reply::Part(2), Reply::Unregistered, Reply::Refuse(rustix::io::Errno::IO)];
    let gone = scene(source(), 1, &calls);
    gone.bring(1, pages.clone(), ZeroPages::Install).unwrap();
    gone.assert_there(1, there, "unregistered");

    let refused = scene(source(), 1, &[Reply::Part(2), Reply::Refuse(rustix::io::Errno::NOMEM)]);
    let error = refused.bring(1, pages, ZeroPages::Install).unwrap_err();
    assert!(matches!(error, LossReason::Kernel(error) if error.raw_os_error() == Some(libc::ENOMEM)));
    refused.assert_there(1, there, "refused");

    let failing = scene(source().troubled(512 + 2, Trouble::Fail), 1, &[]);
    let error = failing.bring(1, 0..300, ZeroPages::Install).unwrap_err();
    assert!(matches!(error, LossReason::Page { chunk: 1, page: 2, .. }), "{error:?}");

    let lost = scene(source(), 1, &[]);
    lost.pager.status.lose(LossReason::Dropped);
    lost.bring(1, 0..300, ZeroPages::Install).unwrap();
    lost.assert_there(1, |_| false, "lost");
}

#[test]
fn only_a_missing_page_is_refused_and_all_who_wait_for_it_are_woken() {
    bounded(|| {
        for huge in [false, true] {
            let mut scene = scene(TestSource::new(SHORT, &[0, 1]), 1, &[]);
            let chunk = scene.pager.chunks()[usize::from(!huge)];
            scene.bring(usize::from(!huge), 5..6, ZeroPages::Install).unwrap();
            scene.pager.huge = huge;
            let there = PageInChunk { chunk, page: 5 };
            let missing = PageInChunk { chunk, page: chunk.pages - 1 };
            scene.pager.status.lose(LossReason::Dropped);
            scene.pager.refuse(&there).unwrap();
            let reader = GuestReader::new(&scene.memory, None);
            let read = |page| reader.page(chunk.region, chunk.offset + page * PAGE_BYTES);
            assert!(read(5).unwrap() == content(there.number()));
            scene.pager.refuse(&missing).unwrap();
            let forbidden: Vec<usize> = (0..chunk.pages).filter(|page| read(*page).is_err()).collect();
            let (all, last) = ((0..chunk.pages).collect(), vec![chunk.pages - 1]);
            assert_eq!(forbidden, if huge { all } else { last });
            let woken = scene.kernel.with(|state| state.woken.clone());
            let (start, first) = (scene.address(&chunk, 0), scene.address(&chunk, 5));
            let wanted = match huge {
                true => vec![(start, CHUNK_BYTES); 2],
                false => vec![(first, PAGE_BYTES), (scene.address(&chunk, chunk.pages - 1), PAGE_BYTES)],
            };
            assert_eq!(woken, wanted);
        }
    });
}

#[test]
fn what_is_registered_is_what_the_chunks_cover_and_no_more() {
    let last = GAP_CHUNKS + 1;
    let scene = scene(TestSource::new(ABOVE_GAP, &[0, 1, 3, GAP_CHUNKS - 1, GAP_CHUNKS, last]), 1, &[]);
    let [low, high] = &scene.pager.regions[..] else { panic!("two regions") };
    let chunk = |at: usize| at * CHUNK_BYTES;
    let gap = GAP_CHUNKS as usize;
    assert_eq!(low.registered, [chunk(0)..chunk(2), chunk(3)..chunk(4), chunk(gap - 1)..chunk(gap)]);
    assert_eq!(high.registered[..], *std::slice::from_ref(&(0..chunk(1) + 37 * PAGE_BYTES)));
    let registered = scene.kernel.with(|state| state.registered.clone());
    assert_eq!(registered.len(), 4);
    assert_eq!(registered[3].end, high.mapping.host_address() + (chunk(1) + 37 * PAGE_BYTES) as u64);
    assert_eq!(scene.pager.fill().total_bytes(), chunk(5) as u64 + 37 * PAGE_BYTES as u64);
    scene.pager.complete().unwrap();
    assert!(scene.kernel.with(|state| state.registered.is_empty()));
    assert!(scene.pager.status.is_complete());
}

#[test]
fn an_address_an_offset_and_a_number_lead_to_the_same_page() {
    for (pages, regions) in [(256, 1), (511, 1), (SHORT, 1), (ABOVE_GAP, 2)] {
        let scene = scene(TestSource::new(pages, &[]), 1, &[]);
        let memory = &scene.memory;
        assert_eq!(memory.regions().len(), regions);
        for (region, mapped) in memory.regions().iter().enumerate() {
            let (start, len) = (mapped.mapping().host_address(), mapped.mapping().len_bytes());
            let edges = [0, 1, 511, 512, 513, len / PAGE_BYTES / 2, len / PAGE_BYTES - 1];
            for page in edges.into_iter().filter(|page| page * PAGE_BYTES < len) {
                let chunk =
                    if region == 0 { 0 } else { GAP_CHUNKS } + u32::try_from(page / CHUNK_PAGES).unwrap();
                let number = PageNumber(u64::from(chunk) * 512 + (page % CHUNK_PAGES) as u64);
                for byte in [0, PAGE_BYTES - 1] {
                    let offset = page * PAGE_BYTES + byte;
                    let found = scene.pager.at_address(start + offset as u64).unwrap();
                    assert_eq!(found.number(), number, "page {page} of region {region}");
                    assert_eq!(found.chunk.offset + found.page * PAGE_BYTES, page * PAGE_BYTES);
                    assert_eq!((found.chunk.region, found.chunk.index.0), (region, chunk));
                    assert_eq!(scene.pager.at_offset(region, offset).unwrap().number(), number);
                    assert_eq!(scene.pager.at_number(number).unwrap().number(), number);
                }
            }
            assert!(
                scene.pager.at_address(start + len as u64).is_none_or(|place| place.chunk.region != region)
            );
            assert!(scene.pager.at_address(start - 1).is_none_or(|place| place.chunk.region != region));
        }
        // The chunks below the gap are whole if there is memory above it, so numbers have no holes.
        assert!(scene.pager.at_number(PageNumber(pages - 1)).is_some());
        assert!(scene.pager.at_number(PageNumber(pages)).is_none());
        assert!(scene.pager.at_number(PageNumber(u64::MAX)).is_none());
    }
}
