//! A branch that stands still.

use std::fs::File;
use std::io;
use std::time::Duration;

use vmm::VmState;
use vmm::memory::frozen::check_none_taken;
use vmm::memory::{self, Layout, ReadError, StillMemory, layout};
use vmm::sys::mmap::{OutOfRange, PAGE_SIZE};
use vmm::sys::pagemap::Pagemap;
use vmm::sys::process::read_memory;

use super::wire::Report;
use super::{Error, GuestProcess, read_state};
use crate::pool::Reservation;
use crate::save::{self, Saver};
use crate::snapshot::Snapshot;
use crate::walk::Progress;

/// A guest as it was at one instant, in a process that does nothing: a branch that has not built its machine yet. Dropping it ends
/// that process.
///
/// Its memory is read out of that process, which the kernel allows to root, to ancestors of the process, and, where Yama does not
/// forbid it, to any process of the same user.
#[derive(Debug)]
pub struct FrozenGuest {
    process: GuestProcess,
    state: VmState,
    pagemap: Pagemap,
    /// Where the regions of the layout lie in the process.
    host_addresses: Vec<u64>,
    /// Private over a template, whose bytes no page table shows until they are touched.
    over_template: bool,
    /// Bytes of reserved huge pages at that instant, if its memory is made of them.
    huge_bytes: Option<u64>,
}

impl FrozenGuest {
    pub(super) fn of(process: GuestProcess) -> Result<Self, Error> {
        let (report, fds) = process.control().receive_any::<Report>()?.ok_or(Error::Ended)?;
        let (host_addresses, over_template, huge_bytes) = match report {
            Report::Holding { host_addresses, over_template, huge_bytes } => {
                (host_addresses, over_template, huge_bytes)
            }
            Report::Failed(why) | Report::Ended { message: why, .. } => return Err(Error::Refused(why)),
            Report::Running(_) => return Err(Error::Refused(String::from("it runs"))),
        };
        let [state] = <[_; 1]>::try_from(fds)
            .map_err(|_| Error::Refused(String::from("a frozen guest without its state")))?;
        let state = read_state(&File::from(state))??;
        let regions = state.layout().ranges().count();
        if host_addresses.len() != regions {
            let why = format!("{} addresses for {regions} regions of memory", host_addresses.len());
            return Err(Error::Refused(why));
        }
        let pagemap = Pagemap::of(process.pid())?;
        // Else the number, and so the page table, may be another process's by now.
        if !process.is_alive()? {
            return Err(Error::Ended);
        }
        Ok(Self { process, state, pagemap, host_addresses, over_template, huge_bytes })
    }

    /// The process that holds it.
    #[must_use]
    pub const fn process(&self) -> &GuestProcess {
        &self.process
    }

    /// Its state at that instant.
    #[must_use]
    pub const fn state(&self) -> &VmState {
        &self.state
    }

    /// Saves it into `reservation`; with `against`, only what differs from that snapshot. So a machine of a guest process is saved
    /// while it runs on.
    ///
    /// # Errors
    /// See [`save::Error`]. The reservation is gone then, and with it all it held.
    pub fn save(
        &self,
        saver: &Saver,
        against: Option<&Snapshot>,
        reservation: Reservation,
        progress: &Progress,
    ) -> Result<(Snapshot, save::Report), save::Error> {
        // The state was saved when the source was paused, and is not what takes time here.
        saver.save_memory(&self.state, Duration::ZERO, self, against, reservation, progress)
    }

    /// Copies guest-physical memory out.
    ///
    /// # Errors
    /// [`Error::Memory`] unless all of it lies within one region; [`Error::Still`] if it was killed.
    pub fn read_guest(&self, address: u64, buffer: &mut [u8]) -> Result<(), Error> {
        let end = buffer.len() as u64;
        let within = |range: &layout::Range| {
            address
                .checked_sub(range.start)
                .filter(|at| at.checked_add(end).is_some_and(|end| end <= range.len_bytes))
        };
        let ranges = self.state.layout().ranges().enumerate();
        let Some((region, at)) = ranges.filter_map(|(index, range)| Some((index, within(&range)?))).next()
        else {
            return Err(memory::Error::NoMemory { address, len_bytes: buffer.len() }.into());
        };
        let offset = usize::try_from(at).expect("within a mapping of a process like this one");
        Ok(self.read(region, offset, buffer)?)
    }

    /// Lets it run on from there. It is building itself when this returns.
    ///
    /// # Errors
    /// [`Error::Ended`] if it was killed; the channel's.
    pub fn run(self) -> Result<GuestProcess, Error> {
        self.process.let_run()?;
        Ok(self.process)
    }

    /// Bytes of a region.
    fn len_bytes(&self, region: usize) -> usize {
        let range = self.state.layout().ranges().nth(region).expect("the caller knows the layout");
        usize::try_from(range.len_bytes).expect("it is mapped in a process like this one")
    }
}

impl StillMemory for FrozenGuest {
    fn layout(&self) -> Layout {
        self.state.layout()
    }

    fn touched(&self, region: usize, offset: usize, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
        OutOfRange::check(offset, pages * PAGE_SIZE, self.len_bytes(region)).map_err(io::Error::other)?;
        if self.over_template {
            memory::set_first(pages, bitmap);
            return Ok(());
        }
        self.pagemap.touched(self.host_addresses[region] + offset as u64, pages, bitmap)?;
        check_none_taken(self.process.pid(), self.huge_bytes, pages, bitmap)
    }

    fn read(&self, region: usize, offset: usize, buffer: &mut [u8]) -> Result<(), ReadError> {
        OutOfRange::check(offset, buffer.len(), self.len_bytes(region))
            .map_err(|error| ReadError::Access(error.into()))?;
        let pid = self.process.pid();
        let read = read_memory(pid, self.host_addresses[region] + offset as u64, buffer);
        let alive = self.process.is_alive().map_err(io::Error::other);
        let there = read.and_then(|()| match alive? {
            true => Ok(()),
            // The number may have been another process's when it was read.
            false => Err(rustix::io::Errno::SRCH.into()),
        });
        there.map_err(|source| ReadError::of_holder(pid, source))
    }
}
