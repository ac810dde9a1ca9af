//! The sizes that byte markers are coded by, and where a page lies in the windows that it is coded in.
//!
//! The encoder copies a page to a window, and the decoder builds it in one. Zeros precede the page in both, so that the bytes before
//! any place can be read without asking whether the page has begun.

use crate::chunk::PAGE_BYTES;

use super::narrow::low_u16;

/// Most literals and longest vector of one step, in bytes: one wide register.
pub(super) const STEP_MAX: usize = 32;
/// Bytes that a copy moves, however few the step needs.
pub(super) const COPY_BYTES: usize = STEP_MAX;
/// The least distance of a vector, in bytes, which is stored as 0: no copy reads what it writes itself.
pub(super) const LEAST_DISTANCE: u16 = low_u16(COPY_BYTES as u64);

/// Byte of the encoder's window at which the page starts: a vector and the bytes before it may reach this far back.
pub(super) const SEARCH_PAGE_AT: usize = 2 * STEP_MAX;
/// Byte of the decoder's window at which the page starts: from the page's end, and from a literal run after that, it is as far to
/// zeros only.
pub(super) const REPLAY_PAGE_AT: u16 = low_u16((PAGE_BYTES + 3 * COPY_BYTES) as u64);
