//! What the caller says about a snapshot it puts: for people, and for the order in which snapshots are saved.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Error, MAX_TAG_BYTES, MAX_TAGS};

/// Decides which snapshots are made durable first when there is no time for all: the greater the number, the earlier.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Priority(pub u8);

/// Priority and tags of a snapshot. Like all of it, they do not change once it is published.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Labels {
    /// Which snapshots are flushed before this one, and which after it.
    pub priority: Priority,
    /// Whatever else is worth knowing: at most [`MAX_TAGS`] entries with a key that is not empty; each key and value is at
    /// most [`MAX_TAG_BYTES`] long and has no control characters.
    pub tags: BTreeMap<String, String>,
}

impl Labels {
    /// Checks the tags against the limits.
    pub(super) fn check(&self) -> Result<(), Error> {
        let fits = |text: &String| text.len() <= MAX_TAG_BYTES && !text.chars().any(char::is_control);
        let wrong = self.tags.iter().find(|(key, value)| key.is_empty() || !fits(key) || !fits(value));
        match wrong {
            Some((key, _)) => Err(Error::InvalidTag { key: key.clone() }),
            None if self.tags.len() > MAX_TAGS => Err(Error::TooManyTags { tags: self.tags.len() }),
            None => Ok(()),
        }
    }
}
