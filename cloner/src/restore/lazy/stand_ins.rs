//! What lazy memory depends on, as a test directs it: a source of pages, and a kernel that reports and installs them.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::ops::Range;
use std::panic::resume_unwind;
use std::process;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use cloner_codec::chunk::{PAGE_BYTES, Page, PageIndex};
use rustix::io::Errno;
use vmm::memory::userfault::InstallOutcome;
use vmm::memory::{GuestMemory, Layout, Mapping, ReadError, RemoteMemory, RemotePages, StillMemory};
use vmm_sys_util::eventfd::EventFd;

use super::faults::PageFaults;
use super::source::{PageSource, SourceError};
use crate::layout::{Chunk, ChunkIndex, PageNumber, chunk_at};
use crate::sync::lock;

/// The longest that anything a test waits for may take.
pub(super) const BOUND: Duration = Duration::from_secs(60);

/// Runs a test on a thread of its own, and fails if it does not end.
pub(super) fn bounded(test: impl FnOnce() + Send + 'static) {
    let (done, ended) = channel();
    let thread = thread::spawn(move || {
        test();
        done.send(()).unwrap();
    });
    match ended.recv_timeout(BOUND) {
        Err(RecvTimeoutError::Timeout) => panic!("the test has not ended after {BOUND:?}"),
        _ => thread.join().unwrap_or_else(|panic| resume_unwind(panic)),
    }
}

/// Waits until `holds`, and fails if that takes too long.
pub(super) fn wait_for(what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        assert!(started.elapsed() < BOUND, "{what}");
        thread::sleep(Duration::from_millis(1));
    }
}

/// What a page of the source holds: of twenty pages four in a row are zero, and of the others no two are equal.
pub(super) fn content(page: PageNumber) -> Page {
    let mut bytes = [0; PAGE_BYTES];
    if !(7..11).contains(&(page.0 % 20)) {
        let words = bytes.as_chunks_mut().0.iter_mut().zip(0_u64..);
        words.for_each(|(word, index)| *word = (page.0 << 16 | index << 1 | 1).to_le_bytes());
    }
    bytes
}

/// What happens to the thread that asks for a certain page.
#[derive(Debug, Clone)]
pub(super) enum Trouble {
    Fail,
    Panic,
    /// It waits until the gate is opened.
    Stall(Gate),
}

/// Closed until it is opened.
#[derive(Debug, Clone, Default)]
pub(super) struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub(super) fn open(&self) {
        *lock(&self.0.0) = true;
        self.0.1.notify_all();
    }

    /// Waits longer than a test may take.
    fn pass(&self) {
        drop(self.0.1.wait_timeout_while(lock(&self.0.0), 2 * BOUND, |open| !*open));
    }
}

/// A guest's memory, of which only some chunks were touched.
#[derive(Debug, Clone)]
pub(super) struct TestSource {
    pub(super) layout: Layout,
    pub(super) held: Vec<Chunk>,
    pub(super) trouble: Option<(PageNumber, Trouble)>,
    /// Tells whether the source still exists.
    pub(super) exists: Arc<()>,
}

impl TestSource {
    /// A guest with `pages` pages of memory, of which these chunks are held.
    pub(super) fn new(pages: u64, held: &[u32]) -> Self {
        let layout = Layout::new(pages * PAGE_BYTES as u64).unwrap();
        let held = held.iter().map(|index| chunk_at(layout, ChunkIndex(*index)).unwrap()).collect();
        Self { layout, held, trouble: None, exists: Arc::default() }
    }

    pub(super) fn troubled(self, page: u64, trouble: Trouble) -> Self {
        Self { trouble: Some((PageNumber(page), trouble)), ..self }
    }
}

impl PageSource for TestSource {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn chunks(&self) -> Vec<Chunk> {
        self.held.clone()
    }

