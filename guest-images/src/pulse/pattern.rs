//! What `pulse` writes into its memory, computed by the host.
//!
//! Everything derives from one mixing function (the finaliser of splitmix64) over a counter that advances by
//! [`STEP`], so that every page and every word can be computed on its own, and eight bytes cost about five cycles.
//! The assembled guest uses the constants of this file and nothing else; the tests compare the two.

use super::layout::PAGE_WORDS;
use super::params::{Mix, Params};

pub(super) const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
pub(super) const MIX_A: u64 = 0xbf58_476d_1ce4_e5b9;
pub(super) const MIX_B: u64 = 0x94d0_49bb_1331_11eb;

/// How many different contents the duplicate pages share.
pub(super) const DUPLICATES: u64 = 16;
/// Keep the streams of duplicate and dirtied pages and of register values apart from the stream of page numbers.
pub(super) const DUPLICATE_STREAM: u64 = 0x6475_706c_6963_6174;
pub(super) const DIRTY_STREAM: u64 = 0x6469_7274_6965_6421;
/// Multiplier of the polynomial checksum.
pub(super) const SUM_FACTOR: u64 = 0x5851_f42d_4c95_7f2d;

/// How a word of a page is made from a hash: `(hash & mask) + base`, with the pair chosen by the hash's top bits.
pub(super) type Table = [(u64, u64); 16];

/// Random pages: the hash as it is.
pub(super) const RANDOM: Table = [(u64::MAX, 0); 16];

/// Structured pages. Of sixteen words, 4 are zero, 3 small integers, 3 pointers into two heaps and a kernel, 1 is one of eight
/// recurring words, 3 are letters and 2 random. That is what was measured of real machines, on a small scale: a quarter of the words is zero, and about half
/// of the words of a chunk occur once.
pub(super) const STRUCTURED: Table = [
    (0, 0),
    (0, 0),
    (0, 0),
    (0, 0),
    (0xff, 0),
    (0xffff, 0),
    (0x0000_00ff_0000_00ff, 0),
    (0x000f_fff8, 0x0000_7f3a_4c00_0000),
    (0x007f_fff0, 0x0000_55d0_1280_0000),
    (0x0003_ffc0, 0xffff_8880_1200_0000),
    (0x0000_0700_0000_0000, 0x0101_0000_8048_0001),
    (LETTERS, LETTER_A),
    (LETTERS, LETTER_A),
    (LETTERS, LETTER_A),
    (u64::MAX, 0),
    (u64::MAX, 0),
];
const LETTERS: u64 = 0x0f0f_0f0f_0f0f_0f0f;
const LETTER_A: u64 = 0x6161_6161_6161_6161;

/// What a page of the filled memory holds before anything is dirtied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Zeros only.
    Zero,
    /// One word, repeated.
    Fill,
    /// One of sixteen structured contents that occur all over the memory.
    Duplicate,
    /// Small integers, pointers, text and zeros: what word markers are made for.
    Structured,
    /// Random words, which cannot be compressed.
    Random,
}

/// The mixing function that everything is made with.
pub(super) fn mix(state: u64) -> u64 {
    let state = (state ^ (state >> 30)).wrapping_mul(MIX_A);
    let state = (state ^ (state >> 27)).wrapping_mul(MIX_B);
    state ^ (state >> 31)
}

/// Word `index` of the page that starts from `state`.
pub(super) fn word(table: &Table, state: u64, index: u64) -> u64 {
    let hash = mix(state.wrapping_add(index.wrapping_mul(STEP)));
    let (mask, base) = table[usize::from((hash >> 56) as u8 >> 4)];
    (hash & mask).wrapping_add(base)
}

/// The kind and the hash of page `index` of the filled memory.
pub(super) fn kind(seed: u64, mix_of_kinds: &Mix, index: u64) -> (PageKind, u64) {
    let hash = mix(seed.wrapping_add(index.wrapping_mul(STEP)));
    let thousandth = ((hash >> 32) * 1000) >> 32;
    let [zero, fill, duplicate, structured] = mix_of_kinds.ends();
    let kind = match thousandth {
        t if t < zero => PageKind::Zero,
        t if t < fill => PageKind::Fill,
        t if t < duplicate => PageKind::Duplicate,
        t if t < structured => PageKind::Structured,
        _ => PageKind::Random,
    };
    (kind, hash)
}

