//! What became of a chunk: counted while encoding, added up by whoever drives the encoder.

use std::ops::{AddAssign, Index};

use crate::format::PageKind;

use super::WordTag;

/// Pages of one kind and the bytes of their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Number of pages.
    pub pages: u64,
    /// Bytes of their records: without map entry and dictionary.
    pub bytes: u64,
}

/// What one chunk, or the sum of many, was encoded to.
///
/// `stats[PageKind::Zero].pages` counts the zero pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ChunkStats {
    kinds: [KindStats; PageKind::COUNT],
    words: [u64; WordTag::COUNT],
    /// Bytes of the pages, untouched ones included.
    pub page_bytes: u64,
    /// Everything that must be stored: header, map, dictionary, records, slack.
    pub encoded_bytes: u64,
    /// Entries of the dictionaries.
    pub dictionary_entries: u64,
    /// Sequences of byte markers in BYTE-MARKED pages.
    pub byte_markers: u64,
}

impl ChunkStats {
    /// Vectors of WORD-MARKED pages that have this tag.
    #[must_use]
    pub fn word_tags(&self, tag: WordTag) -> u64 {
        self.words[tag as usize]
    }

    /// Pages of any kind.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.kinds.iter().map(|kind| kind.pages).sum()
    }

    /// Page bytes per encoded byte.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = self.page_bytes as f64 / self.encoded_bytes as f64;
        ratio
    }

    pub(super) fn count_page(&mut self, kind: PageKind, bytes: usize) {
        let stats = &mut self.kinds[kind as usize];
        stats.pages += 1;
        stats.bytes += bytes as u64;
    }

    pub(super) fn count_words(&mut self, tags: &[u16; WordTag::COUNT]) {
        for (sum, &tags) in self.words.iter_mut().zip(tags) {
            *sum += u64::from(tags);
        }
    }
}

impl Index<PageKind> for ChunkStats {
    type Output = KindStats;

    fn index(&self, kind: PageKind) -> &KindStats {
        &self.kinds[kind as usize]
    }
}

impl AddAssign for ChunkStats {
    fn add_assign(&mut self, other: Self) {
        let Self { kinds, words, page_bytes, encoded_bytes, dictionary_entries, byte_markers } = other;
        for (sum, kind) in self.kinds.iter_mut().zip(kinds) {
            sum.pages += kind.pages;
            sum.bytes += kind.bytes;
        }
        for (sum, words) in self.words.iter_mut().zip(words) {
            *sum += words;
        }
        self.page_bytes += page_bytes;
        self.encoded_bytes += encoded_bytes;
        self.dictionary_entries += dictionary_entries;
        self.byte_markers += byte_markers;
    }
}
