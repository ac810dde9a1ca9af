//! What became of a chunk: counted while encoding, or read from the encoded chunk; the caller can sum it over many.

use std::ops::{AddAssign, Index};

use crate::chunk::{CodecError, PAGE_BYTES, PAGE_VECTORS, PageKind, RecordError};
use crate::hot::VerifiedChunk;

use super::WordTag;

/// How many pages have one kind, and the bytes of their records.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KindStats {
    /// Number of pages.
    pub pages: u64,
    /// Bytes of their records, without map entries and dictionary.
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
    /// Number of entries in the dictionaries.
    pub dictionary_entries: u64,
    /// Number of byte markers in BYTE-MARKED pages.
    pub byte_markers: u64,
}

impl ChunkStats {
    /// Number of vectors of WORD-MARKED pages that have this tag.
    #[must_use]
    pub fn word_tags(&self, tag: WordTag) -> u64 {
        self.words[tag as usize]
    }

    /// Number of pages of all kinds.
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

    /// Counts what an encoded chunk consists of from its records, with the same result as encoding it. No page is decoded.
    ///
    /// # Errors
    /// [`CodecError::Record`] if a record is too short to be counted.
    pub fn of(chunk: &VerifiedChunk<'_>) -> Result<Self, CodecError> {
        let mut stats = Self {
            page_bytes: (chunk.page_count() * PAGE_BYTES) as u64,
            encoded_bytes: chunk.as_bytes().len() as u64,
            dictionary_entries: chunk.dictionary().len() as u64,
            ..Self::default()
        };
        for page in chunk.page_indices() {
            let (kind, record) = chunk.record(page)?;
            let record = record.bytes();
            let short = |needed_bytes| {
                let source = RecordError::Length { needed_bytes, record_bytes: record.len() };
                CodecError::Record { page, kind, source }
            };
            stats.count_pages(kind, 1, record.len() as u64);
            if kind == PageKind::WordMarked {
                let planes = record.first_chunk().ok_or_else(|| short(TAG_BYTES))?;
                stats.count_words(&tags(planes));
            } else if kind == PageKind::ByteMarked {
                let &[low, high, _] = record.first_chunk().ok_or_else(|| short(3))?;
                stats.byte_markers += u64::from(u16::from_le_bytes([low, high]) & 0xfff);
            }
        }
        Ok(stats)
    }

    /// The stats of a chunk of `pages` pages that were never touched, and which is therefore not stored.
    #[must_use]
    pub fn untouched(pages: usize) -> Self {
        let mut stats = Self { page_bytes: (pages * PAGE_BYTES) as u64, ..Self::default() };
        stats.count_pages(PageKind::Untouched, pages as u64, 0);
        stats
    }

    pub(super) fn count_page(&mut self, kind: PageKind, bytes: usize) {
        self.count_pages(kind, 1, bytes as u64);
    }

    pub(crate) fn count_pages(&mut self, kind: PageKind, pages: u64, bytes: u64) {
        let stats = &mut self.kinds[kind as usize];
        stats.pages += pages;
        stats.bytes += bytes;
    }

    pub(super) fn count_words(&mut self, tags: &[u16; WordTag::COUNT]) {
        for (sum, &tags) in self.words.iter_mut().zip(tags) {
            *sum += u64::from(tags);
        }
    }
}

/// Bytes of the tags at the start of a WORD-MARKED record: three planes of one bit for each vector.
const TAG_BYTES: usize = 3 * PLANE_BYTES;
const PLANE_BYTES: usize = PAGE_VECTORS / 8;

/// Counts how many vectors have each tag.
fn tags(planes: &[u8; TAG_BYTES]) -> [u16; WordTag::COUNT] {
    let mut counts = [0; WordTag::COUNT];
    for at in 0..PLANE_BYTES {
        for bit in 0..8 {
            let plane = |number: usize| usize::from(planes[number * PLANE_BYTES + at] >> bit & 1) << number;
            counts[plane(0) | plane(1) | plane(2)] += 1;
        }
    }
    counts
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
