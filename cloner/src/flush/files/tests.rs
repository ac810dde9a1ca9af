//! Reads and writes that the operating system does in part, interrupts, or refuses.

use std::collections::VecDeque;
use std::sync::Mutex;

use super::*;
use crate::sync::lock;

/// A file in memory that takes or gives as many bytes in each call as a test says, and all that it is asked for afterwards.
#[derive(Debug, Default)]
pub(crate) struct PartialFile {
    pub(crate) bytes: Mutex<Vec<u8>>,
    script: Mutex<VecDeque<io::Result<usize>>>,
}

impl PartialFile {
    pub(crate) fn new(bytes: Vec<u8>, script: impl IntoIterator<Item = io::Result<usize>>) -> Self {
        Self { bytes: Mutex::new(bytes), script: Mutex::new(script.into_iter().collect()) }
    }

    fn count(&self, wanted: usize) -> io::Result<usize> {
        lock(&self.script).pop_front().map_or(Ok(wanted), |most| Ok(most?.min(wanted)))
    }
}

impl WriteFile for PartialFile {
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        assert!(offset.is_multiple_of(BLOCK_BYTES as u64), "a direct write at {offset}");
        let (start, count) = (usize::try_from(offset).unwrap(), self.count(bytes.len())?);
        let mut file = lock(&self.bytes);
        let len = file.len().max(start + count);
        file.resize(len, 0);
        file[start..start + count].copy_from_slice(&bytes[..count]);
        Ok(count)
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        lock(&self.bytes).resize(usize::try_from(bytes).unwrap(), 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadFile for PartialFile {
    fn len_bytes(&self) -> u64 {
        lock(&self.bytes).len() as u64
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        let count = self.count(out.len())?;
        let file = lock(&self.bytes);
        let rest = &file[file.len().min(usize::try_from(offset).unwrap())..];
        let count = count.min(rest.len());
        out[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }
}

pub(crate) fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap()).collect()
}

fn interrupted() -> io::Result<usize> {
    Err(io::ErrorKind::Interrupted.into())
}

#[test]
fn what_is_written_in_part_is_completed_from_the_start_of_a_block() {
    const BLOCK: usize = BLOCK_BYTES;
    let scripts: [fn() -> Vec<io::Result<usize>>; 6] = [
        Vec::new,
        || vec![Ok(BLOCK), Ok(2 * BLOCK)],
        || vec![Ok(BLOCK + 1), Ok(2 * BLOCK - 1), Ok(BLOCK + BLOCK / 2)],
        || vec![interrupted(), Ok(BLOCK), interrupted(), interrupted()],
        || vec![Ok(5 * BLOCK + 9)],
        || vec![Ok(2 * BLOCK), Ok(usize::MAX)],
    ];
    for (script, blocks) in scripts.iter().flat_map(|script| [0, 1, 3, 7].map(|blocks| (script, blocks))) {
        let (bytes, file) = (pattern(blocks * BLOCK), PartialFile::new(vec![0xee; BLOCK], script()));
        write_all_at(&file, BLOCK as u64, &bytes).unwrap();
        let found = lock(&file.bytes).clone();
        assert!(found == [vec![0xee; BLOCK], bytes].concat(), "{:?}, {blocks} blocks", script());
    }
    // The last part of a file may end inside a block.
    let (bytes, file) = (pattern(BLOCK + 100), PartialFile::new(Vec::new(), [Ok(BLOCK + 50)]));
    write_all_at(&file, 0, &bytes).unwrap();
    assert!(*lock(&file.bytes) == bytes);
}

#[test]
fn a_write_that_does_not_get_on_or_fails_is_an_error() {
    let write = |script: Vec<io::Result<usize>>| {
        let file = PartialFile::new(Vec::new(), script);
        write_all_at(&file, 0, &pattern(2 * BLOCK_BYTES)).unwrap_err().kind()
    };
    assert_eq!(write(vec![Ok(0)]), io::ErrorKind::WriteZero);
    assert_eq!(write(vec![Ok(BLOCK_BYTES - 1)]), io::ErrorKind::WriteZero);
    assert_eq!(write(vec![Ok(BLOCK_BYTES), interrupted(), Ok(0)]), io::ErrorKind::WriteZero);
    assert_eq!(
        write(vec![Ok(BLOCK_BYTES), Err(io::ErrorKind::StorageFull.into())]),
        io::ErrorKind::StorageFull
    );
}

#[test]
fn what_is_read_in_part_is_completed_from_where_it_stopped() {
    let bytes = pattern(9000);
    let scripts: [fn() -> Vec<io::Result<usize>>; 4] = [
        Vec::new,
        || vec![Ok(1), Ok(2), interrupted(), Ok(500)],
        || (0..200).map(|_| Ok(1)).collect(),
        || vec![interrupted(), interrupted(), Ok(4096)],
    ];
    for (script, (at, len)) in
        scripts.iter().flat_map(|script| [(0, 9000), (4096, 4904), (8999, 1), (9, 0)].map(|r| (script, r)))
    {
        let (file, mut out) = (PartialFile::new(bytes.clone(), script()), vec![0x77; len]);
        read_exact_at(&file, at as u64, &mut out).unwrap();
        assert!(out == bytes[at..at + len], "{len} bytes at {at}, {:?}", script());
    }
}

#[test]
fn a_file_that_ends_early_is_an_error_and_not_zeros() {
    let read = |script: Vec<io::Result<usize>>, at, len| {
        read_exact_at(&PartialFile::new(pattern(9000), script), at, &mut vec![0; len]).unwrap_err().kind()
    };
    for (at, len) in [(0, 9001), (8999, 2), (9000, 1), (20_000, 1)] {
        assert_eq!(read(vec![], at, len), io::ErrorKind::UnexpectedEof, "{len} at {at}");
        assert_eq!(read(vec![Ok(1), interrupted()], at, len), io::ErrorKind::UnexpectedEof, "{len} at {at}");
    }
    assert_eq!(read(vec![Ok(7), Ok(0)], 0, 100), io::ErrorKind::UnexpectedEof);
    assert_eq!(read(vec![Ok(7), Err(io::ErrorKind::NotFound.into())], 0, 100), io::ErrorKind::NotFound);
}
