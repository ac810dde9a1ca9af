//! Reading byte markers with AVX-512: sixty-four at a time, whatever they stand for.
#![expect(unsafe_code, reason = "loads and stores of registers are unsafe")]

use std::arch::x86_64::*;

use super::super::narrow::{low_u8, low_u16, low_u32};
use super::super::window::LEAST_DISTANCE;
use super::moves::{DISTANCE_BITS, DISTANCE_MAX, Distances, FLAG, MoveTable, Moves, ZEROS_BACK};

/// Bytes of a register, and markers read at a time.
const BYTES: usize = 64;
/// Words of 16 bits of a register.
const WORDS: usize = 32;

/// Does the same as [`moves::read`](super::moves::read).
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
pub(super) fn read(table: &MoveTable, markers: &[u8], distances: &mut Distances<'_>, moves: &mut Moves) {
    let (literals, bytes) = (Table::load(&table.literals), Table::load(&table.bytes));
    let number = _mm512_set1_epi8((!FLAG).cast_signed());
    let zeros_back = _mm512_set1_epi16(ZEROS_BACK.cast_signed());
    let least = _mm512_set1_epi16(LEAST_DISTANCE.cast_signed());
    let mut last = _mm512_set1_epi16(distances.last.cast_signed());
    let Moves { literals: takes, bytes: makes, back } = moves;
    let takes = takes.as_chunks_mut::<BYTES>().0.iter_mut();
    let places = takes.zip(makes.as_chunks_mut::<BYTES>().0).zip(back.as_chunks_mut::<BYTES>().0);
    for (markers, ((takes, makes), back)) in markers.chunks(BYTES).zip(places) {
        let present = u64::MAX >> (BYTES - markers.len());
        let markers = load_up_to_64(markers);
        let (literals, bytes) = (literals.look_up(markers), bytes.look_up(markers));
        let numbers = [_mm512_and_si512(literals, number), _mm512_and_si512(bytes, number)];
        // SAFETY: `takes` has 64 writable bytes.
        unsafe { _mm512_storeu_si512(takes.as_mut_ptr().cast(), numbers[0]) };
        // SAFETY: `makes` has 64 writable bytes.
        unsafe { _mm512_storeu_si512(makes.as_mut_ptr().cast(), numbers[1]) };

        let new = _mm512_movepi8_mask(literals) & present;
        let zeros = _mm512_movepi8_mask(bytes);
        let (packed, shift) = distances.next();
        let next = unpack(packed, shift);
        let after_next = unpack(packed.get(WORDS * DISTANCE_BITS / 8..).unwrap_or_default(), shift);
        // A move has the distance that was taken last. Counting the new distances up to the move tells which one that is.
        let ranks = running_counts(new);
        let halves = [_mm512_castsi512_si256(ranks), _mm512_extracti64x4_epi64::<1>(ranks)];
        let masks = [low_u32(zeros), low_u32(zeros >> 32)];
        let before = last;
        for ((ranks, zeros), back) in halves.into_iter().zip(masks).zip(back.as_chunks_mut::<WORDS>().0) {
            let ranks = _mm512_cvtepu8_epi16(ranks);
            let places = _mm512_sub_epi16(ranks, _mm512_set1_epi16(1));
            let taken = _mm512_permutex2var_epi16(next, places, after_next);
            let distance = _mm512_mask_mov_epi16(before, _mm512_test_epi16_mask(ranks, ranks), taken);
            let bytes_back = _mm512_mask_mov_epi16(_mm512_add_epi16(distance, least), zeros, zeros_back);
            // SAFETY: `back` has 64 writable bytes.
            unsafe { _mm512_storeu_si512(back.as_mut_ptr().cast(), bytes_back) };
            last = _mm512_permutexvar_epi16(_mm512_set1_epi16(31), distance);
        }
        distances.bit += new.count_ones() as usize * DISTANCE_BITS;
    }
    distances.last = low_u16(_mm_cvtsi128_si64(_mm512_castsi512_si128(last)).cast_unsigned());
}

/// Loads up to 64 bytes, and zeros in place of those that are missing.
#[inline]
#[target_feature(enable = "avx512bw")]
fn load_up_to_64(bytes: &[u8]) -> __m512i {
    let present = if bytes.len() < BYTES { (1 << bytes.len()) - 1 } else { u64::MAX };
    // SAFETY: a masked load reads only the bytes whose bit is set, and `bytes` has that many.
    unsafe { _mm512_maskz_loadu_epi8(present, bytes.as_ptr().cast()) }
}

