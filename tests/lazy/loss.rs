//! Memory that cannot be provided: the clone stops and says why. It never hangs, and never reads zeros.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use cloner::layout::{self, Chunk};
use cloner::restore::lazy::{self, Fill, LazyOptions, PageSource, Restored, SourceError, WorkingSet};
use cloner::save::SaveOptions;
use cloner::snapshot::Snapshot;
use cloner_codec::chunk::{Page, PageIndex};
use cloner_testing::{Guest, Studio, assert_names, can_restore_lazily, guest, room_for};
use vmm::Ending;
use vmm::memory::{self, GuestMemory, Layout};

use crate::MIB;

use super::{MEMORY, NONCE, TRANSPARENT, on_demand, params, restore, source};

/// The same snapshot, with one bit of one chunk flipped.
#[track_caller]
fn with_flipped_bit(studio: &Studio, snapshot: &Snapshot, chunk: u64) -> Snapshot {
    let stored = studio.pool.get(snapshot.name()).unwrap();
    let reservation = studio.pool.reserve("damaged").unwrap();
    for original in stored.chunks() {
        let mut bytes = original.bytes().to_vec();
        if u64::from(original.id().index) == chunk {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x10;
        }
        reservation.put_chunk(original.id(), &bytes).unwrap();
    }
    for (label, bytes) in stored.blobs() {
        reservation.put_blob(label, bytes).unwrap();
    }
    Snapshot::open(reservation.publish()).unwrap()
}

#[track_caller]
fn assert_lost(ending: &Ending, parts: &[&str]) {
    assert!(matches!(ending, Ending::MemoryLost { .. }), "{ending}");
    assert!(!ending.is_orderly());
    assert_names(ending, parts);
}

/// A damaged chunk does no harm until it is needed. Then the VM stops and says why; memory that has arrived stays readable.
#[test]
fn a_flipped_bit_stops_the_clone_that_needs_it() {
    let Some(_room) = room_for(2) else { return };
    if !can_restore_lazily() {
        return;
    }
    let params = params();
    let studio = Studio::new(96 * MIB);
    let good = studio.snapshot(&source(&params, 1), "good");
    const CHUNK: u64 = 5;
    let damaged = with_flipped_bit(&studio, &good, CHUNK);
    let address = CHUNK * 2 * MIB + 4096;
    for vcpus_blocked in [true, false] {
        let Restored { memory, fill } = restore(&studio, &damaged, TRANSPARENT, &on_demand());
        let clone = Guest::resume(damaged.state(), memory);
        assert_eq!(clone.nonce(), NONCE, "the nonce needs only other chunks");
        let mut byte = [0];
        if vcpus_blocked {
            clone.send("s");
        } else {
            let error = clone.vm.memory().read(address, &mut byte).unwrap_err();
            assert!(matches!(error, memory::Error::Lost(_)), "{error}");
            assert_names(&error, &["chunk 5", "checksum"]);
        }
        assert_lost(&clone.end(), &["page", "chunk 5", "checksum"]);
        assert_names(&fill.wait().unwrap_err(), &["chunk 5", "checksum"]);
        let error = clone.vm.memory().read(address, &mut byte).unwrap_err();
        assert!(matches!(error, memory::Error::Lost(_)), "{error}");
        guest::status(clone.vm.memory());
        assert!(clone.vm.pause().is_err(), "the clone has ended");
    }

    // The background fill finds the damage without the guest.
    let Restored { memory, fill } = restore(&studio, &damaged, TRANSPARENT, &LazyOptions::default());
    assert_names(&fill.wait().unwrap_err(), &["chunk 5", "checksum"]);
    let late = Guest::resume(damaged.state(), memory);
    assert_lost(&late.end(), &["chunk 5"]);
    // So does a save, after which the pool is as it was.
    let memory = restore(&studio, &damaged, TRANSPARENT, &on_demand()).memory;
    let clone = Guest::resume(damaged.state(), memory);
    clone.nonce();
    let error = studio.try_save(&clone.pause(), "never", &SaveOptions::default()).unwrap_err();
    assert_names(&error, &["lazy clone", "chunk 5", "checksum"]);
    studio.check();
    // So does a working set, before anything runs.
    let Restored { memory, fill } = restore(&studio, &good, TRANSPARENT, &on_demand());
    let clone = Guest::resume(good.state(), memory);
    clone.sum();
    let faults = fill.faults();
    let options = LazyOptions { working_set: Some(WorkingSet::recorded(&good, &faults)), ..on_demand() };
    let error = studio.restorer.lazy(&damaged, TRANSPARENT, &options).unwrap_err();
    assert!(matches!(error, lazy::Error::Lost(_)), "{error}");
}

