//! Which pages of a guest's memory have changed since some instant.
//!
//! There are two witnesses. KVM logs what the guest writes, and what KVM writes on its behalf; [`WrittenPages`] records what this
//! process writes, which KVM does not see. A page is dirty if either says so.
//!
//! Reading KVM's log destroys it. It is therefore *taken*, as a value: a [`DirtySet`] is committed once the pages it names are
//! safely stored. If it is dropped instead, they go back, and the next set that is taken contains them again.
//!
//! ```text
//!            track                 take                    commit
//!   ┌─────┐ ───────► ┌──────────┐ ─────────► ┌───────┐ ────────────► since a new epoch
//!   │ off │          │ since an │            │ taken │
//!   └─────┘ ◄─────── │  epoch   │ ◄───────── └───────┘
//!           untrack  └──────────┘    drop: the same epoch
//! ```

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use super::GuestMemory;
use crate::sys::page::PAGE_SIZE;

/// Why the dirty pages are not available.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Tracking was never turned on, or was turned off again.
    #[error("this VM's dirty pages are not tracked")]
    NotTracked,
    /// A [`DirtySet`] exists that was neither committed nor dropped.
    #[error("this VM's dirty pages are taken already")]
    Taken,
}

/// The instant since which pages are dirty. No two are equal, across all VMs of this process: a caller that remembers one can
/// tell whether a [`DirtySet`] continues where the caller left off.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        Self(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The pages of a region that this process wrote to. Recorded only once tracking was first turned on: most VMs never pay for it.
#[derive(Debug, Default)]
pub(super) struct WrittenPages(OnceLock<Box<[AtomicU64]>>);

impl WrittenPages {
    /// Notes a write, which must have happened already: a page noted before it is written could be taken, read and committed in
    /// between, and the write would be lost.
    pub(super) fn note(&self, offset: usize, len_bytes: usize) {
        let (Some(words), Some(last)) = (self.0.get(), len_bytes.checked_sub(1)) else { return };
        for page in offset / PAGE_SIZE..=(offset + last) / PAGE_SIZE {
            // Release: the thread that takes the bit sees the bytes.
            words[page / 64].fetch_or(1 << (page % 64), Ordering::Release);
        }
    }

    /// Moves all bits to `into`.
    fn take(&self, into: &mut [u64]) {
        for (word, into) in self.words().iter().zip(into) {
            *into |= word.swap(0, Ordering::Acquire);
        }
    }

    /// Notes the writes to a region of `len_bytes` from now on, starting with none.
    fn start_over(&self, len_bytes: usize) {
        let words = self.0.get_or_init(|| (0..words(len_bytes)).map(|_| AtomicU64::new(0)).collect());
        words.iter().for_each(|word| word.store(0, Ordering::Relaxed));
    }

    fn words(&self) -> &[AtomicU64] {
        self.0.get().map_or(&[], |words| words)
    }

    fn put_back(&self, words: &[u64]) {
        for (word, back) in self.words().iter().zip(words).filter(|(_, back)| **back != 0) {
            word.fetch_or(*back, Ordering::Release);
        }
    }
}

/// Whether dirty pages are tracked, and since when.
#[derive(Debug, Default)]
pub(super) struct Tracking(Mutex<State>);

#[derive(Debug, Clone, Copy, Default)]
enum State {
    #[default]
    Off,
    Since(Epoch),
    Taken,
}

impl Tracking {
    fn state(&self) -> MutexGuard<'_, State> {
        // The state is one plain value, valid whenever the lock is free.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The pages that changed since [`DirtySet::since`]. [Commit](Self::commit) it when their content is stored. If it is dropped
/// instead, its pages go back, and the next set contains them.
#[derive(Debug)]
#[must_use = "dropping it puts the dirty pages back"]
pub struct DirtySet<'vm> {
    memory: &'vm GuestMemory,
    since: Epoch,
    /// One bitmap for each region, in KVM's format: page `64 * i + j` is bit `j` of word `i`.
    regions: Vec<Vec<u64>>,
}

impl<'vm> DirtySet<'vm> {
    /// Takes what this process wrote. The caller still has to [merge](Self::merge) what KVM logged; of a VM that is paused,
    /// [`Paused::take_dirty`](crate::Paused::take_dirty) does both.
    ///
    /// # Errors
    /// [`Error::NotTracked`], or [`Error::Taken`] while another set exists.
    pub fn take(memory: &'vm GuestMemory) -> Result<Self, Error> {
        let mut state = memory.tracking().state();
        let since = match *state {
            State::Off => return Err(Error::NotTracked),
            State::Taken => return Err(Error::Taken),
            State::Since(epoch) => epoch,
        };
        *state = State::Taken;
        let taken = memory.regions().iter().map(|region| {
            let mut bitmap = vec![0; words(region.mapping().len_bytes())];
            region.written().take(&mut bitmap);
            bitmap
        });
        Ok(Self { memory, since, regions: taken.collect() })
    }

    /// Adds the log of one region's memory slot, in the format of [`copy_to`](Self::copy_to) from the region's first page on.
    ///
    /// # Panics
    /// If there is no such region.
    pub fn merge(&mut self, region: usize, log: &[u64]) {
        for (word, logged) in self.regions[region].iter_mut().zip(log) {
            *word |= logged;
        }
    }

    /// The instant since which these pages changed.
    #[must_use]
    pub const fn since(&self) -> Epoch {
        self.since
    }

