//! A group: up to sixteen unique pages in one zstd frame, or stored as they are if zstd would hardly shrink them.
//!
//! The length alone tells which of the two it is: a frame is always shorter than the pages. Every frame starts with the same
//! seven bytes, except for the length in them, and ends where the group ends. So the parts of zstd's format that could ask for
//! memory or mean something else (windows, dictionaries, skippable frames, formats before version 1) never reach zstd.

use zstd::zstd_safe::find_frame_compressed_size;

/// Frame magic of RFC 8878, then a descriptor: one segment, content size of two bytes, no checksum, no dictionary.
const FRAME_START: [u8; 5] = [0x28, 0xb5, 0x2f, 0xfd, 0x60];
/// zstd subtracts this from a content size that it stores in two bytes.
const CONTENT_SIZE_BIAS: usize = 256;

/// One coded group of a verified chunk.
#[derive(Clone, Copy, Debug)]
pub(super) struct Group<'a> {
    pub(super) number: usize,
    pub(super) coded: &'a [u8],
    /// Bytes of the group's pages, which is what it decompresses to.
    pub(super) page_bytes: usize,
}

impl<'a> Group<'a> {
    /// The pages, if they are stored uncompressed.
    pub(super) fn stored(self) -> Option<&'a [u8]> {
        (self.coded.len() == self.page_bytes).then_some(self.coded)
    }

    /// Whether an encoder may write these bytes, as far as can be seen without decompressing.
    pub(super) fn is_well_formed(self) -> bool {
        self.stored().is_some()
            || (self.coded.len() < self.page_bytes && is_frame(self.coded, self.page_bytes))
    }
}

/// Whether `coded` is one zstd frame with the header that all groups have, which says that its content is `page_bytes` long.
pub(super) fn is_frame(coded: &[u8], page_bytes: usize) -> bool {
    let content_size = |bytes: &[u8; 2]| usize::from(u16::from_le_bytes(*bytes)) + CONTENT_SIZE_BIAS;
    coded.strip_prefix(&FRAME_START).and_then(<[u8]>::first_chunk).map(content_size) == Some(page_bytes)
        && find_frame_compressed_size(coded) == Ok(coded.len())
}