/// What a source of pages does after it has given some.
#[derive(Debug)]
pub(super) enum Fate {
    Panics,
    Fails,
    /// Blocks until the door is opened.
    Blocks(Arc<Door>),
}

#[derive(Debug, Default)]
pub(super) struct Door {
    state: Mutex<DoorState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct DoorState {
    is_open: bool,
    visitors: usize,
}

impl Door {
    fn open(&self) {
        self.state.lock().unwrap().is_open = true;
        self.changed.notify_all();
    }

    fn pass(&self) {
        let mut state = self.state.lock().unwrap();
        state.visitors += 1;
        self.changed.notify_all();
        drop(self.changed.wait_while(state, |state| !state.is_open).unwrap());
    }

    /// Waits until a thread has come to the door.
    pub(super) fn wait_for_visitor(&self) {
        drop(self.changed.wait_while(self.state.lock().unwrap(), |state| state.visitors == 0).unwrap());
    }
}

/// A copy of a guest's memory that gives only a limited number of pages.
#[derive(Debug)]
pub(super) struct Mortal {
    pub(super) memory: GuestMemory,
    pub(super) left: AtomicUsize,
    pub(super) fate: Fate,
}

impl PageSource for Mortal {
    fn layout(&self) -> Layout {
        self.memory.layout()
    }

    fn chunks(&self) -> Vec<Chunk> {
        layout::chunks(self.layout())
    }

    fn page(&self, chunk: &Chunk, page: PageIndex, out: &mut Page) -> Result<(), SourceError> {
        let take = |left: usize| left.checked_sub(1);
        if self.left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_err() {
            match &self.fate {
                Fate::Panics => panic!("as the test wants it"),
                Fate::Fails => return Err("the other host is gone".into()),
                Fate::Blocks(door) => door.pass(),
            }
        }
        let region = &self.memory.regions()[chunk.region];
        Ok(region.read(chunk.offset + page.get() * 4096, out)?)
    }
}

/// The handler dies, fails or stalls, while a vCPU or this process waits for it: the VM ends and gives the reason.
#[test]
fn a_handler_that_dies_or_stalls_stops_the_clone() {
    let Some(_room) = room_for(2) else { return };
    if !can_restore_lazily() {
        return;
    }
    let params = params();
    let studio = Studio::new(64 * MIB);
    let snapshot = studio.snapshot(&source(&params, 2), "template");
    // Enough for the guest to answer with its nonce.
    const PAGES: usize = 1500;
    let mortal = |fate| -> (Guest, Fill) {
        // The limit must find only the handler that stalls: reporting a panic, with a backtrace, may take longer than this.
        let stalls = matches!(fate, Fate::Blocks(_));
        let options = on_demand();
        let options =
            if stalls { LazyOptions { limit: Duration::from_millis(300), ..options } } else { options };
        let source = Mortal { memory: studio.memory(&snapshot), left: AtomicUsize::new(PAGES), fate };
        let Restored { memory, fill } = lazy::memory_from(Box::new(source), TRANSPARENT, &options).unwrap();
        let clone = Guest::resume(snapshot.state(), memory);
        assert_eq!(clone.nonce(), NONCE);
        (clone, fill)
    };
    for by_guest in [true, false] {
        let door = Arc::<Door>::default();
        let fates = [
            (Fate::Panics, ["fault handler has died", ""]),
            (Fate::Fails, ["cannot bring page", "the other host is gone"]),
            (Fate::Blocks(Arc::clone(&door)), ["fault handler", "300ms"]),
        ];
        for (fate, parts) in fates {
            let (clone, fill) = mortal(fate);
            if by_guest {
                clone.send("s");
            } else {
                let mut all = vec![0; usize::try_from(MEMORY - 2 * MIB).unwrap()];
                let error = clone.vm.memory().read(2 * MIB, &mut all).unwrap_err();
                assert_names(&error, &parts);
            }
            assert_lost(&clone.end(), &parts);
            assert_names(&fill.wait().unwrap_err(), &parts);
            // Dropping the clone does not wait for a handler that never comes back either.
            drop(clone);
        }
        door.open();
    }

    // The background fill stalls; the guest, which needs no more pages, is ended all the same.
    let door = Arc::<Door>::default();
    let (clone, fill) = mortal(Fate::Blocks(Arc::clone(&door)));
    let waiting = std::thread::scope(|scope| {
        let save = scope.spawn(|| clone.vm.memory().supply_all());
        save.join().unwrap()
    });
    assert_names(&waiting.unwrap_err(), &["background fill", "300ms"]);
    assert_lost(&clone.end(), &["background fill"]);
    assert!(!fill.is_complete());
    door.open();
}
