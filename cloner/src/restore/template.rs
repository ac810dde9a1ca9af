//! A snapshot decoded once, for any number of clones to run over. See [`Restorer::template`](super::Restorer::template).

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES};
use vmm::VmState;
use vmm::memory::memfd;
use vmm::memory::{self, Backing, GuestMemory, Layout};
use vmm::state::DecodeError;

use super::eager;
use super::state_file::{read_state, state_file};
use crate::layout;

/// Why there is no template.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The snapshot cannot be decoded.
    #[error("cannot decode the template")]
    Decode(#[from] eager::Error),
    /// The memfds with the template's memory and state cannot be made, written or read.
    #[error("cannot make or read the template")]
    File(#[source] io::Error),
    /// The template's memory and state do not belong together.
    #[error("the template has {found} bytes of memory, but its state is of a guest with {wanted} bytes")]
    Size {
        /// Bytes of guest memory according to the state.
        wanted: u64,
        /// Bytes of the file that holds the memory.
        found: u64,
    },
    /// The template's state is not a valid one.
    #[error("the template's state is not valid")]
    State(#[from] DecodeError),
}

/// Memory and state of a snapshot, ready to be forked. The memory is a sealed memfd, which can no longer be changed.
#[derive(Debug)]
pub struct Template {
    state: VmState,
    memory: Arc<File>,
    /// The state as a sealed memfd, to be passed to other processes.
    saved_state: File,
}

impl Template {
    /// Copies decoded memory and its state into sealed memfds.
    pub(super) fn seal(memory: &GuestMemory, state: &VmState) -> Result<Self, Error> {
        let file = copy_to_file(memory).map_err(Error::File)?;
        let saved_state = state_file(state).map_err(Error::File)?;
        Ok(Self { state: state.clone(), memory: Arc::new(file), saved_state })
    }

    /// The template that another process has passed on as its [`file`](Self::file) and its [`saved_state`](Self::saved_state).
    ///
    /// # Errors
    /// [`Error::File`] if they cannot be read, [`Error::State`] if the state is not valid, [`Error::Size`] if they do
    /// not belong together.
    pub fn received(memory: File, saved_state: File) -> Result<Self, Error> {
        let state = read_state(&saved_state).map_err(Error::File)??;
        let wanted = state.layout().size_bytes();
        let found = memory.metadata().map_err(Error::File)?.len();
        if wanted != found {
            return Err(Error::Size { wanted, found });
        }
        Ok(Self { state, memory: Arc::new(memory), saved_state })
    }

    /// The state that every fork starts from.
    #[must_use]
    pub const fn state(&self) -> &VmState {
        &self.state
    }

    /// The sealed memfd with the memory.
    #[must_use]
    pub const fn file(&self) -> &Arc<File> {
        &self.memory
    }

    /// The sealed memfd with the state, to be passed to another process like [`file`](Self::file).
    #[must_use]
    pub const fn saved_state(&self) -> &File {
        &self.saved_state
    }

    /// Memory for one clone: it shares each page with the template until it writes to that page.
    ///
    /// # Errors
    /// [`memory::Error`] with the kernel's reason if the template cannot be mapped.
    pub fn memory(&self) -> Result<GuestMemory, memory::Error> {
        GuestMemory::new(self.layout(), Backing::OverTemplate(Arc::clone(&self.memory)))
    }

    fn layout(&self) -> Layout {
        self.state.layout()
    }
}

fn copy_to_file(memory: &GuestMemory) -> io::Result<File> {
    let file = memfd::create(c"template", memory.layout().size_bytes(), false)?;
    let starts: Vec<u64> = memory
        .layout()
        .ranges()
        .scan(0, |end, range| {
            let start = *end;
            *end += range.len_bytes;
            Some(start)
        })
        .collect();
    let mut bytes = vec![0; CHUNK_BYTES];
    for chunk in layout::chunks(memory.layout()) {
        if layout::touched(memory, &chunk)?.is_empty() {
            continue;
        }
        let region = &memory.regions()[chunk.region];
        let bytes = &mut bytes[..chunk.len_bytes()];
        region.read(chunk.offset, bytes).map_err(io::Error::other)?;
        // Zero pages stay holes in the file, so they cost no memory.
        for (place, page) in
            bytes.chunks(PAGE_BYTES).enumerate().filter(|(_, page)| page.iter().any(|b| *b != 0))
        {
            file.write_all_at(page, starts[chunk.region] + (chunk.offset + place * PAGE_BYTES) as u64)?;
        }
    }
    memfd::seal(&file)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use vmm::memory::PageSize;
    use vmm::memory::layout::{MMIO_GAP_END, MMIO_GAP_START};

    use super::*;

    const PAGE: u64 = PAGE_BYTES as u64;

    #[test]
    fn the_file_has_every_byte_of_memory_at_its_place_up_to_odd_ends_and_no_zero_pages() {
        let above_gap = MMIO_GAP_START + (512 + 37) * PAGE;
        let high = MMIO_GAP_END + (512 + 37) * PAGE;
        // Addresses that are written, and where they are in the file.
        let cases: [(u64, &[(u64, u64)]); 4] = [
            (256 * PAGE, &[(0, 0), (256 * PAGE - 1, 256 * PAGE - 1)]),
            (513 * PAGE, &[(511 * PAGE, 511 * PAGE), (513 * PAGE - 1, 513 * PAGE - 1)]),
            (812 * PAGE, &[(7, 7), (700 * PAGE, 700 * PAGE), (811 * PAGE + 5, 811 * PAGE + 5)]),
            (
                above_gap,
                &[
                    (5 * PAGE, 5 * PAGE),
                    (MMIO_GAP_START - 1, MMIO_GAP_START - 1),
                    (MMIO_GAP_END, MMIO_GAP_START),
                    (MMIO_GAP_END + 512 * PAGE + 3, MMIO_GAP_START + 512 * PAGE + 3),
                    (high - 1, above_gap - 1),
                ],
            ),
        ];
        for (size, written) in cases {
            let layout = Layout::new(size).unwrap();
            let memory = GuestMemory::new(layout, Backing::Private(PageSize::Base)).unwrap();
            for ((address, _), value) in written.iter().zip(1..) {
                memory.write(*address, &[value]).unwrap();
            }
            // A page that was touched and is zero takes no memory in the file.
            memory.write(300 * PAGE % size, &[0]).unwrap();
            let file = copy_to_file(&memory).unwrap();
            assert_eq!(file.metadata().unwrap().len(), size);
            let pages = usize::try_from(size / PAGE).unwrap();
            let mut bitmap = vec![0; pages.div_ceil(64)];
            memfd::touched(&file, 0, pages, &mut bitmap).unwrap();
            let there = (0..size / PAGE).filter(|page| {
                let page = usize::try_from(*page).unwrap();
                bitmap[page / 64] >> (page % 64) & 1 == 1
            });
            let mut wanted: Vec<u64> = written.iter().map(|(_, at)| at / PAGE).collect();
            wanted.dedup();
            assert!(there.eq(wanted), "{size:#x}");
            for ((address, at), value) in written.iter().zip(1_u8..) {
                let mut byte = [0];
                file.read_exact_at(&mut byte, *at).unwrap();
                assert_eq!(byte, [value], "{address:#x} of {size:#x}");
            }
            assert!(file.write_at(&[1], 0).is_err(), "sealed");
            // A fork finds every byte where it was.
            let fork = GuestMemory::new(layout, Backing::OverTemplate(Arc::new(file))).unwrap();
            for ((address, _), value) in written.iter().zip(1_u8..) {
                let mut byte = [0];
                fork.read(*address, &mut byte).unwrap();
                assert_eq!(byte, [value], "{address:#x} of {size:#x}");
            }
        }
    }
}
