//! From a page to byte markers.

use crate::chunk::Page;

use super::super::narrow::low_u32;
use super::super::simd::{Kernel, Lanes};
use super::super::window::{SEARCH_PAGE_AT, STEP_MAX};
use super::COUNTS_BYTES;
use super::search::{PAGE_END, Search};
use super::streams::Streams;

/// Scratch for one page's byte markers: first [`MarkBytes`] finds them, then [`WriteBytes`] writes the record.
pub(in super::super) struct ByteEncoder {
    search: Search,
    streams: Streams,
}

impl ByteEncoder {
    pub(in super::super) fn new() -> Self {
        Self { search: Search::new(), streams: Streams::new() }
    }

    pub(in super::super) fn marker_count(&self) -> usize {
        self.streams.markers().len()
    }
}

/// Finds the byte markers of a page; returns the length of its record in bytes.
pub(in super::super) struct MarkBytes<'a> {
    pub encoder: &'a mut ByteEncoder,
    pub page: &'a Page,
    /// The page that will be encoded after this one, so that it can be fetched meanwhile.
    pub next: &'a Page,
}

impl Kernel for MarkBytes<'_> {
    type Output = usize;

    #[inline(always)]
    fn run<L: Lanes>(self, lanes: L) -> usize {
        let Self { encoder: ByteEncoder { search, streams }, page, next } = self;
        search.start(page);
        streams.clear();
        let (mut anchor, mut at, mut distance, mut stride) = (SEARCH_PAGE_AT, SEARCH_PAGE_AT, STEP_MAX, 1);
        while at + 8 <= PAGE_END {
            match search.next(lanes, anchor, at, distance, stride) {
                Ok(vector) => {
                    (at, distance, stride) = (vector.end, vector.distance, 1);
                    anchor = streams.push_step(search, anchor, &vector);
                    lanes.prefetch(next, at - SEARCH_PAGE_AT);
                }
                // The longer nothing has been found, the wider the search strides.
                Err(further) => (at, stride) = (further, 1 + (further - anchor) / STEADY),
            }
        }
        streams.push_rest(search, anchor, PAGE_END);
        streams.record_bytes()
    }
}

/// Probes are one byte apart at first; the stride grows by one byte after every this many literals.
const STEADY: usize = 32;

/// Appends the record of the page that was marked last.
pub(in super::super) struct WriteBytes<'a> {
    pub encoder: &'a ByteEncoder,
    pub out: &'a mut Vec<u8>,
}

impl Kernel for WriteBytes<'_> {
    type Output = ();

    #[inline(always)]
    fn run<L: Lanes>(self, _lanes: L) {
        let Self { encoder: ByteEncoder { streams, .. }, out } = self;
        let (markers, distances) = (streams.markers(), streams.distances());
        let counts = low_u32((markers.len() | distances.len() << 12) as u64);
        out.extend_from_slice(&counts.to_le_bytes()[..COUNTS_BYTES]);
        out.extend_from_slice(markers);
        let (pairs, last) = distances.as_chunks::<2>();
        for &[first, second] in pairs {
            let both = u32::from(first) | u32::from(second) << 12;
            out.extend_from_slice(&both.to_le_bytes()[..3]);
        }
        if let &[last] = last {
            out.extend_from_slice(&last.to_le_bytes());
        }
        out.extend_from_slice(streams.literals());
    }
}
