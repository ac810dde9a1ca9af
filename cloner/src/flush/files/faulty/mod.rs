//! A folder in memory that fails on purpose, and forgets what a crash may forget.
//!
//! Each file has bytes that are durable and writes since its last sync; the folder has names that are durable and changes
//! since its last sync. [`FaultyFiles::crash`] decides by a seed which of the rest survive. Of the writes, any subset survives,
//! each whole or torn at a sector (so later ones may survive earlier ones, which is reordering); of the folder's changes, any
//! prefix survives, as on file systems with a journal. Writes to a name whose creation is lost are lost with it.

mod inode;
mod random;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Files, ReadFile, WriteFile};
use crate::battery::SimulatedClock;

pub(crate) use random::Random;

use inode::{Inode, Pending};

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The power is gone at the operation with this number: it fails, although it may have happened, and so do all after it.
    PowerAt(u64),
    /// The power is gone once this many bytes have been written: the last write is torn there.
    PowerAfterBytes(u64),
    /// The operation with this number fails, once.
    ErrorAt(u64, io::ErrorKind),
    /// Every write takes at most this many bytes.
    ShortWrites(usize),
    /// The disk has this many bytes in all.
    Capacity(u64),
    /// Every operation that changes something fails.
    ReadOnly,
    /// Every operation fails.
    Vanished,
}

/// How fast the device is, on a clock that moves only while the device works.
#[derive(Debug, Clone)]
pub(crate) struct Speed {
    pub(crate) clock: SimulatedClock,
    pub(crate) bytes_per_second: f64,
    /// Time that every sync takes.
    pub(crate) sync: Duration,
}

#[derive(Debug, Clone, Default)]
pub(crate) struct FaultyFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Debug, Default)]
struct Disk {
    inodes: BTreeMap<u64, Inode>,
    names: BTreeMap<String, u64>,
    durable_names: BTreeMap<String, u64>,
    /// The names after each change since the last sync of the folder.
    changes: Vec<BTreeMap<String, u64>>,
    next_inode: u64,
    operations: u64,
    written_bytes: u64,
    faults: Vec<Fault>,
    power_gone: bool,
    speed: Option<Speed>,
}

impl FaultyFiles {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    pub(crate) fn with_fault(self, fault: Fault) -> Self {
        self.lock().faults.push(fault);
        self
    }

    pub(crate) fn clear_faults(&self) {
        self.lock().faults.clear();
    }

    pub(crate) fn set_speed(&self, speed: Speed) {
        self.lock().speed = Some(speed);
    }

    pub(crate) fn operations(&self) -> u64 {
        self.lock().operations
    }

    pub(crate) fn written_bytes(&self) -> u64 {
        self.lock().written_bytes
    }

    /// The folder that a machine finds when it starts again after losing power now.
    pub(crate) fn crash(&self, seed: u64) -> Self {
        let mut random = Random(seed);
        let disk = self.lock();
        let histories = disk.changes.len() as u64 + 1;
        let names = match usize::try_from(random.below(histories)).unwrap() {
            0 => disk.durable_names.clone(),
            change => disk.changes[change - 1].clone(),
        };
        let mut after = Disk { next_inode: disk.next_inode, ..Disk::default() };
        for (name, inode) in names {
            let bytes = disk.inodes[&inode].survivors(&mut random);
            after
                .inodes
                .insert(inode, Inode { durable: bytes.clone(), bytes, pending: Vec::new(), handles: 0 });
            after.names.insert(name, inode);
        }
        after.durable_names = after.names.clone();
        Self { disk: Arc::new(Mutex::new(after)) }
    }

    /// The same disk without its faults, after an orderly shutdown.
    pub(crate) fn copy(&self) -> Self {
        let disk = self.lock();
        let (mut inodes, names) = (disk.inodes.clone(), disk.names.clone());
        inodes.values_mut().for_each(|file| file.handles = 0);
        let after = Disk {
            inodes,
            durable_names: names.clone(),
            names,
            next_inode: disk.next_inode,
            ..Disk::default()
        };
        Self { disk: Arc::new(Mutex::new(after)) }
    }

