//! The operations of [`Lanes`] on x86-64.
#![expect(
    unsafe_code,
    reason = "entering code compiled for an instruction set is safe only where the machine has it"
)]

use std::arch::x86_64::*;

use crate::chunk::{PAGE_VECTORS, Page, VECTOR_BYTES};

use super::super::narrow::low_u8;
use super::moves::{Distances, MoveTable, Moves};
use super::{Kernel, Lanes, Numbers, Positions, REGISTER_BYTES, VectorMask, avx512_moves, portable};

/// AVX2 with the bit operations of the same generation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx2(());

/// AVX-512 with the byte and word operations of Ice Lake and Zen 4.
#[derive(Clone, Copy, Debug)]
pub(super) struct Avx512(());

impl Avx2 {
    pub(super) fn detect() -> Option<Self> {
        let has = is_x86_feature_detected!("avx2")
            && is_x86_feature_detected!("bmi1")
            && is_x86_feature_detected!("bmi2")
            && is_x86_feature_detected!("lzcnt")
            && is_x86_feature_detected!("popcnt");
        has.then_some(Self(()))
    }

    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(enable = "avx2,bmi1,bmi2,lzcnt,popcnt")]
        fn entered<K: Kernel>(avx2: Avx2, kernel: K) -> K::Output {
            kernel.run(avx2)
        }
        // SAFETY: `entered` needs the features it enables; `self` exists only if `detect` found each of them.
        unsafe { entered(self, kernel) }
    }
}

impl Avx512 {
    pub(super) fn detect() -> Option<Self> {
        let has = Avx2::detect().is_some()
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl")
            && is_x86_feature_detected!("avx512vbmi")
            && is_x86_feature_detected!("avx512vbmi2")
            && is_x86_feature_detected!("avx512vpopcntdq");
        has.then_some(Self(()))
    }

    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi,avx512vbmi2,\
                avx512vpopcntdq"
        )]
        fn entered<K: Kernel>(avx512: Avx512, kernel: K) -> K::Output {
            kernel.run(avx512)
        }
        // SAFETY: `entered` needs the features it enables; `self` exists only if `detect` found each of them.
        unsafe { entered(self, kernel) }
    }
}

impl Lanes for Avx2 {
    #[inline(always)]
    fn prefetch(self, page: &Page, byte: usize) {
        prefetch(page, byte);
    }

    #[inline(always)]
    fn fetch_ahead(self, bytes: &[u8], ahead: usize) {
        fetch_ahead(bytes, ahead);
    }

    #[inline(always)]
    fn equal_bytes(self, a: &[u8; 32], b: &[u8; 32]) -> u32 {
        // SAFETY: the features of `equal_bytes` are among those `Avx2::detect` found.
        unsafe { equal_bytes(a, b) }
    }

    #[inline(always)]
    fn join(self, count: u8, a: &[u8; 32], b: &[u8; 32]) -> Option<[u8; 32]> {
        // SAFETY: the features of `join` are among those `Avx2::detect` found.
        Some(unsafe { join(count, a, b) })
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn positions<'p>(self, set: &VectorMask, list: &'p mut Positions) -> &'p [u16] {
        // SAFETY: the features of `positions` are among those `Avx512::detect` found.
        unsafe { positions(set, list) }
    }

    #[inline(always)]
    fn compress<const N: usize>(
        self,
        set: &VectorMask,
        elements: &[[u8; N]; PAGE_VECTORS],
        out: &mut [u8],
    ) -> usize {
        let bytes = N * portable::count(set);
        assert!(bytes + REGISTER_BYTES <= out.len(), "{bytes} bytes, room for {}", out.len());
        // SAFETY: the features of `compress` are among those `Avx512::detect` found, and there is room, as just asserted.
        unsafe { compress(set, elements, out) }
        bytes
    }

    #[inline(always)]
    fn expand(
        self,
        set: &VectorMask,
        literals: &[[u8; VECTOR_BYTES]],
        page: &mut [[u8; VECTOR_BYTES]; PAGE_VECTORS],
    ) {
        let count = portable::count(set);
        assert!(count <= literals.len(), "{count} vectors, {} literals", literals.len());
        // SAFETY: the features of `expand` are among those `Avx512::detect` found, and there are literals enough.
        unsafe { expand(set, literals, page) }
    }

    #[inline(always)]
    fn join_bits<const HIGH_BITS: usize>(self, low: &[u8], high: &[u8], numbers: &mut Numbers) {
        if HIGH_BITS == 1 {
            // SAFETY: the features of `join_bit` are among those `Avx512::detect` found.
            unsafe { join_bit(low, high, numbers) }
        } else {
            portable::join_bits::<HIGH_BITS>(low, high, numbers);
        }
    }

    #[inline(always)]
    fn tagged(self, tags: &[u8; PAGE_VECTORS], tag: u8) -> VectorMask {
        // SAFETY: the features of `tagged` are among those `Avx512::detect` found.
        unsafe { tagged(tags, tag) }
    }

    #[inline(always)]
    fn moves(self, table: &MoveTable, markers: &[u8], distances: &mut Distances<'_>, moves: &mut Moves) {
        // SAFETY: the features of `read` are among those `Avx512::detect` found.
        unsafe { avx512_moves::read(table, markers, distances, moves) }
    }

    #[inline(always)]
    fn join(self, count: u8, a: &[u8; 32], b: &[u8; 32]) -> Option<[u8; 32]> {
        // SAFETY: the features of `join` are among those `Avx512::detect` found.
        Some(unsafe { join(count, a, b) })
    }

    #[inline(always)]
    fn prefetch(self, page: &Page, byte: usize) {
        prefetch(page, byte);
    }

    #[inline(always)]
    fn fetch_ahead(self, bytes: &[u8], ahead: usize) {
        fetch_ahead(bytes, ahead);
    }

    #[inline(always)]
    fn equal_bytes(self, a: &[u8; 32], b: &[u8; 32]) -> u32 {
        // SAFETY: the features of `equal_bytes` are among those `Avx512::detect` found.
        unsafe { equal_bytes(a, b) }
    }
}

