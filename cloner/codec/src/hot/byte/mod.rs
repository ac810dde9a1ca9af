//! Byte markers: a page as unaligned vectors, named by where their bytes stood before.
//!
//! Code, text and packed data repeat at any offset. The page is cut into steps; each is a few literal bytes and then one
//! vector of 2 to 32 bytes that the page has shown already, or zeros. A step's *marker* is one byte, an index into the fixed
//! table of [`steps`]:
//!
//! ```text
//! ┌────────────────────────────┬─────────┬────────────────────┬──────────┐
//! │ counts: 2 × 12 bits        │ markers │ distances          │ literals │
//! │ markers, distances         │ 1 byte  │ 12 bits, packed    │          │
//! └────────────────────────────┴─────────┴────────────────────┴──────────┘
//! ```
//!
//! A vector comes from
//! - a **new** distance back, 12 bits of the distance stream;
//! - the **same** distance as the vector before it: structures repeat with a stride, and a vector longer than 32 bytes goes
//!   on like this;
//! - **zero**, without naming where zeros stood.
//!
//! Every vector comes from at least 32 bytes back, so a decoder copies 32 bytes without looking at the length: what is too
//! much is overwritten by the next step. And bytes just written are not read again at once, which processors do slowly.

mod decode;
mod encode;
mod search;
mod steps;
mod streams;

pub(super) use decode::{ByteDecode, ByteDecodeBoth};
pub(super) use encode::{ByteEncoder, MarkBytes, WriteBytes};

/// Bytes of the two counts a record starts with.
const COUNTS_BYTES: usize = 3;
/// Longest literal run and longest vector of one step: one wide register.
const STEP_MAX: usize = 32;

/// Bytes that so many distances take.
const fn distance_bytes(distances: usize) -> usize {
    (distances * 12).div_ceil(8)
}
