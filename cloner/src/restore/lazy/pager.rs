//! Brings pages: decodes what is missing, installs it, and remembers that it is there.

use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread;
use std::time::Instant;

use cloner_codec::chunk::{CHUNK_BYTES, CHUNK_PAGES, PAGE_BYTES, Page, PageIndex};
use vmm::memory::Mapping;
use vmm::memory::userfault::InstallOutcome;
use vmm::memory::{Backing, GuestMemory, Layout, PageSize};
use vmm_sys_util::eventfd::{EFD_NONBLOCK, EventFd};

use crate::layout::{Chunk, ChunkIndex, PageNumber, chunk_at};

use super::faults::PageFaults;
use super::source::PageSource;
use super::status::{ArrivalStatus, Fill};
use super::{Error, LossReason};

/// What to do with pages that are zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ZeroPages {
    /// Install them, because something waits for them.
    Install,
    /// Leave them missing: the kernel supplies zeros once the range is unregistered.
    Leave,
}

/// Everything needed to bring pages. Shared by the threads that do; when the last of them ends, source and descriptor are closed.
#[derive(Debug)]
pub(super) struct Pager {
    pub(super) status: Arc<ArrivalStatus>,
    pub(super) userfault: Box<dyn PageFaults>,
    /// Wakes the server when there is something to do besides faults.
    pub(super) waker: EventFd,
    source: Box<dyn PageSource>,
    layout: Layout,
    /// The chunks that are to arrive, by ascending index. For all others, the kernel supplies zeros.
    chunks: Vec<Chunk>,
    /// For each of those chunks, the pages that are there.
    present: Box<[PresentPages]>,
    regions: Vec<PagedRegion>,
    granule_pages: usize,
    /// Whether the memory is made of 2 MiB pages, which are installed whole.
    huge: bool,
    /// Locked for reading to install pages, and for writing to refuse a page for good.
    installing: RwLock<()>,
}

#[derive(Debug)]
struct PagedRegion {
    mapping: Arc<Mapping>,
    first_chunk: u32,
    /// The ranges that are registered, in bytes from the start of the region.
    registered: Vec<Range<usize>>,
}

/// The pages of a chunk that are there: page `64 * i + j` is bit `j` of word `i`.
#[derive(Debug, Default)]
struct PresentPages([AtomicU64; CHUNK_PAGES / 64]);

/// A page of the guest, by the chunk that it lies in.
#[derive(Debug, Clone, Copy)]
pub(super) struct PageInChunk {
    pub(super) chunk: Chunk,
    /// Index of the page in the chunk, from 0.
    pub(super) page: usize,
}

impl PageInChunk {
    pub(super) fn number(&self) -> PageNumber {
        PageNumber::new(self.chunk.index, PageIndex::new(self.page).expect("a page of the chunk"))
    }
}

/// What is known of a page before it is installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum PageContent {
    Present,
    Zero,
    Bytes,
}

impl Pager {
    /// Registers the chunks that `source` holds. Nothing may have touched the memory before.
    pub(super) fn new(
        userfault: Box<dyn PageFaults>,
        source: Box<dyn PageSource>,
        memory: &GuestMemory,
        granule_pages: usize,
        started: Instant,
    ) -> Result<Self, Error> {
        let waker = EventFd::new(EFD_NONBLOCK).map_err(Error::Waker)?;
        let chunks = source.chunks();
        let mut first_chunk = 0;
        let mut regions = Vec::new();
        for (number, region) in memory.regions().iter().enumerate() {
            let held = chunks.iter().filter(|chunk| chunk.region == number);
            let region = PagedRegion::new(region.mapping(), first_chunk, held);
            for range in &region.registered {
                let result = userfault.register(&region.mapping, range.start, range.len());
                result.map_err(Error::Register)?;
            }
            let len_chunks = region.mapping.len_bytes().div_ceil(CHUNK_BYTES);
            first_chunk += u32::try_from(len_chunks).expect("64 GiB have 32 Ki chunks");
            regions.push(region);
        }
        let huge =
            matches!(memory.backing(), Backing::Private(PageSize::Huge) | Backing::Shared(PageSize::Huge));
        Ok(Self {
            status: Arc::new(ArrivalStatus::new(
                started,
                chunks.iter().map(|chunk| chunk.pages as u64).sum(),
            )),
            userfault,
            waker,
            source,
            layout: memory.layout(),
            present: chunks.iter().map(|_| PresentPages::default()).collect(),
            chunks,
            regions,
            granule_pages,
            huge,
            installing: RwLock::new(()),
        })
    }

    pub(super) fn fill(&self) -> Fill {
        Fill(Arc::clone(&self.status))
    }

    pub(super) const fn held_chunks(&self) -> usize {
        self.chunks.len()
    }