#[inline(always)]
fn prefetch(page: &Page, byte: usize) {
    // SAFETY: every x86-64 has SSE, and a prefetch of any address reads nothing and faults nowhere (Intel SDM 2, PREFETCHh).
    unsafe { _mm_prefetch::<_MM_HINT_T0>(page.as_ptr().wrapping_add(byte).cast()) }
}

#[inline(always)]
fn fetch_ahead(bytes: &[u8], ahead: usize) {
    /// Bytes of a line of the caches.
    const LINE_BYTES: usize = 64;
    for byte in (ahead..ahead + bytes.len()).step_by(LINE_BYTES) {
        // SAFETY: as in `prefetch`.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(bytes.as_ptr().wrapping_add(byte).cast()) };
    }
}

#[inline]
#[target_feature(enable = "avx2")]
fn equal_bytes(a: &[u8; 32], b: &[u8; 32]) -> u32 {
    // SAFETY: `a` has 32 readable bytes.
    let a = unsafe { _mm256_loadu_si256(a.as_ptr().cast()) };
    // SAFETY: `b` has 32 readable bytes.
    let b = unsafe { _mm256_loadu_si256(b.as_ptr().cast()) };
    _mm256_movemask_epi8(_mm256_cmpeq_epi8(a, b)).cast_unsigned()
}

/// Compresses the numbers of 64 vectors at a time, as bytes, and widens those that are left to words. The register is stored whole,
/// because Zen 4 is slow to compress into memory.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn positions<'p>(set: &VectorMask, list: &'p mut Positions) -> &'p [u16] {
    const LANES: usize = 32;
    static NUMBERS: [u8; 64] = {
        let mut numbers = [0; 64];
        let mut number = 0;
        while number < 64 {
            numbers[number] = low_u8(number as u64);
            number += 1;
        }
        numbers
    };
    // SAFETY: `NUMBERS` has 64 readable bytes.
    let numbers = unsafe { _mm512_loadu_si512(NUMBERS.as_ptr().cast()) };
    let mut before = _mm512_setzero_si512();
    let mut count = 0;
    for &word in set {
        let compressed = _mm512_maskz_compress_epi8(word, numbers);
        let (first, rest) = list[count..].split_first_chunk_mut::<LANES>().expect("room for a register");
        let words = _mm512_cvtepu8_epi16(_mm512_castsi512_si256(compressed));
        let words = _mm512_add_epi16(words, before);
        // SAFETY: `first` has 64 writable bytes.
        unsafe { _mm512_storeu_si512(first.as_mut_ptr().cast(), words) };
        let vectors = word.count_ones() as usize;
        if vectors > LANES {
            let rest =
                rest.first_chunk_mut::<LANES>().expect("room for the vectors of a word and a register");
            let words = _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(compressed));
            let words = _mm512_add_epi16(words, before);
            // SAFETY: `rest` has 64 writable bytes.
            unsafe { _mm512_storeu_si512(rest.as_mut_ptr().cast(), words) };
        }
        count += vectors;
        before = _mm512_add_epi16(before, _mm512_set1_epi16(64));
    }
    &list[..count]
}

