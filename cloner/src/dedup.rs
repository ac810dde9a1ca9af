//! Finds pages that occur more than once in a snapshot, while many threads encode it.
//!
//! There is one table of 8-byte slots, without locks. A slot holds the number of the first page seen with some content, and
//! 24 bits of its hash. It is either empty or final, and is claimed by one compare-and-swap. The hash only suggests
//! candidates: whether two pages are equal is decided by comparing their bytes. That is possible because the source (or its
//! frozen memory) stands still, so the table needs no copy of any page and not even the whole hash.
//!
//! ```text
//! 63              40 39                                   0
//! ┌─────────────────┬─────────────────────────────────────┐
//! │ tag: hash bits  │ page number + 1; 0: empty           │
//! └─────────────────┴─────────────────────────────────────┘
//! ```
//!
//! A page that claims a slot is never a duplicate itself, so a reference never leads to another reference.

use std::sync::atomic::{AtomicU64, Ordering};

use cloner_codec::chunk::PageHash;

use crate::layout::PageNumber;

const NUMBER_BITS: u32 = 40;
const NUMBER_MASK: u64 = (1 << NUMBER_BITS) - 1;

/// Finds the first page with a given content.
#[derive(Debug)]
pub(crate) struct PageTable {
    slots: Box<[AtomicU64]>,
}

impl PageTable {
    /// Makes a table for up to `pages` pages. It takes 16 to 32 bytes for each of them.
    #[must_use]
    pub(crate) fn new(pages: usize) -> Self {
        let slots = (pages.max(1) * 2).next_power_of_two();
        Self { slots: (0..slots).map(|_| AtomicU64::new(0)).collect() }
    }

    /// The page with this hash that `same` confirms to be equal, if the table has one.
    pub(crate) fn find(
        &self,
        hash: PageHash,
        mut same: impl FnMut(PageNumber) -> bool,
    ) -> Option<PageNumber> {
        let tag = tag(hash);
        self.probes(hash)
            .map(|slot| slot.load(Ordering::Relaxed))
            .take_while(|found| *found != 0)
            .filter(|found| found & !NUMBER_MASK == tag)
            .map(|found| PageNumber((found & NUMBER_MASK) - 1))
            .find(|page| same(*page))
    }

    /// Every slot, beginning with the one that a page with this hash would take.
    fn probes(&self, PageHash(hash): PageHash) -> impl Iterator<Item = &AtomicU64> {
        let mask = self.slots.len() - 1;
        let start = usize::try_from(words(hash)[0] & mask as u64).expect("masked with a usize");
        (0..self.slots.len()).map(move |probe| &self.slots[(start + probe) & mask])
    }

    /// The first page with the content of `page`, if one was inserted before and `same` confirms it. If not, `page` is
    /// inserted as the first one.
    ///
    /// `same` is only called for pages that were passed to this function before.
    pub(crate) fn find_or_insert(
        &self,
        hash: PageHash,
        page: PageNumber,
        mut same: impl FnMut(PageNumber) -> bool,
    ) -> Option<PageNumber> {
        let own = tag(hash) | ((page.0 + 1) & NUMBER_MASK);
        for slot in self.probes(hash) {
            let mut found = slot.load(Ordering::Relaxed);
            if found == 0 {
                // Relaxed suffices: the slot is the whole message. The bytes that it refers to were written before the walk.
                match slot.compare_exchange(0, own, Ordering::Relaxed, Ordering::Relaxed) {
                    Ok(_) => return None,
                    Err(other) => found = other,
                }
            }
            let other = PageNumber((found & NUMBER_MASK) - 1);
            if (found ^ own) & !NUMBER_MASK == 0 && same(other) {
                return Some(other);
            }
        }
        // There are more pages than the table was made for: the page is kept as if it were new, which is always correct.
        None
    }
}

/// The bits of a hash that a slot keeps, in their position in the slot.
fn tag(PageHash(hash): PageHash) -> u64 {
    let [.., high] = words(hash);
    high & !NUMBER_MASK
}

fn words(hash: u128) -> [u64; 2] {
    let bytes = hash.to_le_bytes();
    let (words, _) = bytes.as_chunks::<8>();
    [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pages_lead_to_the_first_and_colliding_ones_do_not() {
        // Pages 0..100 have ten different contents; all hashes collide, so only `same` tells the pages apart.
        let table = PageTable::new(100);
        let hash = PageHash(0x1234);
        for page in 0..100 {
            let first = table.find_or_insert(hash, PageNumber(page), |other| other.0 % 10 == page % 10);
            assert_eq!(first, (page >= 10).then_some(PageNumber(page % 10)));
        }
    }

    #[test]
    fn a_full_table_keeps_pages_as_new() {
        let table = PageTable::new(1);
        for page in 0..10 {
            assert_eq!(table.find_or_insert(PageHash(7), PageNumber(page), |_| false), None);
        }
    }

    #[test]
    fn threads_agree_on_one_first_page_per_content() {
        let table = PageTable::new(4000);
        let firsts: Vec<Vec<u64>> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..4_u64)
                .map(|thread| {
                    let table = &table;
                    scope.spawn(move || {
                        let find = |content: u64| {
                            let (page, hash) = (
                                thread * 1000 + content,
                                PageHash(u128::from(content) << 40 | u128::from(content)),
                            );
                            table
                                .find_or_insert(hash, PageNumber(page), |other| other.0 % 1000 == content)
                                .map_or(page, |p| p.0)
                        };
                        (0..1000).map(find).collect()
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for thread in &firsts[1..] {
            assert_eq!(thread, &firsts[0]);
        }
    }
}