    /// The chunks that are to arrive.
    pub(super) fn chunks(&self) -> &[Chunk] {
        &self.chunks
    }

    /// The page at a host address, if that belongs to the guest.
    pub(super) fn at_address(&self, address: u64) -> Option<PageInChunk> {
        self.regions.iter().enumerate().find_map(|(number, region)| {
            let offset = address.checked_sub(region.mapping.host_address())?;
            let offset =
                usize::try_from(offset).ok().filter(|offset| *offset < region.mapping.len_bytes())?;
            self.at_offset(number, offset)
        })
    }

    /// The page at an offset of a region.
    pub(super) fn at_offset(&self, region: usize, offset: usize) -> Option<PageInChunk> {
        let chunk =
            u32::try_from(offset / CHUNK_BYTES).ok()?.checked_add(self.regions[region].first_chunk)?;
        let chunk = chunk_at(self.layout, ChunkIndex(chunk))?;
        Some(PageInChunk { chunk, page: offset % CHUNK_BYTES / PAGE_BYTES })
    }

    /// The page with a number, if the guest has one.
    pub(super) fn at_number(&self, number: PageNumber) -> Option<PageInChunk> {
        let (chunk, page) = number.split()?;
        let chunk = chunk_at(self.layout, chunk)?;
        (page.get() < chunk.pages).then(|| PageInChunk { chunk, page: page.get() })
    }

    pub(super) fn is_present(&self, chunk: &Chunk, page: usize) -> bool {
        // Acquire: a thread that sees the bit also sees the page.
        self.present(chunk).is_none_or(|PresentPages(words)| {
            words[page / 64].load(Ordering::Acquire) >> (page % 64) & 1 == 1
        })
    }

    /// `None` for a chunk that holds nothing and so is not to arrive.
    fn present(&self, chunk: &Chunk) -> Option<&PresentPages> {
        let at = self.chunks.binary_search_by_key(&chunk.index, |chunk| chunk.index).ok()?;
        Some(&self.present[at])
    }

    /// Brings a page and its neighbours: the whole granule that the page lies in.
    pub(super) fn bring_around(&self, place: &PageInChunk, scratch: &mut [u8]) -> Result<(), LossReason> {
        let start = place.page & !(self.granule_pages - 1);
        let end = (start + self.granule_pages).min(place.chunk.pages);
        self.bring(&place.chunk, start..end, ZeroPages::Install, scratch)
    }

    /// Brings the pages of the range that are missing. `scratch` has room for a chunk.
    pub(super) fn bring(
        &self,
        chunk: &Chunk,
        pages: Range<usize>,
        zeros: ZeroPages,
        scratch: &mut [u8],
    ) -> Result<(), LossReason> {
        if self.huge {
            return self.bring_whole(chunk, scratch);
        }
        let bytes = |run: &Range<usize>| run.start * PAGE_BYTES..run.end * PAGE_BYTES;
        let mut run = (PageContent::Present, pages.start..pages.start);
        // One step more than there are pages, to end the last run.
        for page in pages.start..=pages.end {
            let content =
                if page < pages.end { self.decode(chunk, page, scratch)? } else { PageContent::Present };
            if content != run.0 {
                match run.0 {
                    PageContent::Present => {}
                    PageContent::Zero if zeros == ZeroPages::Leave => {}
                    PageContent::Zero => self.install(chunk, run.1.clone(), None)?,
                    PageContent::Bytes => {
                        self.install(chunk, run.1.clone(), Some(&scratch[bytes(&run.1)]))?;
                    }
                }
                run = (content, page..page);
            }
            run.1.end = page + 1;
        }
        Ok(())
    }

    fn bring_whole(&self, chunk: &Chunk, scratch: &mut [u8]) -> Result<(), LossReason> {
        if self.is_present(chunk, 0) {
            return Ok(());
        }
        for page in 0..chunk.pages {
            self.decode(chunk, page, scratch)?;
        }
        self.install(chunk, 0..chunk.pages, Some(&scratch[..chunk.len_bytes()]))
    }

    /// Decodes a page to its place in `scratch`, if it is missing.
    fn decode(&self, chunk: &Chunk, page: usize, scratch: &mut [u8]) -> Result<PageContent, LossReason> {
        if self.is_present(chunk, page) {
            return Ok(PageContent::Present);
        }
        let bytes: &mut Page = scratch[page * PAGE_BYTES..].first_chunk_mut().expect("room for a chunk");
        let index = PageIndex::new(page).expect("a page of the chunk");
        self.source.page(chunk, index, bytes).map_err(|source| LossReason::Page {
            chunk: chunk.index.0,
            page,
            source,
        })?;
        Ok(if is_zero(bytes) { PageContent::Zero } else { PageContent::Bytes })
    }

