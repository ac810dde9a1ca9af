//! The names of snapshots, and what each stands for.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::{Arc, Mutex, MutexGuard};

use crate::sync::lock;

use super::Error;
use super::stored::StoredSnapshot;

/// Length in bytes of the longest name that a snapshot can have.
const MAX_NAME_BYTES: usize = 64;

/// Every name in the pool, published or claimed.
#[derive(Debug, Default)]
pub(super) struct NameIndex {
    slots: Mutex<BTreeMap<String, Slot>>,
}

#[derive(Debug)]
enum Slot {
    /// A reservation will fill the slot or give it back.
    Claimed,
    Published(Arc<StoredSnapshot>),
}

impl NameIndex {
    /// Takes a name that is free. It stays invisible until the claim is filled.
    pub(super) fn claim(self: &Arc<Self>, name: &str) -> Result<ClaimedName, Error> {
        validate(name)?;
        match self.lock().entry(name.to_owned()) {
            Entry::Vacant(slot) => slot.insert(Slot::Claimed),
            Entry::Occupied(_) => return Err(Error::NameTaken { name: name.to_owned() }),
        };
        Ok(ClaimedName { text: name.to_owned(), claimed_in: Some(Arc::clone(self)) })
    }

    pub(super) fn get(&self, name: &str) -> Result<Arc<StoredSnapshot>, Error> {
        match self.lock().get(name) {
            Some(Slot::Published(stored)) => Ok(Arc::clone(stored)),
            Some(Slot::Claimed) | None => Err(Error::NotFound { name: name.to_owned() }),
        }
    }

    /// Takes the name of a published snapshot off the index. Returns the handle, so that the caller drops it, and with it
    /// perhaps the memory, outside the lock.
    pub(super) fn remove(&self, name: &str) -> Result<Arc<StoredSnapshot>, Error> {
        let mut slots = self.lock();
        let Some(Slot::Published(stored)) = slots.get(name) else {
            return Err(Error::NotFound { name: name.to_owned() });
        };
        let stored = Arc::clone(stored);
        slots.remove(name);
        Ok(stored)
    }

    /// Every published snapshot, sorted by name.
    pub(super) fn all(&self) -> Vec<Arc<StoredSnapshot>> {
        let published = |slot: &Slot| match slot {
            Slot::Published(stored) => Some(Arc::clone(stored)),
            Slot::Claimed => None,
        };
        self.lock().values().filter_map(published).collect()
    }

    /// Each change under the lock is one call of the map, so a poisoned lock says nothing about its content.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Slot>> {
        lock(&self.slots)
    }
}

/// The exclusive right to put a snapshot under a name; dropping it gives the name back.
#[derive(Debug)]
pub(super) struct ClaimedName {
    text: String,
    /// The index that the name is claimed in, until it is filled there; `None` for a snapshot that is not to be listed.
    claimed_in: Option<Arc<NameIndex>>,
}

impl ClaimedName {
    /// A name that cannot be found, so several snapshots may have it. It is for removed snapshots that others depend on.
    pub(super) fn unlisted(name: &str) -> Result<Self, Error> {
        validate(name)?;
        Ok(Self { text: name.to_owned(), claimed_in: None })
    }

    pub(super) fn get(&self) -> &str {
        &self.text
    }

    /// Makes `stored` visible under the name, if it is to be listed.
    pub(super) fn fill(mut self, stored: &Arc<StoredSnapshot>) {
        // Taken out, so that the drop does not free the name: from here on it is this snapshot's, and later perhaps another's.
        if let Some(index) = self.claimed_in.take() {
            index.lock().insert(self.text.clone(), Slot::Published(Arc::clone(stored)));
        }
    }
}

impl Drop for ClaimedName {
    fn drop(&mut self) {
        if let Some(index) = &self.claimed_in {
            index.lock().remove(&self.text);
        }
    }
}

/// Checks a name. Names become file names when snapshots are flushed, so few characters are allowed.
fn validate(name: &str) -> Result<(), Error> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if (1..=MAX_NAME_BYTES).contains(&name.len()) && !name.starts_with('.') && name.bytes().all(allowed) {
        Ok(())
    } else {
        Err(Error::InvalidName { name: name.to_owned() })
    }
}
