//! The operations of [`Lanes`] on x86-64.
#![expect(
    unsafe_code,
    reason = "entering code compiled for an instruction set is safe only where the machine has it"
)]

use crate::format::{PAGE_VECTORS, VECTOR_BYTES};

use super::{Kernel, Lanes, Positions, VectorMask, portable};

/// AVX2 with the bit operations of its time.
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
            && is_x86_feature_detected!("avx512vbmi2");
        has.then_some(Self(()))
    }

    pub(super) fn enter<K: Kernel>(self, kernel: K) -> K::Output {
        #[target_feature(
            enable = "avx2,bmi1,bmi2,lzcnt,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vbmi2"
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
    fn positions<'p>(self, set: &VectorMask, list: &'p mut Positions) -> &'p [u16] {
        portable::positions(set, list)
    }

    #[inline(always)]
    fn expand(self, set: &VectorMask, literals: &[[u8; VECTOR_BYTES]], page: &mut [u64; PAGE_VECTORS]) {
        portable::expand(set, literals, page);
    }

    #[inline(always)]
    fn tagged(self, tags: &[u8; PAGE_VECTORS], tag: u8) -> VectorMask {
        portable::tagged(tags, tag)
    }

    #[inline(always)]
    fn equal_prefix(self, a: &[u8; 32], b: &[u8; 32]) -> usize {
        portable::equal_prefix(a, b)
    }
}

impl Lanes for Avx512 {
    #[inline(always)]
    fn positions<'p>(self, set: &VectorMask, list: &'p mut Positions) -> &'p [u16] {
        portable::positions(set, list)
    }

    #[inline(always)]
    fn expand(self, set: &VectorMask, literals: &[[u8; VECTOR_BYTES]], page: &mut [u64; PAGE_VECTORS]) {
        portable::expand(set, literals, page);
    }

    #[inline(always)]
    fn tagged(self, tags: &[u8; PAGE_VECTORS], tag: u8) -> VectorMask {
        portable::tagged(tags, tag)
    }

    #[inline(always)]
    fn equal_prefix(self, a: &[u8; 32], b: &[u8; 32]) -> usize {
        portable::equal_prefix(a, b)
    }
}
