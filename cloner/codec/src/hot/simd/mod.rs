//! The one place where the coder names an instruction set, and the only one with `unsafe`.
//!
//! Each algorithm is written once, as a [`Kernel`] over the [`Lanes`] trait, which has the few operations that instruction sets
//! do differently. [`Backend::run`] enters a kernel compiled for one instruction set; everything inlined into it may use that
//! set, so plain loops over arrays become wide registers as well.
//!
//! `--features portable` leaves only the portable backend, for other machines and for comparison.

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod avx512_moves;
mod moves;
mod past_caches;
mod portable;
mod replay;
#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
mod x86_64;

pub(super) use moves::MoveTable;
pub(super) use past_caches::PastCaches;
pub(super) use replay::{Replay, Window};

pub(super) use portable::count;

use moves::{Distances, Moves};
use portable::Portable;

#[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
use x86_64::{Avx2, Avx512};

use crate::chunk::{PAGE_VECTORS, Page, VECTOR_BYTES};

/// A set of a page's vectors: vector `64 * i + j` is bit `j` of word `i`.
pub(super) type VectorMask = [u64; PAGE_VECTORS / 64];

/// The numbers of a set's vectors in ascending order, with room for a whole register after the last.
pub(super) type Positions = [u16; PAGE_VECTORS + 32];

/// Numbers of more than eight bits, put together from the two streams that hold them.
pub(super) type Numbers = [u16; PAGE_VECTORS];

/// Bytes of the widest register.
pub(super) const REGISTER_BYTES: usize = 64;

/// The operations that instruction sets do differently. The default bodies are the portable code, for a set that has nothing
/// better.
///
/// A value of an implementing type proves that this machine can run it.
pub(super) trait Lanes: Copy {
    /// Lists the vectors of a set.
    #[inline(always)]
    fn positions<'p>(self, set: &VectorMask, list: &'p mut Positions) -> &'p [u16] {
        portable::positions(set, list)
    }

    /// Writes the `elements` of a set one after the other; returns how many bytes they take. What follows them in `out` may be
    /// overwritten, as far as a register reaches.
    ///
    /// # Panics
    /// If `out` does not have [`REGISTER_BYTES`] more than the elements take.
    #[inline(always)]
    fn compress<const N: usize>(
        self,
        set: &VectorMask,
        elements: &[[u8; N]; PAGE_VECTORS],
        out: &mut [u8],
    ) -> usize {
        portable::compress(set, elements, out)
    }

    /// Puts successive `literals` at the vectors of `set` and zero everywhere else.
    ///
    /// `literals` must have one entry for each vector of the set; if it has fewer, the rest of the page is zero.
    #[inline(always)]
    fn expand(
        self,
        set: &VectorMask,
        literals: &[[u8; VECTOR_BYTES]],
        page: &mut [[u8; VECTOR_BYTES]; PAGE_VECTORS],
    ) {
        portable::expand(set, literals, page);
    }

    /// Joins the bytes `low` with `HIGH_BITS` bits each, packed lowest first, to the front of `numbers`. If high bits are missing,
    /// the numbers they belong to may be missing as well, or have any value.
    #[inline(always)]
    fn join_bits<const HIGH_BITS: usize>(self, low: &[u8], high: &[u8], numbers: &mut Numbers) {
        portable::join_bits::<HIGH_BITS>(low, high, numbers);
    }

    /// The vectors whose tag is `tag`.
    #[inline(always)]
    fn tagged(self, tags: &[u8; PAGE_VECTORS], tag: u8) -> VectorMask {
        portable::tagged(tags, tag)
    }

    /// Reads the moves that `markers` stand for, at most as many as a block has, to the front of `moves`.
    #[inline(always)]
    fn moves(self, table: &MoveTable, markers: &[u8], distances: &mut Distances<'_>, moves: &mut Moves) {
        moves::read(table, markers, distances, moves);
    }

    /// The first `count` bytes of `a`, and from there on those of `b`. `None` where that takes longer than writing both.
    #[inline(always)]
    fn join(self, _count: u8, _a: &[u8; 32], _b: &[u8; 32]) -> Option<[u8; 32]> {
        None
    }

    /// Fetches the line of `page` that holds a byte to the caches, because it will be read soon.
    #[inline(always)]
    fn prefetch(self, _page: &Page, _byte: usize) {}

    /// Fetches `bytes.len()` bytes that lie `ahead` bytes after the start of `bytes` to the caches that are not nearest, because
    /// they will be read in a while. There may be anything at that place, or nothing.
    #[inline(always)]
    fn fetch_ahead(self, _bytes: &[u8], _ahead: usize) {}

    /// Which bytes of `a` and `b` are equal: bit `i` for byte `i`.
    #[inline(always)]
    fn equal_bytes(self, a: &[u8; 32], b: &[u8; 32]) -> u32 {
        portable::equal_bytes(a, b)
    }
}

/// An algorithm over [`Lanes`].
pub(super) trait Kernel {
    /// The result of the algorithm.
    type Output;
    /// Runs the algorithm. Implementations are `#[inline(always)]`, so that they compile for the instruction set they are
    /// entered with.
    fn run<L: Lanes>(self, lanes: L) -> Self::Output;
}

/// An instruction set that this machine is known to have.
#[derive(Clone, Copy, Debug)]
pub struct Backend(InstructionSet);

#[derive(Clone, Copy, Debug)]
enum InstructionSet {
    Portable(Portable),
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    Avx2(Avx2),
    #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
    Avx512(Avx512),
}

impl Backend {
    /// The backend that runs on every machine.
    pub const PORTABLE: Self = Self(InstructionSet::Portable(Portable));

    /// The fastest backend of this machine.
    #[must_use]
    pub fn detect() -> Self {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        {
            if let Some(avx512) = Avx512::detect() {
                return Self(InstructionSet::Avx512(avx512));
            }
            if let Some(avx2) = Avx2::detect() {
                return Self(InstructionSet::Avx2(avx2));
            }
        }
        Self::PORTABLE
    }

    /// Every backend that this machine can run, for tests and comparisons.
    #[must_use]
    pub fn available() -> Vec<Self> {
        #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
        let more = [
            Avx2::detect().map(|avx2| Self(InstructionSet::Avx2(avx2))),
            Avx512::detect().map(|avx512| Self(InstructionSet::Avx512(avx512))),
        ];
        #[cfg(not(all(target_arch = "x86_64", not(feature = "portable"))))]
        let more = [];
        [Some(Self::PORTABLE)].into_iter().chain(more).flatten().collect()
    }

    /// The backend's name: `portable`, `avx2` or `avx512`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self.0 {
            InstructionSet::Portable(_) => "portable",
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            InstructionSet::Avx2(_) => "avx2",
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            InstructionSet::Avx512(_) => "avx512",
        }
    }

    /// A writer for pages that will not be read soon.
    pub(super) fn past_caches(self) -> PastCaches {
        PastCaches::new(self)
    }

    pub(super) fn run<K: Kernel>(self, kernel: K) -> K::Output {
        match self.0 {
            InstructionSet::Portable(portable) => kernel.run(portable),
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            InstructionSet::Avx2(avx2) => avx2.enter(kernel),
            #[cfg(all(target_arch = "x86_64", not(feature = "portable")))]
            InstructionSet::Avx512(avx512) => avx512.enter(kernel),
        }
    }
}

impl Default for Backend {
    fn default() -> Self {
        Self::detect()
    }
}