/// The content of page `index` of the filled memory before anything is dirtied.
#[must_use]
pub fn page(params: &Params, index: u64) -> (PageKind, [u64; PAGE_WORDS]) {
    let (kind, hash) = kind(params.seed, &params.mix, index);
    let generate = |table: &Table, state: u64| std::array::from_fn(|i| word(table, state, i as u64));
    let words = match kind {
        PageKind::Zero => [0; PAGE_WORDS],
        PageKind::Fill => [hash | 1; PAGE_WORDS],
        PageKind::Duplicate => {
            let number = hash & (DUPLICATES - 1);
            generate(
                &STRUCTURED,
                mix((params.seed ^ DUPLICATE_STREAM).wrapping_add(number.wrapping_mul(STEP))),
            )
        }
        PageKind::Structured => generate(&STRUCTURED, hash),
        PageKind::Random => generate(&RANDOM, hash),
    };
    (kind, words)
}

/// The state that the words of a vCPU's write number `sequence` start from.
pub(super) fn dirty_state(seed: u64, cpu: u64, sequence: u64) -> u64 {
    mix((seed ^ DIRTY_STREAM).wrapping_add(cpu << 56).wrapping_add(sequence.wrapping_mul(STEP)))
}

/// The order in which a vCPU goes over its slice: in sequence, or scattered by a permutation that is the same in
/// every round, so that the last write before `k` to the same page was `k - pages`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Permutation {
    pages: u64,
    mask: u64,
    shift: u32,
    random: bool,
}

impl Permutation {
    pub(super) fn new(pages: u64, random: bool) -> Self {
        let bits = 64 - pages.saturating_sub(1).leading_zeros();
        Self { pages, mask: (1 << bits) - 1, shift: bits.div_ceil(2), random }
    }

    /// The page at `position` of a round. Both are below the number of pages.
    pub(super) fn page(&self, position: u64) -> u64 {
        if !self.random {
            return position;
        }
        // A permutation of the next power of two, applied until it lands inside. Each step can be undone, so the
        // walks from two positions inside can never meet.
        let mut page = position;
        loop {
            page = page.wrapping_mul(MIX_A) & self.mask;
            page ^= page >> self.shift;
            page = page.wrapping_mul(MIX_B) & self.mask;
            page ^= page >> self.shift;
            if page < self.pages {
                return page;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn every_round_visits_every_page_once() {
        for pages in (1..70).chain([127, 128, 129, 1000, 4097]) {
            let permutation = Permutation::new(pages, true);
            let mut order: Vec<_> = (0..pages).map(|position| permutation.page(position)).collect();
            order.sort_unstable();
            assert!(order.into_iter().eq(0..pages), "{pages} pages");
        }
    }

    #[test]
    fn random_order_is_scattered() {
        let pages = 10_000;
        let permutation = Permutation::new(pages, true);
        let neighbours = (1..pages)
            .filter(|&position| permutation.page(position).abs_diff(permutation.page(position - 1)) < 16)
            .count();
        assert!(neighbours < 100, "{neighbours} of {pages} steps are short");
    }

    #[test]
    fn kinds_come_in_the_shares_asked_for() {
        let mix = Mix::realistic();
        let mut counts = HashMap::new();
        for index in 0..100_000 {
            *counts.entry(format!("{:?}", kind(1, &mix, index).0)).or_insert(0_u32) += 1;
        }
        for (name, share) in [
            ("Zero", mix.zero),
            ("Fill", mix.fill),
            ("Duplicate", mix.duplicate),
            ("Structured", mix.structured),
            ("Random", mix.random),
        ] {
            let expected = u32::from(share) * 100;
            assert!(
                counts[name].abs_diff(expected) < expected / 10 + 50,
                "{name}: {} of 100,000",
                counts[name]
            );
        }
    }

    /// Holds what the documentation of [`STRUCTURED`] says about zeros and about words that occur once, for a chunk of 2 MiB.
    #[test]
    fn structured_pages_look_like_those_of_a_real_guest() {
        let params = Params { mix: Mix::STRUCTURED, ..Params::new(1, 0) };
        let mut counts = HashMap::new();
        for index in 0..512 {
            for word in page(&params, index).1 {
                *counts.entry(word).or_insert(0_u32) += 1;
            }
        }
        let words = 512 * 512;
        let zeros = counts[&0];
        let once = counts.values().filter(|&&count| count == 1).count();
        assert!((words / 5..words * 3 / 10).contains(&zeros), "{zeros} zeros of {words}");
        assert!(
            (words as usize * 2 / 5..words as usize * 3 / 5).contains(&once),
            "{once} single words of {words}"
        );
    }

    #[test]
    fn duplicates_are_equal_and_few() {
        let mix = Mix { zero: 0, fill: 0, duplicate: 1000, structured: 0, random: 0 };
        let params = Params { mix, ..Params::new(1, 0) };
        let mut contents: Vec<_> = (0..1000).map(|index| page(&params, index).1).collect();
        contents.sort_unstable();
        contents.dedup();
        assert_eq!(contents.len() as u64, DUPLICATES);
    }
}
