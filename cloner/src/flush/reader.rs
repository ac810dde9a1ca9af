//! One file of a flush folder, opened: its header and index are valid, and its records can be read.

use std::sync::Arc;

use super::encrypt::Nonce;
use super::error::Error;
use super::files::{BLOCK_BYTES, ReadFile, read_exact_at};
use super::folder::Folder;
use super::header::{BOUND_BYTES, Header, HeaderError, IDENTITY_BYTES};
use super::index::{INDEX_BYTES_MAX, Index, IndexV2};
use super::writer::INDEX_RECORD;
use crate::sys::arena::Span;
use vmm::memory::PageSize;

/// A flushed snapshot that can be read. Its records have not been looked at yet.
#[derive(Debug, Clone)]
pub(super) struct SnapshotFile {
    pub(super) file: String,
    opened: Arc<dyn ReadFile>,
    header: Header,
    index: Arc<Index>,
}

/// Page-aligned memory for reads that bypass the page cache.
#[derive(Debug)]
pub(super) struct ReadBuffer(Span);

impl ReadBuffer {
    /// Makes a buffer for runs of up to `len_bytes` bytes from anywhere in a file.
    pub(super) fn new(len_bytes: usize) -> std::io::Result<Self> {
        let len_bytes = len_bytes.next_multiple_of(BLOCK_BYTES) + BLOCK_BYTES;
        Span::map(len_bytes, PageSize::Base).map(Self)
    }

    /// Reads the `len_bytes` bytes at `offset`.
    fn read(&mut self, file: &dyn ReadFile, offset: u64, len_bytes: usize) -> std::io::Result<&mut [u8]> {
        let skip = usize::try_from(offset % BLOCK_BYTES as u64).expect("less than a block");
        let whole = (skip + len_bytes).next_multiple_of(BLOCK_BYTES);
        if whole > self.0.len_bytes() {
            *self = Self::new(whole)?;
        }
        read_exact_at(file, offset - skip as u64, &mut self.0.bytes_mut()[..whole])?;
        Ok(&mut self.0.bytes_mut()[skip..skip + len_bytes])
    }
}

impl SnapshotFile {
    /// Opens the file `file`, which according to its name is the snapshot `snapshot`.
    pub(super) fn open(folder: &Folder, file: &str, snapshot: u128) -> Result<Self, Error> {
        let name = || file.to_owned();
        let opened: Arc<dyn ReadFile> =
            folder.files().open(file).map_err(Error::file(file, "open it"))?.into();
        let len_bytes = opened.len_bytes();
        let wrong = |source| Error::Header { file: name(), source };
        if len_bytes < BLOCK_BYTES as u64 {
            return Err(wrong(HeaderError::Short { found: len_bytes }));
        }
        // Reports a truncated file as such, before a block that is not there is asked for.
        if !len_bytes.is_multiple_of(BLOCK_BYTES as u64) {
            let expected = len_bytes.next_multiple_of(BLOCK_BYTES as u64);
            return Err(wrong(HeaderError::Length { expected, found: len_bytes }));
        }
        let cannot_read = || Error::file(file, "read it");
        let mut buffer = ReadBuffer::new(BLOCK_BYTES).map_err(cannot_read())?;
        let block = buffer.read(&*opened, 0, BLOCK_BYTES).map_err(cannot_read())?;
        let header =
            Header::from_block(block.first_chunk().expect("one block was read"), len_bytes).map_err(wrong)?;
        for (what, expected, found) in
            [("folder", folder.id(), header.folder), ("snapshot", snapshot, header.snapshot)]
        {
            if expected != found {
                return Err(Error::Misplaced { file: name(), what, expected, found });
            }
        }
        if header.nonce.is_some() != folder.is_encrypted() {
            return Err(Error::Encryption { folder: name(), encrypted: header.nonce.is_some() });
        }
        let too_long = HeaderError::Field { field: "index_bytes", value: header.index_bytes };
        let len = match usize::try_from(header.index_bytes) {
            Ok(len) if header.index_bytes <= INDEX_BYTES_MAX => len,
            _ => return Err(wrong(too_long)),
        };
        let bytes = buffer.read(&*opened, header.index_at, len).map_err(cannot_read())?;
        let bound_to = header.to_block();
        let bytes = open_record(folder, &header, INDEX_RECORD, &bound_to[..BOUND_BYTES], bytes)
            .ok_or_else(|| Error::Forged { file: name(), part: String::from("the index") })?;
        let index = Index::from_bytes(bytes, snapshot, header.index_at, folder.is_encrypted())
            .map_err(|source| Error::Index { file: name(), source })?;
        Ok(Self { file: name(), opened, header, index: Arc::new(index) })
    }

    pub(super) fn index(&self) -> &IndexV2 {
        self.index.get()
    }

    pub(super) const fn file_bytes(&self) -> u64 {
        self.header.file_bytes
    }

    /// Reads a run of records that lie one after the other.
    pub(super) fn read<'b>(
        &self,
        buffer: &'b mut ReadBuffer,
        offset: u64,
        len_bytes: usize,
    ) -> Result<&'b mut [u8], Error> {
        buffer.read(&*self.opened, offset, len_bytes).map_err(Error::file(&self.file, "read it"))
    }

    /// The record with this number, decrypted if the file is encrypted.
    pub(super) fn open_record<'b>(
        &self,
        folder: &Folder,
        record: u64,
        part: impl FnOnce() -> String,
        bytes: &'b mut [u8],
    ) -> Result<&'b [u8], Error> {
        let bound_to = self.header.to_block();
        open_record(folder, &self.header, record, &bound_to[..IDENTITY_BYTES], bytes)
            .ok_or_else(|| Error::Forged { file: self.file.clone(), part: part() })
    }
}

fn open_record<'b>(
    folder: &Folder,
    header: &Header,
    record: u64,
    bound_to: &[u8],
    bytes: &'b mut [u8],
) -> Option<&'b [u8]> {
    match (folder.key(), header.nonce) {
        (Some(key), Some(nonce)) => {
            let len = key.decrypt(Nonce::new(nonce, record), bound_to, bytes).ok()?;
            Some(&bytes[..len])
        }
        _ => Some(bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::super::files::tests::{PartialFile, pattern};
    use super::*;

    #[test]
    fn a_run_is_read_from_anywhere_and_whole_blocks_are_asked_for() {
        let bytes = pattern(5 * BLOCK_BYTES);
        for room in [1, BLOCK_BYTES, 3 * BLOCK_BYTES] {
            let mut buffer = ReadBuffer::new(room).unwrap();
            for (at, len) in
                [(0, 1), (4095, 2), (4096, 4096), (1, 4096), (9000, 8191), (20479, 1), (0, 20480), (5, 0)]
            {
                let file = PartialFile::new(bytes.clone(), [Ok(4096), Ok(512)]);
                let read = buffer.read(&file, at as u64, len).unwrap();
                assert!(*read == bytes[at..at + len], "{len} bytes at {at} through {room}");
            }
            let file = PartialFile::new(bytes.clone(), []);
            let beyond = buffer.read(&file, 20480, 1).unwrap_err();
            assert_eq!(beyond.kind(), std::io::ErrorKind::UnexpectedEof);
        }
    }
}
