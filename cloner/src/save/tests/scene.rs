//! Guests that are nothing but a state and a list of pages, to be saved and decoded again without a VM.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use cloner_codec::chunk::{PAGE_BYTES, Page, PageIndex};
use vmm::VmState;
use vmm::memory::{Backing, DirtySet, Epoch, GuestMemory, Layout, PageSize, ReadError, StillMemory, dirty};

use crate::layout::{self, Chunk, ChunkIndex, chunk_at};
use crate::moment::{self, Changes, Moment, MomentMemory, Series};
use crate::pool::{Pool, PoolConfig, PoolPages, PoolStats, Populate};
use crate::save::{Error, SaveOptions, Saved, Saver};
use crate::snapshot::{self, ChunkResolver, Snapshot, VerifiedFlags};
use crate::walk::Threads;

/// Number of a chunk, and of a page in it.
pub(crate) type Place = (u32, usize);

/// Pages by place. A page that is not there is zero.
pub(crate) type Content = BTreeMap<Place, Page>;

/// A guest whose memory is a list of pages.
pub(crate) struct Guest {
    pub(crate) layout: Layout,
    chunks: Vec<Chunk>,
    /// The touched pages.
    pages: Content,
    /// A page that cannot be read.
    pub(crate) unreadable: Option<Place>,
    /// Whether the touched pages can be found.
    pub(crate) is_traceable: bool,
    /// Every page that was read.
    read: Mutex<BTreeSet<Place>>,
    /// Holds no content: only its dirty pages matter.
    log: GuestMemory,
    written: Mutex<Vec<Place>>,
}

impl Guest {
    /// A guest that has touched nothing.
    pub(crate) fn new(memory_bytes: u64) -> Self {
        let layout = Layout::new(memory_bytes).unwrap();
        Self {
            layout,
            chunks: layout::chunks(layout),
            pages: Content::new(),
            unreadable: None,
            is_traceable: true,
            read: Mutex::default(),
            log: GuestMemory::new(layout, Backing::Private(PageSize::Base)).unwrap(),
            written: Mutex::default(),
        }
    }

    /// A guest with these pages.
    pub(crate) fn with(memory_bytes: u64, pages: impl IntoIterator<Item = (Place, Page)>) -> Self {
        let mut guest = Self::new(memory_bytes);
        pages.into_iter().for_each(|(place, page)| guest.write(place, page));
        guest
    }

    /// Writes a page, which makes it dirty.
    pub(crate) fn write(&mut self, place: Place, page: Page) {
        assert!(place.1 < self.chunks[place.0 as usize].pages, "{place:?}");
        self.pages.insert(place, page);
        self.written.lock().unwrap().push(place);
    }

    /// The pages that are not zero.
    pub(crate) fn content(&self) -> Content {
        let pages = self.pages.iter().filter(|(_, page)| page.iter().any(|byte| *byte != 0));
        pages.map(|(place, page)| (*place, *page)).collect()
    }

    pub(crate) fn touched(&self) -> BTreeSet<Place> {
        self.pages.keys().copied().collect()
    }

    /// The pages that were read since the last call.
    pub(crate) fn take_read(&self) -> BTreeSet<Place> {
        std::mem::take(&mut *self.read.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Tracks dirty pages from now on; none is dirty yet.
    pub(crate) fn track(&self) -> Epoch {
        self.written.lock().unwrap().clear();
        dirty::track::<dirty::Error>(&self.log, || Ok(())).unwrap()
    }

    /// Takes the dirty pages, as [`Paused::take_dirty`](vmm::Paused::take_dirty) does.
    pub(crate) fn take_dirty(&self) -> DirtySet<'_> {
        let mut dirty = DirtySet::take(&self.log).unwrap();
        for (chunk, page) in std::mem::take(&mut *self.written.lock().unwrap()) {
            let Chunk { region, offset, .. } = self.chunks[chunk as usize];
            let page = offset / PAGE_BYTES + page;
            let mut words = vec![0; page / 64 + 1];
            words[page / 64] = 1 << (page % 64);
            dirty.merge(region, &words);
        }
        dirty
    }

    /// The guest as it is now, with everything that it has touched.
    pub(crate) fn moment(&self) -> Moment<'_> {
        self.changed(Changes::All)
    }

    /// The guest as it is now, as the next moment of a series.
    pub(crate) fn next<'a>(&'a self, series: &'a mut Series) -> Result<Moment<'a>, moment::Error> {
        let dirty = series.continued_by(self.take_dirty())?;
        Ok(self.changed(Changes::InSeries { series, dirty }))
    }

    fn changed<'a>(&'a self, changes: Changes<'a>) -> Moment<'a> {
        let state = state(self.layout.size_bytes());
        Moment { state, memory: MomentMemory::Still(self), changes, state_time: Duration::ZERO }
    }

    fn place(&self, region: usize, offset: usize) -> Place {
        let holds = |chunk: &&Chunk| {
            chunk.region == region && (chunk.offset..chunk.offset + chunk.len_bytes()).contains(&offset)
        };
        let chunk = self.chunks.iter().find(holds).expect("the guest has this page");
        (chunk.index.0, (offset - chunk.offset) / PAGE_BYTES)
    }
}

impl StillMemory for Guest {
    fn layout(&self) -> Layout {
        self.layout
    }