/// Compresses as many elements at a time as fit in a register.
///
/// # Safety
/// `out` must have room for the elements of the set and one more register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
unsafe fn compress<const N: usize>(set: &VectorMask, elements: &[[u8; N]; PAGE_VECTORS], out: &mut [u8]) {
    const { assert!(N.is_power_of_two() && N <= 8) };
    let lanes = REGISTER_BYTES / N;
    let all = u64::MAX >> (64 - lanes);
    let mut place = out.as_mut_ptr();
    let registers = elements.as_flattened().as_chunks::<REGISTER_BYTES>().0;
    for (first, register) in (0..).step_by(lanes).zip(registers) {
        let mask = set[first / 64] >> (first % 64) & all;
        // SAFETY: `register` has 64 readable bytes.
        let loaded = unsafe { _mm512_loadu_si512(register.as_ptr().cast()) };
        let compressed = match N {
            1 => _mm512_maskz_compress_epi8(mask, loaded),
            2 => _mm512_maskz_compress_epi16((mask & 0xffff_ffff) as u32, loaded),
            4 => _mm512_maskz_compress_epi32((mask & 0xffff) as u16, loaded),
            _ => _mm512_maskz_compress_epi64((mask & 0xff) as u8, loaded),
        };
        // SAFETY: `place` is right after the elements before, and the caller has room for all of them and a register.
        unsafe { _mm512_storeu_si512(place.cast(), compressed) };
        // SAFETY: this is at most the end of the room for all elements.
        place = unsafe { place.add(mask.count_ones() as usize * N) };
    }
}

/// # Safety
/// `literals` must have an entry for every vector of `set`.
#[inline]
#[target_feature(enable = "avx512f")]
unsafe fn expand(
    set: &VectorMask,
    literals: &[[u8; VECTOR_BYTES]],
    page: &mut [[u8; VECTOR_BYTES]; PAGE_VECTORS],
) {
    let mut taken = 0;
    for (&word, vectors) in set.iter().zip(page.as_chunks_mut::<64>().0) {
        for (mask, vectors) in word.to_le_bytes().into_iter().zip(vectors.as_chunks_mut::<8>().0) {
            let count = mask.count_ones();
            let next = literals.as_ptr().wrapping_add(taken);
            // Loaded, then expanded, because Zen 4 is slow to expand from memory.
            // SAFETY: only as many literals are read as the mask has bits, and the caller has one for each.
            let loaded = unsafe { _mm512_maskz_loadu_epi64(low_u8((1 << count) - 1), next.cast()) };
            let expanded = _mm512_maskz_expand_epi64(mask, loaded);
            // SAFETY: `vectors` has 64 writable bytes.
            unsafe { _mm512_storeu_si512(vectors.as_mut_ptr().cast(), expanded) };
            taken += count as usize;
        }
    }
}

/// Joins numbers that have a single high bit: that bit of each is a bit of a mask.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl")]
fn join_bit(low: &[u8], high: &[u8], numbers: &mut Numbers) {
    const LANES: usize = 32;
    let places = numbers.as_chunks_mut::<LANES>().0;
    for ((low, high), place) in low.chunks(LANES).zip(high.chunks(LANES / 8)).zip(places) {
        let present = u32::MAX >> (LANES - low.len());
        // SAFETY: a masked load reads only the bytes whose bit is set, and `low` has that many.
        let low = unsafe { _mm256_maskz_loadu_epi8(present, low.as_ptr().cast()) };
        let low = _mm512_cvtepu8_epi16(low);
        let high = high.iter().rev().fold(0, |bits, &byte| bits << 8 | u32::from(byte));
        let joined = _mm512_mask_add_epi16(low, high, low, _mm512_set1_epi16(0x100));
        // SAFETY: `place` has 64 writable bytes.
        unsafe { _mm512_storeu_si512(place.as_mut_ptr().cast(), joined) };
    }
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw")]
fn tagged(tags: &[u8; PAGE_VECTORS], tag: u8) -> VectorMask {
    let wanted = _mm512_set1_epi8(tag.cast_signed());
    let mut set = [0; PAGE_VECTORS / 64];
    for (word, tags) in set.iter_mut().zip(tags.as_chunks::<64>().0) {
        // SAFETY: `tags` has 64 readable bytes.
        let tags = unsafe { _mm512_loadu_si512(tags.as_ptr().cast()) };
        *word = _mm512_cmpeq_epi8_mask(tags, wanted);
    }
    set
}

/// The first `count` bytes of `a`, and from there on those of `b`.
#[inline]
#[target_feature(enable = "avx2")]
fn join(count: u8, a: &[u8; 32], b: &[u8; 32]) -> [u8; 32] {
    let places = _mm256_setr_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
        28, 29, 30, 31,
    );
    // SAFETY: `a` has 32 readable bytes.
    let a = unsafe { _mm256_loadu_si256(a.as_ptr().cast()) };
    // SAFETY: `b` has 32 readable bytes.
    let b = unsafe { _mm256_loadu_si256(b.as_ptr().cast()) };
    let of_a = _mm256_cmpgt_epi8(_mm256_set1_epi8(count.cast_signed()), places);
    let blended = _mm256_blendv_epi8(b, a, of_a);
    let mut joined = [0; 32];
    // SAFETY: `joined` has 32 writable bytes.
    unsafe { _mm256_storeu_si256(joined.as_mut_ptr().cast(), blended) };
    joined
}