    /// The content of the file named `name`.
    pub(crate) fn bytes(&self, name: &str) -> Vec<u8> {
        let disk = self.lock();
        disk.inodes[&disk.names[name]].bytes.clone()
    }

    /// Puts a file into the folder, durably.
    pub(crate) fn put(&self, name: &str, bytes: Vec<u8>) {
        let mut disk = self.lock();
        let inode = disk.next_inode;
        disk.next_inode += 1;
        disk.inodes.insert(inode, Inode { durable: bytes.clone(), bytes, pending: Vec::new(), handles: 0 });
        disk.names.insert(name.to_owned(), inode);
        disk.durable_names.insert(name.to_owned(), inode);
    }

    pub(crate) fn names(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    fn handle(&self, disk: &mut Disk, inode: u64, len_bytes: u64) -> FaultyFile {
        disk.inodes.get_mut(&inode).unwrap().handles += 1;
        FaultyFile { disk: Arc::clone(&self.disk), inode, len_bytes }
    }

    fn lock(&self) -> MutexGuard<'_, Disk> {
        self.disk.lock().unwrap()
    }
}

impl Disk {
    /// Counts an operation. Returns whether it happens, and what it then reports.
    fn step(&mut self, changes: bool) -> (bool, io::Result<()>) {
        let number = self.operations;
        self.operations += 1;
        let gone = || Err(io::Error::other("the power is gone"));
        if self.power_gone {
            return (false, gone());
        }
        for fault in self.faults.clone() {
            match fault {
                Fault::PowerAt(at) if at == number => {
                    self.power_gone = true;
                    // It reports an error, but has happened all the same.
                    return (true, gone());
                }
                Fault::ErrorAt(at, kind) if at == number => return (false, Err(kind.into())),
                Fault::ReadOnly if changes => return (false, Err(io::ErrorKind::ReadOnlyFilesystem.into())),
                Fault::Vanished => return (false, Err(io::ErrorKind::NotFound.into())),
                _ => {}
            }
        }
        (true, Ok(()))
    }

    fn changed(&mut self) {
        self.changes.push(self.names.clone());
    }

    /// Removes the content of files that are gone for good: they have no name, in no past that a crash can bring back, and are not
    /// open.
    fn forget_what_nothing_names(&mut self) {
        let named: BTreeSet<u64> = self.names.values().copied().collect();
        self.inodes.retain(|inode, file| file.handles > 0 || named.contains(inode));
    }

    fn capacity(&self) -> Option<u64> {
        let capacity = |fault: &Fault| match fault {
            Fault::Capacity(bytes) => Some(*bytes),
            _ => None,
        };
        self.faults.iter().find_map(capacity)
    }

    fn used_bytes(&self) -> u64 {
        self.names.values().map(|inode| self.inodes[inode].bytes.len() as u64).sum()
    }
}

impl Files for FaultyFiles {
    fn place(&self) -> String {
        String::from("memory")
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        let mut disk = self.lock();
        disk.step(false).1?;
        let len = |inode: &u64| disk.inodes[inode].bytes.len() as u64;
        Ok(disk.names.iter().map(|(name, inode)| (name.clone(), len(inode))).collect())
    }

