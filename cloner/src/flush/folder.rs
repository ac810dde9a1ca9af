//! A flush folder: which host it belongs to, and which snapshots are safe in it.
//!
//! ```text
//! folder          JSON in an envelope: the folder's number, its host, and whether it is encrypted
//! ID.snapshot     a snapshot that is listed
//! ID.hidden       a snapshot that was removed, but that another one still refers to
//! ID.partial      a flush that was not completed
//! ```
//!
//! A snapshot is removed by renaming it to `hidden`: one atomic step, no matter what depends on it. [`Folder::collect`] deletes
//! hidden files that are no longer needed, those that refer to others first; a crash in between leaves files that recovery deletes.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, Weak};

use serde::{Deserialize, Serialize};
use vmm::schema::envelope::Schema;

use super::Error;
use super::encrypt::{EncryptionKey, NONCE_BYTES, Nonce, TAG_BYTES, random_bytes};
use super::error::META_FILE;
use super::files::{BLOCK_BYTES, Files, ReadFile, read_exact_at, write_all_at};
use super::host::ANY_HOST;
use super::index::IndexV2;
use super::writer::{CompleteFile, PROBE_FILE, partial_name};
use crate::pool::StoredSnapshot;
use crate::snapshot::parse_id;
use crate::sync::lock;
use crate::sys::arena::Span;
use vmm::memory::PageSize;

const SCHEMA: Schema = Schema { magic: *b"CLNFOLD\0", version: 1, name: "flush folder" };
/// Length of the folder's own file: one block, so that it is written and read like all others.
const META_BYTES: usize = BLOCK_BYTES;
const META_PARTIAL: &str = "folder.partial";

/// Schema of the folder's own file, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FolderV1 {
    /// 32 hexadecimal digits, drawn at random.
    id: String,
    /// The host that the folder belongs to.
    host: String,
    /// `Some` if the folder is encrypted: 32 hexadecimal digits that only the right key gives, for this id and host.
    key_check: Option<String>,
}

/// How to open a folder.
#[derive(Debug, Clone, Default)]
pub struct FolderOptions {
    /// Name of this host. A folder that belongs to another host is refused. See [`this_host`](super::this_host).
    pub host: String,
    /// Whether to take over a folder that belongs to another host.
    pub adopt: bool,
    /// Encrypts everything in the folder. A folder can only be opened the way it was made: with the same key, or without one.
    pub key: Option<EncryptionKey>,
}

/// A folder, and what is known to be in it. Every method may be called from any thread.
#[derive(Debug)]
pub struct Folder {
    files: Arc<dyn Files>,
    id: u128,
    key: Option<EncryptionKey>,
    catalogue: Mutex<BTreeMap<u128, CatalogueEntry>>,
}

/// One file of the folder.
#[derive(Debug, Clone)]
pub(super) struct CatalogueEntry {
    pub(super) name: String,
    pub(super) listed: bool,
    pub(super) dependencies: Vec<u128>,
    pub(super) file_bytes: u64,
    /// Whether the file's name is known to survive a crash.
    pub(super) durable: bool,
    /// The snapshot in the pool. While it lives, new snapshots may come to refer to it.
    pub(super) stored: Weak<StoredSnapshot>,
}

pub(super) fn file_name(id: u128, listed: bool) -> String {
    format!("{id:032x}.{}", if listed { "snapshot" } else { "hidden" })
}

impl Folder {
    /// Opens a flush folder. An empty folder is made into one. The snapshots in it are not read yet, see
    /// [`Recoverer`](super::Recoverer).
    ///
    /// # Errors
    /// * [`Error::NoFolder`] if it has other files, [`Error::Folder`] or [`Error::FolderId`] if its own file is damaged;
    /// * [`Error::OtherHost`] unless the options adopt it;
    /// * [`Error::Encryption`] or [`Error::Key`] if the key is missing, not wanted or wrong;
    /// * [`Error::File`] if a file operation fails.
    pub fn open(files: Arc<dyn Files>, options: &FolderOptions) -> Result<Self, Error> {
        let place = files.place();
        let found = files.list().map_err(Error::file(&place, "list it"))?;
        let id = if found.iter().any(|(name, _)| name == META_FILE) {
            read_meta(&*files, &place, options)?
        } else if found.iter().all(|(name, _)| name == META_PARTIAL || name == PROBE_FILE) {
            let id = u128::from_le_bytes(random_bytes());
            write_meta(&*files, id, options)?;
            id
        } else {
            return Err(Error::NoFolder { folder: place, files: found.len() });
        };
        Ok(Self { files, id, key: options.key.clone(), catalogue: Mutex::default() })
    }

    /// Where the folder is, for messages.
    #[must_use]
    pub fn place(&self) -> String {
        self.files.place()
    }

    /// Whether everything in the folder is encrypted.
    #[must_use]
    pub const fn is_encrypted(&self) -> bool {
        self.key.is_some()
    }

    pub(super) fn files(&self) -> &Arc<dyn Files> {
        &self.files
    }

