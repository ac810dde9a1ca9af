//! A flush folder in memory, which never fails.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use cloner::flush::files::{Files, ReadFile, WriteFile};

type Bytes = Arc<Mutex<Vec<u8>>>;

/// The files by name.
#[derive(Debug, Default)]
pub struct MemoryFiles(Mutex<BTreeMap<String, Bytes>>);

#[derive(Debug)]
struct MemoryFile(Bytes);

impl MemoryFiles {
    /// Adds a file, or replaces one.
    pub fn put(&self, name: &str, bytes: Vec<u8>) {
        self.with(|files| files.insert(name.to_owned(), Arc::new(Mutex::new(bytes))));
    }

    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<String, Bytes>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl MemoryFile {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<u8>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn missing<T>(found: Option<T>) -> io::Result<T> {
    found.ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl Files for MemoryFiles {
    fn place(&self) -> String {
        String::from("memory")
    }

    fn list(&self) -> io::Result<Vec<(String, u64)>> {
        Ok(self.with(|files| {
            let len = |bytes: &Bytes| bytes.lock().unwrap_or_else(PoisonError::into_inner).len() as u64;
            files.iter().map(|(name, bytes)| (name.clone(), len(bytes))).collect()
        }))
    }

    fn create(&self, name: &str, _bytes: u64) -> io::Result<Box<dyn WriteFile>> {
        let bytes = Bytes::default();
        self.with(|files| files.insert(name.to_owned(), Arc::clone(&bytes)));
        Ok(Box::new(MemoryFile(bytes)))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn ReadFile>> {
        let bytes = missing(self.with(|files| files.get(name).cloned()))?;
        Ok(Box::new(MemoryFile(bytes)))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let bytes = missing(self.with(|files| files.remove(from)))?;
        self.with(|files| files.insert(to.to_owned(), bytes));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        missing(self.with(|files| files.remove(name))).map(drop)
    }

    fn sync_folder(&self) -> io::Result<()> {
        Ok(())
    }
}

impl WriteFile for MemoryFile {
    fn write_at(&self, offset: u64, new: &[u8]) -> io::Result<usize> {
        let start = usize::try_from(offset).expect("a small file");
        self.with(|bytes| {
            let end = start + new.len();
            let len = bytes.len().max(end);
            bytes.resize(len, 0);
            bytes[start..end].copy_from_slice(new);
        });
        Ok(new.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.with(|bytes| bytes.resize(usize::try_from(len).expect("a small file"), 0));
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
}

impl ReadFile for MemoryFile {
    fn len_bytes(&self) -> u64 {
        self.with(|bytes| bytes.len() as u64)
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.with(|bytes| {
            let rest = usize::try_from(offset).ok().and_then(|start| bytes.get(start..)).unwrap_or_default();
            let len = rest.len().min(out.len());
            out[..len].copy_from_slice(&rest[..len]);
            Ok(len)
        })
    }
}