    fn page(&self, chunk: &Chunk, page: PageIndex, out: &mut Page) -> Result<(), SourceError> {
        assert!(self.held.contains(chunk) && page.get() < chunk.pages, "{page:?} of {chunk:?}");
        let number = PageNumber::new(chunk.index, page);
        match self.trouble.as_ref().filter(|(at, _)| *at == number) {
            Some((_, Trouble::Fail)) => return Err("the disk is gone".into()),
            Some((_, Trouble::Panic)) => panic!("a page that the test asked to panic at"),
            Some((_, Trouble::Stall(gate))) => gate.pass(),
            None => {}
        }
        *out = content(number);
        Ok(())
    }
}

/// What the kernel does with the next call that installs pages. Without one of these it installs all of them.
#[derive(Debug, Clone, Copy)]
pub(super) enum Reply {
    /// Stops after this many pages, with `EAGAIN`.
    Part(usize),
    /// Finds that another thread has installed the page with this index, counted from the first of the call.
    Raced(usize),
    /// Finds that the range is no longer registered.
    Unregistered,
    Refuse(Errno),
}

/// The byte that fills a page which another thread has installed.
pub(super) const RACED: u8 = 0xee;

/// A kernel whose replies a test chooses. Its faults are those of threads that read through [`GuestReader`].
#[derive(Debug, Clone, Default)]
pub(super) struct SimulatedKernel(Arc<(Mutex<KernelState>, Condvar)>);

#[derive(Debug, Default)]
pub(super) struct KernelState {
    pub(super) script: VecDeque<Reply>,
    pub(super) registered: Vec<Range<u64>>,
    /// Addresses of the pages that are there.
    pub(super) installed: BTreeSet<u64>,
    /// Addresses and lengths of the ranges that were woken.
    pub(super) woken: Vec<(u64, usize)>,
    calls: usize,
    faults: VecDeque<u64>,
}

/// Far more calls than any test makes: a pager that asks in vain forever is stopped.
const CALLS_MAX: usize = 100_000;

impl SimulatedKernel {
    pub(super) fn scripted(script: &[Reply]) -> Self {
        let this = Self::default();
        this.with(|state| state.script = script.iter().copied().collect());
        this
    }

    pub(super) fn open(&self) -> Box<SimulatedDescriptor> {
        Box::new(SimulatedDescriptor(self.clone()))
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&mut KernelState) -> T) -> T {
        let result = look(&mut lock(&self.0.0));
        self.0.1.notify_all();
        result
    }

    fn install(
        &self,
        mapping: &Mapping,
        offset: usize,
        len_bytes: usize,
        write: impl Fn(usize),
    ) -> io::Result<InstallOutcome> {
        self.with(|state| {
            state.calls += 1;
            assert!(state.calls < CALLS_MAX, "the pager does not get on");
            assert!(len_bytes > 0 && len_bytes.is_multiple_of(PAGE_BYTES), "{len_bytes} bytes");
            let (pages, first) = (len_bytes / PAGE_BYTES, mapping.host_address() + offset as u64);
            let address = |page: usize| first + (page * PAGE_BYTES) as u64;
            let limit = match state.script.pop_front() {
                None => pages,
                Some(Reply::Part(limit)) => limit,
                Some(Reply::Raced(page)) => {
                    let page = page.min(pages - 1);
                    mapping.write(offset + page * PAGE_BYTES, &[RACED; PAGE_BYTES]).unwrap();
                    state.installed.insert(address(page));
                    pages
                }
                Some(Reply::Unregistered) => return Ok(InstallOutcome::Unregistered),
                Some(Reply::Refuse(error)) => return Err(error.into()),
            };
            let is_registered = |range: &Range<u64>| range.start <= first && address(pages) <= range.end;
            if !state.registered.iter().any(is_registered) {
                return Ok(InstallOutcome::Unregistered);
            }
            if state.installed.contains(&first) {
                return Ok(InstallOutcome::Present);
            }
            let missing = (0..pages.min(limit)).take_while(|page| !state.installed.contains(&address(*page)));
            let missing: Vec<usize> = missing.collect();
            for page in &missing {
                write(page * PAGE_BYTES);
                state.installed.insert(address(*page));
            }
            Ok(InstallOutcome::Bytes(missing.len() * PAGE_BYTES))
        })
    }
}

