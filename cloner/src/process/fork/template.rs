//! A snapshot decoded once, for any number of clones to run over.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES};
use vmm::VmState;
use vmm::memory::memfd;
use vmm::memory::{self, Backing, GuestMemory, Layout, PageSize};

use crate::layout;
use crate::process::{read_state, state_file};
use crate::restore::eager::EagerRestorer;
use crate::snapshot::Snapshot;
use crate::walk::Progress;

use super::Error;

/// Memory and state of a snapshot, ready to be forked. The memory is a sealed memfd, which can no longer be changed.
#[derive(Debug)]
pub struct Template {
    state: VmState,
    memory: Arc<File>,
    /// The state as a sealed memfd, to be passed to other processes.
    saved_state: File,
}

impl Template {
    /// Decodes a snapshot. This takes as long as an eager restore, and while it lasts needs memory for two copies.
    ///
    /// # Errors
    /// [`Error::Decode`] if the snapshot cannot be decoded or the caller cancels through `progress`, [`Error::Template`] if the
    /// memfds cannot be made or written.
    pub fn new(restorer: &EagerRestorer, snapshot: &Snapshot, progress: &Progress) -> Result<Self, Error> {
        let (decoded, _) =
            restorer.memory_for(snapshot, Backing::Private(PageSize::Transparent), progress)?;
        let memory = copy_to_file(&decoded).map_err(Error::Template)?;
        let saved_state = state_file(snapshot.state()).map_err(Error::Template)?;
        Ok(Self { state: snapshot.state().clone(), memory: Arc::new(memory), saved_state })
    }

    /// The template that another process has passed on as its [`file`](Self::file) and its [`saved_state`](Self::saved_state).
    ///
    /// # Errors
    /// [`Error::Template`] if they cannot be read, [`Error::State`] if the state is not valid, [`Error::TemplateSize`] if they do
    /// not belong together.
    pub fn received(memory: File, saved_state: File) -> Result<Self, Error> {
        let state = read_state(&saved_state).map_err(Error::Template)??;
        let wanted = state.layout().size_bytes();
        let found = memory.metadata().map_err(Error::Template)?.len();
        if wanted != found {
            return Err(Error::TemplateSize { wanted, found });
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
