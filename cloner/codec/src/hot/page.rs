//! Sets of pages, and what has to be known about a page before it is worth marking.

use crate::chunk::{CHUNK_PAGES, PAGE_VECTORS, Page, VECTOR_BYTES};

use super::simd::{Kernel, Lanes};

/// A set of pages of one chunk, one bit each.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct PageSet([u64; CHUNK_PAGES / 64]);

impl PageSet {
    /// The set of no pages.
    pub const EMPTY: Self = Self([0; CHUNK_PAGES / 64]);
    /// The set of all pages.
    pub const ALL: Self = Self([u64::MAX; CHUNK_PAGES / 64]);

    /// The set whose page `64 * i + j` is bit `j` of word `i`, as in KVM's dirty bitmaps.
    #[must_use]
    pub const fn from_words(words: [u64; CHUNK_PAGES / 64]) -> Self {
        Self(words)
    }

    /// Adds a page.
    ///
    /// # Panics
    /// If a chunk has no such page.
    pub fn insert(&mut self, page: usize) {
        self.0[page / 64] |= 1 << (page % 64);
    }

    /// Whether the page is in the set; `false` if a chunk has no such page.
    #[must_use]
    pub fn contains(&self, page: usize) -> bool {
        self.0.get(page / 64).is_some_and(|word| word >> (page % 64) & 1 == 1)
    }

    /// Number of pages in the set.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether the set has no page.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::EMPTY
    }
}

impl std::fmt::Debug for PageSet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_set().entries((0..CHUNK_PAGES).filter(|&page| self.contains(page))).finish()
    }
}

/// A page as its vectors, little-endian.
pub(super) type Vectors = [u64; PAGE_VECTORS];

/// The bytes of a page's 512 vectors.
pub(super) fn vector_bytes(page: &Page) -> &[[u8; VECTOR_BYTES]; PAGE_VECTORS] {
    page.as_chunks().0.try_into().expect("a page is 512 vectors")
}

/// The vector that a page repeats 512 times, if it does.
///
/// Most pages differ in the first few vectors, so those are looked at alone; a page that repeats one vector is read once, in runs
/// that compile to full registers.
#[inline(always)]
pub(super) fn fill_value(page: &Page) -> Option<u64> {
    const RUN: usize = 64;
    let vectors = vector_bytes(page);
    let first = u64::from_ne_bytes(vectors[0]);
    if u64::from_ne_bytes(vectors[1]) != first || u64::from_ne_bytes(vectors[PAGE_VECTORS - 1]) != first {
        return None;
    }
    let same = |run: &[[u8; VECTOR_BYTES]]| {
        run.iter().fold(0, |differs, &vector| differs | (u64::from_ne_bytes(vector) ^ first)) == 0
    };
    vectors.chunks_exact(RUN).all(same).then(|| u64::from_le_bytes(vectors[0]))
}

/// Counts the vectors of a page that are zero.
pub(super) struct CountZeros<'a>(pub &'a Page);

impl Kernel for CountZeros<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, _lanes: L) -> usize {
        let is_zero = |&vector: &[u8; VECTOR_BYTES]| u64::from(u64::from_ne_bytes(vector) == 0);
        usize::try_from(vector_bytes(self.0).iter().map(is_zero).sum::<u64>()).expect("a page has 512")
    }
}

/// Reads the vectors of a page.
#[inline(always)]
pub(super) fn load_vectors(page: &Page) -> Vectors {
    vector_bytes(page).map(u64::from_le_bytes)
}

/// The bytes of a page's 512 vectors, to write.
pub(super) fn vector_bytes_mut(page: &mut Page) -> &mut [[u8; VECTOR_BYTES]; PAGE_VECTORS] {
    page.as_chunks_mut().0.try_into().expect("a page is 512 vectors")
}

/// Repeats one vector over a page.
#[inline]
pub(crate) fn fill(vector: u64, page: &mut Page) {
    page.as_chunks_mut().0.fill(vector.to_le_bytes());
}