/// Thirty-two numbers of 12 bits, the first of which starts at bit `shift` (0 or 4), as words.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn unpack(packed: &[u8], shift: usize) -> __m512i {
    /// The two bytes that hold each number. Two numbers take three bytes; the second of a pair starts in the middle one.
    static BYTES_OF: [[u8; BYTES]; 2] = {
        let mut bytes_of = [[0; BYTES]; 2];
        let mut number = 0;
        while number < WORDS {
            let starts = [number * DISTANCE_BITS / 8, (number * DISTANCE_BITS + 4) / 8];
            let mut odd = 0;
            while odd < 2 {
                bytes_of[odd][2 * number] = low_u8(starts[odd] as u64);
                bytes_of[odd][2 * number + 1] = low_u8(starts[odd] as u64) + 1;
                odd += 1;
            }
            number += 1;
        }
        bytes_of
    };
    // SAFETY: each row has 64 readable bytes.
    let bytes_of = unsafe { _mm512_loadu_si512(BYTES_OF[shift / 4 % 2].as_ptr().cast()) };
    let shifts = _mm512_set1_epi32(if shift == 0 { 4 << 16 } else { 4 });
    let words = _mm512_srlv_epi16(_mm512_permutexvar_epi8(bytes_of, load_up_to_64(packed)), shifts);
    _mm512_and_si512(words, _mm512_set1_epi16(DISTANCE_MAX.cast_signed()))
}

/// For each bit of a set, the number of set bits up to and including it.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
fn running_counts(set: u64) -> __m512i {
    /// For all bytes of a quadword, the last byte of the quadword before; the first quadword has none.
    static LAST_BEFORE: [u8; BYTES] = {
        let mut last_before = [0; BYTES];
        let mut at = 8;
        while at < BYTES {
            last_before[at] = low_u8(at as u64 / 8 * 8 - 1);
            at += 1;
        }
        last_before
    };
    let zero = _mm512_setzero_si512();
    // First within each quadword.
    let mut counts = _mm512_maskz_set1_epi8(set, 1);
    counts = _mm512_add_epi8(counts, _mm512_slli_epi64::<8>(counts));
    counts = _mm512_add_epi8(counts, _mm512_slli_epi64::<16>(counts));
    counts = _mm512_add_epi8(counts, _mm512_slli_epi64::<32>(counts));
    // Then add what the quadwords before have.
    // SAFETY: `LAST_BEFORE` has 64 readable bytes.
    let last_before = unsafe { _mm512_loadu_si512(LAST_BEFORE.as_ptr().cast()) };
    let mut before = _mm512_maskz_permutexvar_epi8(u64::MAX << 8, last_before, counts);
    before = _mm512_add_epi8(before, _mm512_alignr_epi64::<7>(before, zero));
    before = _mm512_add_epi8(before, _mm512_alignr_epi64::<6>(before, zero));
    before = _mm512_add_epi8(before, _mm512_alignr_epi64::<4>(before, zero));
    _mm512_add_epi8(counts, before)
}

/// A table of 256 bytes, in registers.
struct Table([__m512i; 4]);

impl Table {
    #[inline]
    #[target_feature(enable = "avx512f")]
    fn load(table: &[u8; 256]) -> Self {
        let quarters = table.as_chunks::<BYTES>().0;
        // SAFETY: each quarter of the table has 64 readable bytes.
        let load = |quarter: usize| unsafe { _mm512_loadu_si512(quarters[quarter].as_ptr().cast()) };
        Self([load(0), load(1), load(2), load(3)])
    }

    /// The entries of the table at 64 indices.
    #[inline]
    #[target_feature(enable = "avx512f,avx512bw,avx512vbmi")]
    fn look_up(&self, indices: __m512i) -> __m512i {
        let Self([first, second, third, fourth]) = *self;
        let low = _mm512_permutex2var_epi8(first, indices, second);
        let high = _mm512_permutex2var_epi8(third, indices, fourth);
        _mm512_mask_blend_epi8(_mm512_movepi8_mask(indices), low, high)
    }
}