    pub(super) const fn id(&self) -> u128 {
        self.id
    }

    pub(super) const fn key(&self) -> Option<&EncryptionKey> {
        self.key.as_ref()
    }

    /// Length in bytes of all files that the folder knows of.
    #[must_use]
    pub fn file_bytes(&self) -> u64 {
        self.catalogue().values().map(|entry| entry.file_bytes).sum()
    }

    /// Whether a listed snapshot has this name.
    #[must_use]
    pub fn lists(&self, name: &str) -> bool {
        self.catalogue().values().any(|entry| entry.listed && entry.name == name)
    }

    /// Whether the snapshot with this number is safe here.
    pub(super) fn holds(&self, id: u128) -> bool {
        self.catalogue().get(&id).is_some_and(|entry| entry.durable)
    }

    pub(super) fn insert(&self, id: u128, entry: CatalogueEntry) {
        self.catalogue().insert(id, entry);
    }

    /// Commits a complete file: renames it, and syncs the folder. `listed` is called under the lock that removals take, so a
    /// snapshot that is removed meanwhile is not listed afterwards.
    ///
    /// # Errors
    /// [`Error::File`]: the snapshot is not known to be safe, and may be committed again.
    pub(super) fn commit(
        &self,
        complete: &CompleteFile,
        stored: &Arc<StoredSnapshot>,
        listed: impl FnOnce() -> bool,
    ) -> Result<(), Error> {
        let mut catalogue = self.catalogue();
        let CompleteFile { id, index, file_bytes, .. } = complete;
        let listed = listed();
        if listed {
            // The folder may have refused a removal before. There must not be two listed snapshots of one name.
            let old = |(other, entry): (&u128, &CatalogueEntry)| {
                (entry.listed && entry.name == index.name && other != id).then_some(*other)
            };
            if let Some(old) = catalogue.iter().find_map(old) {
                self.hide_entry(&mut catalogue, old)?;
            }
        }
        let IndexV2 { name, dependencies, .. } = index;
        let target = file_name(*id, listed);
        let renamed = self.files.rename(&partial_name(*id), &target);
        // Entered now, so that a removal finds it even if the rename happened but reported an error, or if the sync fails.
        catalogue.insert(
            *id,
            CatalogueEntry {
                name: name.clone(),
                listed,
                dependencies: dependencies.iter().map(|id| id.number()).collect(),
                file_bytes: *file_bytes,
                durable: false,
                stored: Arc::downgrade(stored),
            },
        );
        renamed.map_err(Error::file(&target, "commit it under this name"))?;
        self.sync()?;
        if let Some(entry) = catalogue.get_mut(id) {
            entry.durable = true;
        }
        Ok(())
    }

    /// Takes the snapshot named `name` off the list, durably. Does nothing if no listed snapshot has the name.
    ///
    /// # Errors
    /// [`Error::File`]: the snapshot may still be listed after a crash.
    pub fn remove(&self, name: &str) -> Result<(), Error> {
        let mut catalogue = self.catalogue();
        let listed =
            |(id, entry): (&u128, &CatalogueEntry)| (entry.listed && entry.name == name).then_some(*id);
        let Some(id) = catalogue.iter().find_map(listed) else { return Ok(()) };
        self.hide_entry(&mut catalogue, id)?;
        self.collect_from(&mut catalogue)
    }

    fn hide_entry(&self, catalogue: &mut BTreeMap<u128, CatalogueEntry>, id: u128) -> Result<(), Error> {
        let (from, to) = (file_name(id, true), file_name(id, false));
        let doubtful = catalogue.get(&id).is_some_and(|entry| !entry.durable);
        match self.files.rename(&from, &to) {
            // The commit that reported an error had indeed not happened.
            Err(error) if doubtful && error.kind() == io::ErrorKind::NotFound => drop(catalogue.remove(&id)),
            renamed => renamed.map_err(Error::file(&from, "remove it"))?,
        }
        if let Some(entry) = catalogue.get_mut(&id) {
            entry.listed = false;
        }
        self.sync()
    }

    /// Deletes hidden files that are no longer needed: no other file refers to them, and their snapshots are no longer in memory.
    ///
    /// # Errors
    /// [`Error::File`] if one cannot be deleted, or if the folder cannot be synced. Trying again does no harm.
    pub fn collect(&self) -> Result<(), Error> {
        self.collect_from(&mut self.catalogue())
    }

    fn collect_from(&self, catalogue: &mut BTreeMap<u128, CatalogueEntry>) -> Result<(), Error> {
        let mut deleted = false;
        while let Some(id) = unneeded(catalogue) {
            let name = file_name(id, false);
            match self.files.remove(&name) {
                // Either a commit reported an error and had not happened, or a removal reported one but had happened.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                removed => removed.map_err(Error::file(&name, "delete it"))?,
            }
            catalogue.remove(&id);
            deleted = true;
        }
        if deleted { self.sync() } else { Ok(()) }
    }

