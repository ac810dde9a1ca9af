//! From the hot form to the cold one.
//!
//! ```text
//! for each page: unique? decode it into the group at hand, and compress the group when it is full
//!                otherwise append its record as it is
//! ```
//!
//! Records lie before groups, and both grow as the pages are walked, so there are two walks: records first. Walking a page
//! map costs nothing compared to compressing.

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use crate::chunk::{
    ChunkHeader, CodecError, Form, GROUP_BYTES, GROUP_END_BYTES, GROUP_PAGES, HEADER_BYTES, MAP_ENTRY_BYTES,
    MapEntry, NoResolve, PAGE_BYTES, PageIndex, PageKind, write_checksum,
};
use crate::hot::{VerifiedChunk, decode_page};

use super::ColdStats;
use super::group::is_frame;

/// The fastest level of zstd.
pub const LEVEL_MIN: i32 = -7;
/// The level of zstd that compresses most.
pub const LEVEL_MAX: i32 = 22;

/// How to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ColdOptions {
    /// zstd's level, from [`LEVEL_MIN`] to [`LEVEL_MAX`]. As with zstd itself, 0 stands for the default, 3.
    pub level: i32,
}

impl Default for ColdOptions {
    /// Level 1, which is fast enough for a flush under battery or a send.
    fn default() -> Self {
        Self { level: 1 }
    }
}

/// A group is stored as it is if zstd would save less than one part in this many: copying is faster than decompressing.
const STORED_BELOW: usize = 32;

/// Writes cold chunks, one after another. Keep one per thread: it holds zstd's context and the scratch memory.
pub struct ColdEncoder {
    context: Compressor<'static>,
    /// The pages of the group that is being collected.
    pages: Box<[u8]>,
    /// The same group, compressed.
    frame: Box<[u8]>,
}

impl ColdEncoder {
    /// Makes an encoder with its scratch memory.
    ///
    /// # Errors
    /// [`CodecError::Level`] if zstd does not have the level; [`CodecError::Zstd`] if zstd does not accept a parameter.
    pub fn new(options: ColdOptions) -> Result<Self, CodecError> {
        let ColdOptions { level } = options;
        if !(LEVEL_MIN..=LEVEL_MAX).contains(&level) {
            return Err(CodecError::Level { level, min: LEVEL_MIN, max: LEVEL_MAX });
        }
        let failed = |source| CodecError::Zstd { step: "set up compression", source };
        let mut context = Compressor::new(level).map_err(failed)?;
        // The chunk has a checksum of its own. The content size takes no more room than the window size that would otherwise stand
        // there, and tells the size of the content before decompressing.
        context.set_parameter(CParameter::ChecksumFlag(false)).map_err(failed)?;
        context.set_parameter(CParameter::ContentSizeFlag(true)).map_err(failed)?;
        Ok(Self {
            context,
            pages: vec![0; GROUP_BYTES].into(),
            frame: vec![0; compress_bound(GROUP_BYTES)].into(),
        })
    }

    /// Appends the first `pages` of the scratch memory as a group; returns whether they had to be stored as they are.
    fn append_group(&mut self, pages: usize, out: &mut Vec<u8>) -> Result<bool, CodecError> {
        let pages = &self.pages[..pages * PAGE_BYTES];
        let frame_bytes = self
            .context
            .compress_to_buffer(pages, &mut *self.frame)
            .map_err(|source| CodecError::Zstd { step: "compress a group", source })?;
        let frame = &self.frame[..frame_bytes];
        let stored = frame_bytes > pages.len() - pages.len() / STORED_BELOW;
        debug_assert!(is_frame(frame, pages.len()), "{:02x?}", &frame[..7]);
        out.extend_from_slice(if stored { pages } else { frame });
        Ok(stored)
    }
}

/// Appends the cold form of a chunk to `out`: the same markers, and the unique pages in compressed groups.
///
/// Nothing is allocated if `out` has room for [`COLD_BYTES_MAX`](crate::chunk::COLD_BYTES_MAX) more bytes.
///
/// # Errors
/// [`CodecError::Record`] if a unique page does not decode, [`CodecError::Zstd`] if zstd cannot compress; `out` is then
/// unchanged.
pub fn transcode_to_cold(
    hot: &VerifiedChunk<'_>,
    encoder: &mut ColdEncoder,
    out: &mut Vec<u8>,
) -> Result<ColdStats, CodecError> {
    let start = out.len();
    let written = append_chunk(hot, encoder, out);
    if written.is_err() {
        out.truncate(start);
    }
    written
}

fn append_chunk(
    hot: &VerifiedChunk<'_>,
    encoder: &mut ColdEncoder,
    out: &mut Vec<u8>,
) -> Result<ColdStats, CodecError> {
    let start = out.len();
    let unique = |page: PageIndex| hot.kind(page).is_some_and(PageKind::is_unique);
    let unique_pages = hot.page_indices().filter(|&page| unique(page)).count();
    let groups = unique_pages.div_ceil(GROUP_PAGES);
    let front = ChunkHeader::new(Form::Cold, hot.page_count(), unique_pages, 0);
    let (table_at, records_at) = (start + front.table_at(), start + front.records_at());
    out.resize(records_at, 0);

    for page in hot.page_indices() {
        let (kind, record) = hot.record(page)?;
        let kind = if kind.is_unique() {
            PageKind::Raw
        } else {
            out.extend_from_slice(record.bytes());
            kind
        };
        let end = u32::try_from(out.len() - records_at).expect("a chunk is small");
        let entry_at = start + HEADER_BYTES + page.get() * MAP_ENTRY_BYTES;
        out[entry_at..entry_at + MAP_ENTRY_BYTES].copy_from_slice(&MapEntry { kind, end }.to_bytes());
    }

    let groups_at = out.len();
    let mut stored_groups = 0;
    let mut uniques = hot.page_indices().filter(|&page| unique(page));
    for group in 0..groups {
        let slots = encoder.pages.as_chunks_mut().0;
        let mut pages = 0;
        for (page, slot) in uniques.by_ref().take(GROUP_PAGES).zip(slots) {
            decode_page(hot, page, &NoResolve, slot)?;
            pages += 1;
        }
        stored_groups += u64::from(encoder.append_group(pages, out)?);
        let end = u32::try_from(out.len() - groups_at).expect("a chunk is small").to_le_bytes();
        let end_at = table_at + group * GROUP_END_BYTES;
        out[end_at..end_at + GROUP_END_BYTES].copy_from_slice(&end);
    }

    let group_bytes = out.len() - groups_at;
    let encoded = &mut out[start..];
    ChunkHeader::new(Form::Cold, hot.page_count(), unique_pages, encoded.len()).write(encoded);
    write_checksum(encoded);
    Ok(ColdStats {
        page_bytes: (hot.page_count() * PAGE_BYTES) as u64,
        encoded_bytes: encoded.len() as u64,
        unique_pages: unique_pages as u64,
        groups: groups as u64,
        stored_groups,
        group_bytes: group_bytes as u64,
    })
}
