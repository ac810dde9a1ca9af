//! Two uses of XXH3: the 64-bit checksum of an encoded chunk, and the 128-bit hash by which equal pages are found.
//!
//! Neither resists an adversary, and neither has to: the checksum guards against accidents, and a hash match is always
//! confirmed by comparing bytes.

use twox_hash::{XxHash3_64, XxHash3_128};

use super::{CHECKSUM_AT, HASHED_FROM, Page};

/// The XXH3-128 of a page's bytes. Equal pages have equal hashes; if hashes are equal, the bytes still have to be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PageHash(pub u128);

/// Hashes a page.
#[must_use]
pub fn page_hash(page: &Page) -> PageHash {
    PageHash(XxHash3_128::oneshot(page))
}

/// The checksum of an encoded chunk: XXH3-64 of everything after the checksum field, seeded with the eight bytes before it.
///
/// The seed makes the checksum cover the whole chunk although the hashed bytes are one run.
///
/// # Panics
/// If `encoded` is shorter than a header.
pub(super) fn of_chunk(encoded: &[u8]) -> u64 {
    let seed = encoded.first_chunk::<CHECKSUM_AT>().expect("the header holds the seed");
    XxHash3_64::oneshot_with_seed(u64::from_le_bytes(*seed), &encoded[HASHED_FROM..])
}

/// Writes the checksum into an encoded chunk that is otherwise finished.
///
/// # Panics
/// If `encoded` is shorter than a header.
pub(crate) fn write_checksum(encoded: &mut [u8]) {
    let checksum = of_chunk(encoded);
    encoded[CHECKSUM_AT..HASHED_FROM].copy_from_slice(&checksum.to_le_bytes());
}