fn range(mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<Range<u64>> {
    mapping.check(offset, len_bytes).map_err(io::Error::other)?;
    let start = mapping.host_address() + offset as u64;
    Ok(start..start + len_bytes as u64)
}

/// The way to a simulated kernel. As with the real one, closing it leaves missing pages to the kernel.
#[derive(Debug)]
pub(super) struct SimulatedDescriptor(SimulatedKernel);

impl Drop for SimulatedDescriptor {
    fn drop(&mut self) {
        self.0.with(|state| state.registered.clear());
    }
}

impl PageFaults for SimulatedDescriptor {
    fn register(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        let range = range(mapping, offset, len_bytes)?;
        self.0.with(|state| state.registered.push(range));
        Ok(())
    }

    fn unregister(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        let range = range(mapping, offset, len_bytes)?;
        self.0.with(|state| state.registered.retain(|registered| *registered != range));
        Ok(())
    }

    fn copy(&self, mapping: &Mapping, offset: usize, bytes: &[u8]) -> io::Result<InstallOutcome> {
        self.0.install(mapping, offset, bytes.len(), |at| {
            mapping.write(offset + at, &bytes[at..at + PAGE_BYTES]).unwrap();
        })
    }

    fn zero(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<InstallOutcome> {
        self.0.install(mapping, offset, len_bytes, |at| {
            mapping.write(offset + at, &[0; PAGE_BYTES]).unwrap();
        })
    }

    fn wake(&self, mapping: &Mapping, offset: usize, len_bytes: usize) -> io::Result<()> {
        let range = range(mapping, offset, len_bytes)?;
        self.0.with(|state| state.woken.push((range.start, len_bytes)));
        Ok(())
    }

    fn wait(&self, waker: &EventFd, limit: Duration) -> io::Result<()> {
        let started = Instant::now();
        while self.0.with(|state| state.faults.is_empty())
            && waker.read().is_err()
            && started.elapsed() < limit
        {
            thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }

    fn next_fault(&self) -> io::Result<Option<u64>> {
        Ok(self.0.with(|state| state.faults.pop_front()))
    }
}

/// Reads memory as a guest does: inside the kernel, which waits for missing pages, and gives an error if access was taken away.
#[derive(Debug)]
pub(super) struct GuestReader {
    memory: RemoteMemory,
    host_addresses: Vec<u64>,
    simulated: Option<SimulatedKernel>,
}

impl GuestReader {
    pub(super) fn new(memory: &GuestMemory, simulated: Option<SimulatedKernel>) -> Self {
        let host_addresses: Vec<u64> = memory.host_addresses().collect();
        let (layout, at) = (memory.layout(), host_addresses.clone());
        let memory = RemoteMemory::new(process::id(), None, layout, at, RemotePages::Private).unwrap();
        Self { memory, host_addresses, simulated }
    }

    /// The page at an offset of a region, once it is there.
    pub(super) fn page(&self, region: usize, offset: usize) -> Result<Page, ReadError> {
        let mut page = [0; PAGE_BYTES];
        if let Some(SimulatedKernel(shared)) = &self.simulated {
            let mut start = [0];
            let address = self.host_addresses[region] + offset as u64;
            let mut state = lock(&shared.0);
            loop {
                // The kernel checks first whether the page may be read at all.
                self.memory.read(region, offset, &mut start)?;
                let is_registered = state.registered.iter().any(|range| range.contains(&address));
                if !is_registered || state.installed.contains(&address) {
                    break;
                }
                let woken = state.woken.len();
                state.faults.push_back(address);
                let waits = |state: &mut KernelState| {
                    let is_registered = state.registered.iter().any(|range| range.contains(&address));
                    let wakes =
                        |(start, len): &(u64, usize)| (*start..*start + *len as u64).contains(&address);
                    is_registered
                        && !state.installed.contains(&address)
                        && !state.woken[woken..].iter().any(wakes)
                };
                let (after, timeout) = shared.1.wait_timeout_while(state, BOUND, waits).unwrap();
                assert!(!timeout.timed_out(), "nothing releases the thread that waits for {address:#x}");
                state = after;
            }
        }
        self.memory.read(region, offset, &mut page)?;
        Ok(page)
    }
}
