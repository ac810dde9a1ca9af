//! Byte markers: a page as unaligned vectors, named by where in the page the same bytes stood before.
//!
//! Code, text and packed data repeat at any offset. The page is cut into steps; each is a few literal bytes followed by one
//! vector of 2 to 32 bytes that has already occurred in the page, or of zeros. A step's *marker* is one byte, an index into the
//! fixed table of [`steps`]:
//!
//! ```text
//! ┌────────────────────────────┬─────────┬────────────────────┬──────────┐
//! │ counts: 2 × 12 bits        │ markers │ distances          │ literals │
//! │ markers, distances         │ 1 byte  │ 12 bits, packed    │          │
//! └────────────────────────────┴─────────┴────────────────────┴──────────┘
//! ```
//!
//! A vector comes from one of
//! - a **new** distance back, 12 bits of the distance stream;
//! - the **same** distance as the vector before it: structures repeat with a stride, and a vector longer than 32 bytes goes
//!   on in this way;
//! - **zero**, without naming where zeros stood.
//!
//! Every vector comes from at least 32 bytes back, so a decoder copies 32 bytes without looking at the length: the next step
//! overwrites the excess. It also means that bytes just written are not read again at once, which is slow.

mod decode;
mod encode;
mod search;
mod steps;
mod streams;

pub(super) use decode::{ByteDecode, ByteDecodeBoth};
pub(super) use encode::{ByteEncoder, MarkBytes, WriteBytes};

/// Bytes of the two counts a record starts with.
const COUNTS_BYTES: usize = 3;

/// Bytes that this many distances take.
const fn distance_bytes(distances: usize) -> usize {
    (distances * 12).div_ceil(8)
}