    /// Number of dirty pages, each 4 KiB.
    #[must_use]
    pub fn pages(&self) -> usize {
        self.regions.iter().flatten().map(|word| word.count_ones() as usize).sum()
    }

    /// Copies the dirty pages of a region from page `64 * first_word` on: bit `j` of `bitmap[i]` is page
    /// `64 * (first_word + i) + j`. Bits beyond the end of the region are clear.
    ///
    /// # Panics
    /// If there is no such region.
    pub fn copy_to(&self, region: usize, first_word: usize, bitmap: &mut [u64]) {
        let words = self.regions[region].get(first_word..).unwrap_or_default();
        let len = words.len().min(bitmap.len());
        bitmap[..len].copy_from_slice(&words[..len]);
        bitmap[len..].fill(0);
    }

    /// Forgets these pages, because they are stored. Pages changed after this set was taken are dirty since the epoch returned.
    pub fn commit(mut self) -> Epoch {
        // Nothing is left for the drop to put back.
        self.regions.clear();
        self.since = Epoch::next();
        self.since
    }
}

impl Drop for DirtySet<'_> {
    fn drop(&mut self) {
        for (region, words) in self.memory.regions().iter().zip(&self.regions) {
            region.written().put_back(words);
        }
        *self.memory.tracking().state() = State::Since(self.since);
    }
}

/// Starts over with no page dirty. `log` turns KVM's log on, empty, and returns an error if that failed. Of a VM that is paused,
/// [`Paused::track_dirty`](crate::Paused::track_dirty) is the call.
///
/// # Errors
/// [`Error::Taken`] while a set exists, and the error of `log`. Nothing has changed then.
pub fn track<E: From<Error>>(memory: &GuestMemory, log: impl FnOnce() -> Result<(), E>) -> Result<Epoch, E> {
    let mut state = memory.tracking().state();
    if matches!(*state, State::Taken) {
        return Err(Error::Taken.into());
    }
    log()?;
    for region in memory.regions() {
        region.written().start_over(region.mapping().len_bytes());
    }
    let epoch = Epoch::next();
    *state = State::Since(epoch);
    Ok(epoch)
}

/// Ends tracking. `log` turns KVM's log off.
pub(crate) fn untrack<E: From<Error>>(
    memory: &GuestMemory,
    log: impl FnOnce() -> Result<(), E>,
) -> Result<(), E> {
    let mut state = memory.tracking().state();
    if matches!(*state, State::Taken) {
        return Err(Error::Taken.into());
    }
    log()?;
    *state = State::Off;
    Ok(())
}

const fn words(len_bytes: usize) -> usize {
    (len_bytes / PAGE_SIZE).div_ceil(64)
}

#[cfg(test)]
mod tests {
    use super::super::{Backing, Layout, PageSize};
    use super::*;

    fn memory() -> GuestMemory {
        GuestMemory::new(Layout::new(4 << 20).unwrap(), Backing::Private(PageSize::Base)).unwrap()
    }

    fn track_without_kvm(memory: &GuestMemory) -> Epoch {
        track::<Error>(memory, || Ok(())).unwrap()
    }

    fn dirty(set: &DirtySet<'_>) -> Vec<usize> {
        let mut bitmap = [0; 16];
        set.copy_to(0, 0, &mut bitmap);
        (0..1024).filter(|page| bitmap[page / 64] >> (page % 64) & 1 == 1).collect()
    }

    #[test]
    fn writes_of_this_process_are_dirty_until_committed() {
        let memory = memory();
        assert_eq!(DirtySet::take(&memory).unwrap_err(), Error::NotTracked);
        memory.write(0, &[1]).unwrap();
        let first = track_without_kvm(&memory);
        memory.write(4095, &[1, 2]).unwrap();
        memory.write(8192, &[]).unwrap();
        memory.write(1023 * 4096, &[1; 4096]).unwrap();
        assert!(memory.write((4 << 20) - 1, &[1, 2]).is_err());

        let set = DirtySet::take(&memory).unwrap();
        assert_eq!((dirty(&set), set.pages(), set.since()), (vec![0, 1, 1023], 3, first));
        assert_eq!(DirtySet::take(&memory).unwrap_err(), Error::Taken);
        assert_eq!(track::<Error>(&memory, || Ok(())), Err(Error::Taken));
        memory.write(4096 * 7, &[1]).unwrap();
        drop(set);

        let mut set = DirtySet::take(&memory).unwrap();
        set.merge(0, &[1 << 63, 0, 2]);
        assert_eq!((dirty(&set), set.since()), (vec![0, 1, 7, 63, 129, 1023], first));
        memory.write(4096 * 9, &[1]).unwrap();
        let second = set.commit();
        assert_ne!(first, second);
        let set = DirtySet::take(&memory).unwrap();
        assert_eq!((dirty(&set), set.since()), (vec![9], second));
        drop(set);

        untrack::<Error>(&memory, || Ok(())).unwrap();
        assert_eq!(DirtySet::take(&memory).unwrap_err(), Error::NotTracked);
    }

    #[test]
    fn what_lies_beyond_a_region_is_clear() {
        let memory = memory();
        track_without_kvm(&memory);
        memory.write(1023 * 4096, &[1]).unwrap();
        let set = DirtySet::take(&memory).unwrap();
        let mut bitmap = [u64::MAX; 8];
        set.copy_to(0, 15, &mut bitmap);
        assert_eq!(bitmap, [1 << 63, 0, 0, 0, 0, 0, 0, 0]);
        set.copy_to(0, 100, &mut bitmap);
        assert_eq!(bitmap, [0; 8]);
    }
}