    fn create(&self, name: &str, bytes: u64) -> io::Result<Box<dyn WriteFile>> {
        let mut disk = self.lock();
        let (happens, result) = disk.step(true);
        if happens {
            if disk.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            if disk.capacity().is_some_and(|capacity| disk.used_bytes() + bytes > capacity) {
                return Err(io::ErrorKind::StorageFull.into());
            }
            let inode = disk.next_inode;
            disk.next_inode += 1;
            let len = usize::try_from(bytes).unwrap();
            disk.inodes.insert(
                inode,
                Inode {
                    bytes: vec![0; len],
                    durable: Vec::new(),
                    pending: vec![Pending::SetLen(len)],
                    handles: 0,
                },
            );
            disk.names.insert(name.to_owned(), inode);
            disk.changed();
        }
        result?;
        let inode = disk.names[name];
        Ok(Box::new(self.handle(&mut disk, inode, bytes)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        let mut disk = self.lock();
        disk.step(false).1?;
        let inode = *disk.names.get(name).ok_or(io::ErrorKind::NotFound)?;
        let len_bytes = disk.inodes[&inode].bytes.len() as u64;
        Ok(Box::new(self.handle(&mut disk, inode, len_bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut disk = self.lock();
        let (happens, result) = disk.step(true);
        if happens {
            let inode = disk.names.remove(from).ok_or(io::ErrorKind::NotFound)?;
            disk.names.insert(to.to_owned(), inode);
            disk.changed();
        }
        result
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut disk = self.lock();
        let (happens, result) = disk.step(true);
        if happens {
            disk.names.remove(name).ok_or(io::ErrorKind::NotFound)?;
            disk.changed();
        }
        result
    }

    fn sync_folder(&self) -> io::Result<()> {
        let mut disk = self.lock();
        let (happens, result) = disk.step(true);
        if let Some(speed) = &disk.speed {
            speed.clock.advance(speed.sync);
        }
        // A sync that reports an error promises nothing.
        if happens && result.is_ok() {
            disk.durable_names = disk.names.clone();
            disk.changes.clear();
            disk.forget_what_nothing_names();
        }
        result
    }
}

#[derive(Debug)]
struct FaultyFile {
    disk: Arc<Mutex<Disk>>,
    inode: u64,
    len_bytes: u64,
}

impl Drop for FaultyFile {
    fn drop(&mut self) {
        // A test that has failed may have left the lock poisoned.
        let mut disk = self.disk.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(inode) = disk.inodes.get_mut(&self.inode) {
            inode.handles -= 1;
        }
    }
}

impl WriteFile for FaultyFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let mut disk = self.disk.lock().unwrap();
        let (happens, mut result) = disk.step(true);
        let mut taken = bytes.len();
        for fault in disk.faults.clone() {
            match fault {
                Fault::ShortWrites(most) => taken = taken.min(most),
                Fault::PowerAfterBytes(limit)
                    if disk.written_bytes + taken as u64 > limit && result.is_ok() =>
                {
                    taken = usize::try_from(limit - disk.written_bytes).unwrap();
                    disk.power_gone = true;
                    result = Err(io::Error::other("the energy is used up"));
                }
                _ => {}
            }
        }
        if happens {
            disk.written_bytes += taken as u64;
            if let Some(speed) = &disk.speed {
                speed.clock.advance(Duration::from_secs_f64(taken as f64 / speed.bytes_per_second));
            }
            let write =
                Pending::Write { offset: usize::try_from(offset).unwrap(), bytes: bytes[..taken].to_vec() };
            let inode = disk.inodes.get_mut(&self.inode).unwrap();
            write.apply(&mut inode.bytes);
            inode.pending.push(write);
        }
        result.map(|()| taken)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let (happens, result) = disk.step(true);
        if happens {
            let inode = disk.inodes.get_mut(&self.inode).unwrap();
            let change = Pending::SetLen(usize::try_from(bytes).unwrap());
            change.apply(&mut inode.bytes);
            inode.pending.push(change);
        }
        result
    }

    fn sync(&self) -> io::Result<()> {
        let mut disk = self.disk.lock().unwrap();
        let (happens, result) = disk.step(true);
        if let Some(speed) = &disk.speed {
            speed.clock.advance(speed.sync);
        }
        if happens && result.is_ok() {
            let inode = disk.inodes.get_mut(&self.inode).unwrap();
            inode.durable = inode.bytes.clone();
            inode.pending.clear();
        }
        result
    }
}

impl ReadFile for FaultyFile {
    fn len_bytes(&self) -> u64 {
        self.len_bytes
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let mut disk = self.disk.lock().unwrap();
        disk.step(false).1?;
        let bytes = &disk.inodes[&self.inode].bytes;
        let start = bytes.len().min(usize::try_from(offset).unwrap());
        let taken = out.len().min(bytes.len() - start);
        out[..taken].copy_from_slice(&bytes[start..start + taken]);
        Ok(taken)
    }
}