    pub(super) fn sync(&self) -> Result<(), Error> {
        self.files.sync_folder().map_err(Error::file(self.place(), "make the names in it durable"))
    }

    /// Every change under the lock is complete, so a poisoned lock says nothing about the catalogue.
    fn catalogue(&self) -> MutexGuard<'_, BTreeMap<u128, CatalogueEntry>> {
        lock(&self.catalogue)
    }
}

/// Finds a hidden file that no other file refers to and whose snapshot is no longer in memory.
fn unneeded(catalogue: &BTreeMap<u128, CatalogueEntry>) -> Option<u128> {
    let referred = |id: &u128| catalogue.values().any(|entry| entry.dependencies.contains(id));
    catalogue
        .iter()
        .find(|(id, entry)| !entry.listed && entry.stored.strong_count() == 0 && !referred(id))
        .map(|(id, _)| *id)
}

fn read_meta(files: &dyn Files, place: &str, options: &FolderOptions) -> Result<u128, Error> {
    let wrong = |source| Error::Folder { folder: place.to_owned(), source };
    let read = || -> io::Result<Vec<u8>> {
        let file = files.open(META_FILE)?;
        let len = usize::try_from(file.len_bytes()).unwrap_or(usize::MAX).min(META_BYTES);
        let mut block = Span::map(META_BYTES, PageSize::Base)?;
        // Direct reads take whole blocks; from a shorter file they give what there is.
        read_to_end(&*file, &mut block.bytes_mut()[..META_BYTES])?;
        Ok(block.bytes()[..len].to_vec())
    };
    let block = read().map_err(Error::file(format!("{place}/{META_FILE}"), "read it"))?;
    // The text says how long it is; the rest of the block is zeros.
    let padding = block.iter().rev().take_while(|&&byte| byte == 0).count();
    let meta: FolderV1 = SCHEMA
        .unwrap(&block[..block.len() - padding])
        .and_then(|text| Ok(serde_json::from_slice(text)?))
        .map_err(wrong)?;
    let id = parse_id(&meta.id).map_err(|source| Error::FolderId { folder: place.to_owned(), source })?;
    match (&meta.key_check, &options.key) {
        (None, None) => {}
        (Some(check), Some(key)) if *check == key_check(key, id, &meta.host) => {}
        (Some(_), Some(_)) => return Err(Error::Key { folder: place.to_owned() }),
        (check, _) => return Err(Error::Encryption { folder: place.to_owned(), encrypted: check.is_some() }),
    }
    if meta.host != options.host && meta.host != ANY_HOST {
        if !options.adopt {
            let (expected, found) = (options.host.clone(), meta.host);
            return Err(Error::OtherHost { folder: place.to_owned(), expected, found });
        }
        write_meta(files, id, options)?;
    }
    Ok(id)
}

fn read_to_end(file: &dyn ReadFile, out: &mut [u8]) -> io::Result<()> {
    let wanted = usize::try_from(file.len_bytes()).unwrap_or(usize::MAX).min(out.len());
    let mut read = 0;
    while read < wanted {
        match file.read_at(read as u64, &mut out[read..])? {
            0 => break,
            more => read += more,
        }
    }
    if read == 0 && wanted > 0 { read_exact_at(file, 0, &mut out[..wanted]) } else { Ok(()) }
}

/// Writes the folder's own file like a snapshot: under another name, synced, then renamed.
fn write_meta(files: &dyn Files, id: u128, options: &FolderOptions) -> Result<(), Error> {
    let meta = FolderV1 {
        id: format!("{id:032x}"),
        host: options.host.clone(),
        key_check: options.key.as_ref().map(|key| key_check(key, id, &options.host)),
    };
    let text = SCHEMA.wrap(&serde_json::to_vec(&meta).expect("plain structs of strings"));
    let write = || -> io::Result<()> {
        let mut block = Span::map(META_BYTES, PageSize::Base)?;
        let room = block.bytes_mut().get_mut(..text.len()).ok_or(io::ErrorKind::InvalidInput)?;
        room.copy_from_slice(&text);
        match files.remove(META_PARTIAL) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let file = files.create(META_PARTIAL, META_BYTES as u64)?;
        write_all_at(&*file, 0, block.bytes())?;
        file.sync()?;
        files.rename(META_PARTIAL, META_FILE)?;
        files.sync_folder()
    };
    write().map_err(Error::file(format!("{}/{META_FILE}", files.place()), "write it"))
}

/// A text that can be computed only with the key: the tag of an empty message bound to the folder, in hexadecimal.
fn key_check(key: &EncryptionKey, id: u128, host: &str) -> String {
    let mut tag = Vec::with_capacity(TAG_BYTES);
    let bound_to = format!("{id:032x} {host}");
    key.encrypt(Nonce::new([0; NONCE_BYTES], 0), bound_to.as_bytes(), &mut tag);
    tag.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("strings can be written to");
        text
    })
}

#[cfg(test)]
mod tests;
