//! The operations of [`Lanes`] in plain Rust, for any instruction set.

use crate::chunk::{PAGE_VECTORS, VECTOR_BYTES};

use super::super::narrow::low_u16;
use super::{Lanes, Numbers, Positions, REGISTER_BYTES, VectorMask};

/// The portable backend, which runs on every machine.
#[derive(Clone, Copy, Debug)]
pub(super) struct Portable;

impl Lanes for Portable {}

/// The positions of the set bits of one word, lowest first.
#[inline(always)]
pub(super) fn bits(mut word: u64) -> impl Iterator<Item = u16> {
    std::iter::from_fn(move || {
        let bit = (word.trailing_zeros() & 0xff) as u16;
        (word != 0).then(|| {
            word &= word - 1;
            bit
        })
    })
}

#[inline(always)]
pub(super) fn positions<'p>(set: &VectorMask, list: &'p mut Positions) -> &'p [u16] {
    let mut count = 0;
    for (first, &word) in (0..).step_by(64).zip(set) {
        for bit in bits(word) {
            list[count] = first + bit;
            count += 1;
        }
    }
    &list[..count]
}

#[inline(always)]
pub(super) fn compress<const N: usize>(
    set: &VectorMask,
    elements: &[[u8; N]; PAGE_VECTORS],
    out: &mut [u8],
) -> usize {
    let bytes = N * count(set);
    let mut places = out[..bytes + REGISTER_BYTES].as_chunks_mut().0.iter_mut();
    for (&word, elements) in set.iter().zip(elements.as_chunks::<64>().0) {
        for (bit, place) in bits(word).zip(&mut places) {
            *place = elements[usize::from(bit % 64)];
        }
    }
    bytes
}

/// Number of vectors in a set.
#[inline(always)]
pub(in super::super) fn count(set: &VectorMask) -> usize {
    set.iter().map(|word| word.count_ones() as usize).sum()
}

#[inline(always)]
pub(super) fn expand(
    set: &VectorMask,
    literals: &[[u8; VECTOR_BYTES]],
    page: &mut [[u8; VECTOR_BYTES]; PAGE_VECTORS],
) {
    let mut literals = literals.iter();
    for (vectors, &word) in page.as_chunks_mut::<64>().0.iter_mut().zip(set) {
        *vectors = [[0; VECTOR_BYTES]; 64];
        for (bit, &literal) in bits(word).zip(&mut literals) {
            vectors[usize::from(bit % 64)] = literal;
        }
    }
}

#[inline(always)]
pub(super) fn join_bits<const HIGH_BITS: usize>(low: &[u8], high: &[u8], numbers: &mut Numbers) {
    // Eight numbers at a time, so that their high bits are whole bytes.
    let places = numbers.as_chunks_mut::<8>().0;
    for ((low, high), place) in low.chunks(8).zip(high.chunks(HIGH_BITS)).zip(places) {
        let high = high.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        for (at, (number, &low)) in place.iter_mut().zip(low).enumerate() {
            let high = low_u16((high >> (at * HIGH_BITS) & ((1 << HIGH_BITS) - 1)).into());
            *number = high << 8 | u16::from(low);
        }
    }
}

#[inline(always)]
pub(super) fn tagged(tags: &[u8; PAGE_VECTORS], tag: u8) -> VectorMask {
    let mut set = [0; PAGE_VECTORS / 64];
    for (word, tags) in set.iter_mut().zip(tags.as_chunks::<64>().0) {
        for (bit, &found) in tags.iter().enumerate() {
            *word |= u64::from(found == tag) << bit;
        }
    }
    set
}

#[inline(always)]
pub(super) fn equal_bytes(a: &[u8; 32], b: &[u8; 32]) -> u32 {
    let mut equal = 0;
    for (bit, (a, b)) in a.iter().zip(b).enumerate() {
        equal |= u32::from(a == b) << bit;
    }
    equal
}