    /// Installs a run of pages; zeros if `bytes` is `None`. Pages that are there already stay, and nothing is installed once memory
    /// is lost.
    fn install(&self, chunk: &Chunk, pages: Range<usize>, bytes: Option<&[u8]>) -> Result<(), LossReason> {
        let region = &self.regions[chunk.region];
        let step = if self.huge { CHUNK_BYTES } else { PAGE_BYTES };
        let (start, len) = (chunk.offset + pages.start * PAGE_BYTES, pages.len() * PAGE_BYTES);
        let mut done = 0;
        while done < len {
            // Locked for each call, so that a page is either refused or there, and never changes from one to the other.
            let _installing = self.installing.read().unwrap_or_else(PoisonError::into_inner);
            if self.status.is_lost() {
                return Ok(());
            }
            let installed = match bytes {
                Some(bytes) => self.userfault.copy(&region.mapping, start + done, &bytes[done..]),
                None => self.userfault.zero(&region.mapping, start + done, len - done),
            };
            let arrived = match installed.map_err(LossReason::Kernel)? {
                InstallOutcome::Bytes(0) => {
                    // The address space is changing; the kernel asks to be asked again.
                    thread::yield_now();
                    continue;
                }
                InstallOutcome::Bytes(bytes) => bytes,
                InstallOutcome::Present => {
                    let wake = self.userfault.wake(&region.mapping, start + done, step);
                    wake.map_err(LossReason::Kernel)?;
                    step
                }
                // Everything has arrived in the meantime.
                InstallOutcome::Unregistered => return Ok(()),
            };
            let first = (start + done - chunk.offset) / PAGE_BYTES;
            if let Some(PresentPages(words)) = self.present(chunk) {
                let mut new = 0;
                for page in first..first + arrived / PAGE_BYTES {
                    let bit = 1 << (page % 64);
                    new += u64::from(words[page / 64].fetch_or(bit, Ordering::Release) & bit == 0);
                }
                self.status.has_arrived(new);
            }
            done += arrived;
        }
        Ok(())
    }

    /// Lets the threads that wait for a page go on: with the page if it is there, with an error otherwise.
    pub(super) fn refuse(&self, place: &PageInChunk) -> io::Result<()> {
        let PageInChunk { chunk, page } = place;
        let mapping = &self.regions[chunk.region].mapping;
        let (offset, len) = match self.huge {
            true => (chunk.offset, CHUNK_BYTES),
            false => (chunk.offset + page * PAGE_BYTES, PAGE_BYTES),
        };
        let _nobody_installs = self.installing.write().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(self.status.is_lost(), "a page is refused when memory is lost");
        if !self.is_present(chunk, *page) {
            mapping.forbid(offset, len)?;
        }
        self.userfault.wake(mapping, offset, len)
    }

    /// Takes away all access to the ranges that pages were to arrive in, and lets the threads that wait for one go on, with an error.
    pub(super) fn refuse_all(&self) -> io::Result<()> {
        let _nobody_installs = self.installing.write().unwrap_or_else(PoisonError::into_inner);
        debug_assert!(self.status.is_lost(), "pages are refused when memory is lost");
        for region in &self.regions {
            for range in &region.registered {
                region.mapping.forbid(range.start, range.len())?;
                self.userfault.wake(&region.mapping, range.start, range.len())?;
            }
        }
        Ok(())
    }

    /// Leaves the pages that are still missing, all of them zero, to the kernel, and notes that everything has arrived.
    pub(super) fn complete(&self) -> Result<(), LossReason> {
        for region in &self.regions {
            for range in &region.registered {
                let result = self.userfault.unregister(&region.mapping, range.start, range.len());
                result.map_err(LossReason::Kernel)?;
            }
        }
        self.status.complete();
        self.wake_server();
        Ok(())
    }

    /// Wakes the server, for a request or to check whether it is over.
    pub(super) fn wake_server(&self) {
        if let Err(error) = self.waker.write(1) {
            // The counter is full: the server has not read it yet, and will.
            tracing::trace!(%error, "the server has been woken already");
        }
    }
}

impl PagedRegion {
    fn new<'c>(mapping: &Arc<Mapping>, first_chunk: u32, held: impl Iterator<Item = &'c Chunk>) -> Self {
        let mut registered: Vec<Range<usize>> = Vec::new();
        for chunk in held {
            let range = chunk.offset..chunk.offset + chunk.len_bytes();
            match registered.last_mut() {
                Some(last) if last.end == range.start => last.end = range.end,
                _ => registered.push(range),
            }
        }
        Self { mapping: Arc::clone(mapping), first_chunk, registered }
    }
}

fn is_zero(page: &Page) -> bool {
    page.as_chunks::<64>().0.iter().all(|run| *run == [0; 64])
}

#[cfg(test)]
mod tests;
