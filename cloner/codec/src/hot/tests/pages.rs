//! Pages as guests have them, for property tests.
#![expect(clippy::cast_possible_truncation, reason = "made-up content: any bits will do")]

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::naive::NaiveMarkers;
use crate::chunk::{PAGE_BYTES, Page};

use super::super::PageSet;
use super::Case;

/// Number of cases of a property test: `fallback`, unless `CLONER_CASES` says otherwise.
pub(super) fn cases(fallback: u32) -> u32 {
    std::env::var("CLONER_CASES")
        .ok()
        .map_or(fallback, |cases| cases.parse().expect("CLONER_CASES is a number"))
}

/// One to a dozen pages, most of them touched; in half of the cases with a parent that resembles them.
pub(super) fn case() -> impl Strategy<Value = Case> {
    let parent = prop_oneof![Just(None), vec(vec((0..PAGE_BYTES, any::<u8>()), 0..12), 12).prop_map(Some)];
    (vec(page(), 1..12), any::<u16>(), any::<u16>(), parent).prop_map(|(pages, touched, again, parent)| {
        let mut set = PageSet::EMPTY;
        (0..16).filter(|page| (touched | again) >> page & 1 == 1).for_each(|page| set.insert(page));
        let pages = pages.concat();
        let parent = parent.map(|changes| {
            let mut parent = pages.clone();
            for (page, changes) in parent.as_chunks_mut::<PAGE_BYTES>().0.iter_mut().zip(changes) {
                changes.into_iter().for_each(|(at, byte)| page[at] = byte);
            }
            parent
        });
        Case { pages, touched: set, parent }
    })
}

/// How the oracle is to mark a page.
pub(super) fn way() -> impl Strategy<Value = NaiveMarkers> {
    select(vec![NaiveMarkers::Words, NaiveMarkers::Bytes, NaiveMarkers::Raw])
}

/// A page of one of the kinds that guest memory is made of.
pub(super) fn page() -> impl Strategy<Value = Page> {
    prop_oneof![
        1 => Just([0; PAGE_BYTES]),
        1 => any::<u64>().prop_map(|vector| fill_vectors(|_| vector)),
        2 => vec(any::<u8>(), PAGE_BYTES).prop_map(page_of),
        4 => pieces(),
        3 => structures(),
        2 => mutated(),
    ]
}

fn page_of(bytes: Vec<u8>) -> Page {
    bytes.try_into().expect("4096 bytes")
}

fn fill_vectors(mut vector: impl FnMut(usize) -> u64) -> Page {
    let mut page = [0; PAGE_BYTES];
    for (at, bytes) in page.as_chunks_mut().0.iter_mut().enumerate() {
        *bytes = vector(at).to_le_bytes();
    }
    page
}

/// Runs of very different content, each of any length: zeros, text, pointers, counters, noise, copies of what came before.
fn pieces() -> impl Strategy<Value = Page> {
    vec((0..7_u8, 1..400_usize, any::<u64>()), 8..60).prop_map(|pieces| {
        let mut bytes: Vec<u8> = Vec::with_capacity(PAGE_BYTES * 2);
        for (kind, length, seed) in pieces.into_iter().cycle() {
            match kind {
                0 => bytes.extend(vec![0; length]),
                1 => bytes.extend(
                    b"the quick brown fox jumps over the lazy dog; "
                        .iter()
                        .cycle()
                        .skip(seed as usize % 45)
                        .take(length),
                ),
                2 => {
                    let pointer = |i: usize| 0x7f3a_0000_0000 | ((seed & 0xffff_ffff) + i as u64 * 64);
                    bytes.extend((0..length / 8).flat_map(|i| pointer(i).to_le_bytes()));
                }
                3 => {
                    bytes.extend((0..length / 4).flat_map(|i| (seed as u32 % 1000 + i as u32).to_le_bytes()));
                }
                4 => bytes.extend(noise(seed).take(length)),
                5 => bytes.extend(vec![seed as u8; length]),
                _ => {
                    let from = seed as usize % (bytes.len() + 1);
                    let copy: Vec<u8> = bytes[from..].iter().copied().take(length).collect();
                    bytes.extend(copy);
                }
            }
            if bytes.len() >= PAGE_BYTES {
                bytes.truncate(PAGE_BYTES);
                return page_of(bytes);
            }
            if bytes.is_empty() {
                bytes.push(1);
            }
        }
        unreachable!("the pieces are cycled until the page is full")
    })
}

/// An array of equal structures: pointers with a common high part, small integers, zeros, repeated values.
fn structures() -> impl Strategy<Value = Page> {
    (vec((0..6_u8, any::<u64>()), 1..24), any::<u64>()).prop_map(|(fields, seed)| {
        let mut random = noise(seed);
        fill_vectors(|at| {
            let (kind, base) = fields[at % fields.len()];
            let byte = u64::from(random.next().expect("noise is endless"));
            match kind {
                0 => 0,
                1 => base,
                2 => (base & !0xffff) | (byte * 16),
                3 => (base & !0xffff_ffff) | (byte << 20) | byte,
                4 => byte,
                _ => base.wrapping_mul(byte | 1),
            }
        })
    })
}

/// A regular page with a few bytes changed anywhere, to test the edges of every run and every vector.
fn mutated() -> impl Strategy<Value = Page> {
    let base = select(vec![0_u64, 1, 0x0101_0101_0101_0101, 0xffff_8880_1234_5678]);
    (base, 0..3_u64, vec((0..PAGE_BYTES, any::<u8>()), 1..40)).prop_map(|(base, step, changes)| {
        let mut page = fill_vectors(|at| base.wrapping_add(at as u64 / 3 * step));
        changes.into_iter().for_each(|(at, byte)| page[at] = byte);
        page
    })
}

fn noise(seed: u64) -> impl Iterator<Item = u8> {
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    })
}