    fn touched(&self, region: usize, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
        if !self.is_traceable {
            return Err(io::ErrorKind::PermissionDenied.into());
        }
        bitmap.fill(0);
        let (chunk, first) = self.place(region, offset);
        for (_, page) in self.pages.range((chunk, first)..(chunk, first + pages)).map(|(place, _)| place) {
            bitmap[(page - first) / 64] |= 1 << ((page - first) % 64);
        }
        Ok(())
    }

    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError> {
        for (number, bytes) in buffer.as_chunks_mut::<PAGE_BYTES>().0.iter_mut().enumerate() {
            let place = self.place(region, offset + number * PAGE_BYTES);
            if self.unreadable == Some(place) {
                return Err(ReadError::of_holder(1, io::ErrorKind::NotFound.into()));
            }
            *bytes = self.pages.get(&place).copied().unwrap_or([0; PAGE_BYTES]);
            self.read.lock().unwrap_or_else(PoisonError::into_inner).insert(place);
        }
        Ok(())
    }
}

/// The state of a machine with this much memory; what else is in it does not matter here.
pub(crate) fn state(memory_bytes: u64) -> VmState {
    const SAVED: &[u8] = include_bytes!("../../../../vmm/src/state/golden/v2-pulse.vmstate");
    let mut state = VmState::from_bytes(SAVED).unwrap().get().clone();
    state.memory_bytes = memory_bytes;
    state.try_into().unwrap()
}

/// A pool, and what saves into it.
pub(crate) struct Scene {
    pub(crate) pool: Pool,
    pub(crate) saver: Saver,
}

impl Scene {
    pub(crate) fn new() -> Self {
        Self::with_threads(2)
    }

    /// One thread visits the chunks in order, so that its scratch memory holds the chunk before.
    pub(crate) fn with_threads(threads: usize) -> Self {
        Self { pool: pool(16), saver: Saver::new(&Threads::new(threads).unwrap()) }
    }

    /// Saves a moment under a name.
    pub(crate) fn try_save(
        &self,
        name: &str,
        moment: Moment<'_>,
        options: &SaveOptions<'_>,
    ) -> Result<Saved, Error> {
        self.saver.save(moment, self.pool.reserve(name).unwrap(), options)
    }

    /// Saves all of a guest, as a child of `parent` if there is one, and checks that it is decoded as it was.
    #[track_caller]
    pub(crate) fn save(&self, name: &str, guest: &Guest, parent: Option<&Snapshot>) -> Saved {
        let saved = self.try_save(name, guest.moment(), &SaveOptions::default().parent(parent)).unwrap();
        assert_holds(&saved.snapshot, guest);
        saved
    }

    /// Saves the next moment of a series, and checks that it is decoded as it was.
    #[track_caller]
    pub(crate) fn save_next(&self, name: &str, guest: &Guest, series: &mut Series) -> Saved {
        let saved = self.try_save(name, guest.next(series).unwrap(), &SaveOptions::default()).unwrap();
        assert_holds(&saved.snapshot, guest);
        saved
    }

    /// What the pool looks like from outside: its numbers and the names in it.
    pub(crate) fn look(&self) -> (PoolStats, Vec<String>) {
        self.pool.check().unwrap();
        (self.pool.stats(), self.pool.list().into_iter().map(|listing| listing.name).collect())
    }
}

/// A pool of `mib` MiB on ordinary pages.
pub(crate) fn pool(mib: usize) -> Pool {
    let config =
        PoolConfig { capacity_bytes: mib << 20, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
    Pool::new(&config).unwrap()
}

/// Asserts that a snapshot, decoded page by page and by nothing but what the pool holds, is the guest's memory.
#[track_caller]
pub(crate) fn assert_holds(snapshot: &Snapshot, guest: &Guest) {
    let reopened = Snapshot::open(snapshot.stored().clone()).unwrap();
    let (found, expected) = (decoded(&reopened).unwrap(), guest.content());
    let differs = |place: &&Place| found.get(place) != expected.get(place);
    let wrong: Vec<&Place> = found.keys().chain(expected.keys()).filter(differs).collect();
    assert!(wrong.is_empty(), "{:?}: pages {wrong:?} differ", snapshot.name());
}

/// The pages of a snapshot that are not zero.
pub(crate) fn decoded(snapshot: &Snapshot) -> Result<Content, snapshot::Error> {
    let checks = VerifiedFlags::new(snapshot);
    let mut content = Content::new();
    for id in &snapshot.manifest().chunks {
        let chunk = chunk_at(snapshot.state().layout(), ChunkIndex(id.index)).unwrap();
        for page in PageIndex::first(chunk.pages) {
            let mut bytes = [0xee; PAGE_BYTES];
            ChunkResolver::checked(snapshot, chunk.index, &checks).page(page, &mut bytes)?;
            if bytes.iter().any(|byte| *byte != 0) {
                content.insert((id.index, page.get()), bytes);
            }
        }
    }
    Ok(content)
}

/// A page of text, which byte markers suit.
pub(crate) fn text(seed: usize) -> Page {
    let letters = format!("page {seed} stands for vectors {} times; ", seed * 31 + 7).into_bytes();
    std::array::from_fn(|at| letters[at * (1 + at / 700) % letters.len()])
}

/// A page of pointers and integers, which word markers suit.
pub(crate) fn words(seed: u64) -> Page {
    let field = |at: u64| match at % 4 {
        0 => 0,
        1 => 0x7f00_0000_1000 + at % 9 * (seed + 2),
        2 => at % 5 + seed,
        _ => 0xffff_8000_0000_0000 + at * at * (seed + 1),
    };
    let mut page = [0; PAGE_BYTES];
    page.as_chunks_mut::<8>().0.iter_mut().zip(0..).for_each(|(word, at)| *word = field(at).to_le_bytes());
    page
}

/// A page that cannot be made shorter.
pub(crate) fn noise(seed: u64) -> Page {
    let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = [0; PAGE_BYTES];
    for word in page.as_chunks_mut::<8>().0 {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        *word = random.to_le_bytes();
    }
    page
}

/// A page with one of its words changed.
pub(crate) fn patched(mut page: Page, word: usize) -> Page {
    page[word * 8] ^= 0x55;
    page
}
