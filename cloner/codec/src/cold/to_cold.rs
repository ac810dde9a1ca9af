//! From the hot form to the cold one.
//!
//! ```text
//! for each page: unique? decode it into the group at hand, and compress the group when it is full
//!                otherwise append its record as it is
//! ```
//!
//! Records lie before groups and both grow while the pages are walked, so there are two walks: records first. Walking a page
//! map costs nothing beside compressing.

use zstd::bulk::Compressor;
use zstd::zstd_safe::{CParameter, compress_bound};

use crate::chunk::{PAGE_BYTES, PageIndex, PageKind, seal};
use crate::hot::{NoResolve, VerifiedChunk, decode_page};

use super::group::{GROUP_BYTES, GROUP_END_BYTES, GROUP_PAGES, is_frame};
use super::header::ColdHeader;
use super::map::{MAP_ENTRY_BYTES, MapEntry};
use super::{ColdStats, Error};

/// The fastest level.
pub const LEVEL_MIN: i32 = -7;
/// The densest level.
pub const LEVEL_MAX: i32 = 22;

/// How to compress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// zstd's level, [`LEVEL_MIN`] to [`LEVEL_MAX`]. As with zstd itself, 0 stands for its default, 3.
    pub level: i32,
}

impl Default for Options {
    /// Level 1: what a flush under battery or a send can keep up with.
    fn default() -> Self {
        Self { level: 1 }
    }
}

/// A group of which zstd would spare less than this part is stored as it is: copying is faster than decompressing.
const STORED_BELOW: usize = 32;

/// Writes cold chunks, one after another. Keep one per thread: it holds zstd's context and the scratch memory.
pub struct ColdEncoder {
    context: Compressor<'static>,
    /// The pages of the group at hand.
    pages: Box<[u8]>,
    /// The compressed group.
    frame: Box<[u8]>,
}

impl ColdEncoder {
    /// An encoder with its scratch memory.
    ///
    /// # Errors
    /// [`Error::Level`]; [`Error::Zstd`] if zstd does not take a parameter.
    pub fn new(options: Options) -> Result<Self, Error> {
        let Options { level } = options;
        if !(LEVEL_MIN..=LEVEL_MAX).contains(&level) {
            return Err(Error::Level { level });
        }
        let failed = |source| Error::Zstd { step: "set up compression", source };
        let mut context = Compressor::new(level).map_err(failed)?;
        // The chunk has a checksum of its own. The content size takes no more room than the window size that would stand in
        // its place, and says before decompressing what will come out.
        context.set_parameter(CParameter::ChecksumFlag(false)).map_err(failed)?;
        context.set_parameter(CParameter::ContentSizeFlag(true)).map_err(failed)?;
        Ok(Self {
            context,
            pages: vec![0; GROUP_BYTES].into(),
            frame: vec![0; compress_bound(GROUP_BYTES)].into(),
        })
    }

    /// Appends the first `pages` of the scratch memory as a group; says whether they had to be stored as they are.
    fn append_group(&mut self, pages: usize, out: &mut Vec<u8>) -> Result<bool, Error> {
        let pages = &self.pages[..pages * PAGE_BYTES];
        let frame_bytes = self
            .context
            .compress_to_buffer(pages, &mut *self.frame)
            .map_err(|source| Error::Zstd { step: "compress a group", source })?;
        let frame = &self.frame[..frame_bytes];
        let stored = frame_bytes > pages.len() - pages.len() / STORED_BELOW;
        debug_assert!(is_frame(frame, pages.len()), "{:02x?}", &frame[..7]);
        out.extend_from_slice(if stored { pages } else { frame });
        Ok(stored)
    }
}

/// Appends the cold form of a chunk to `out`: the same markers, and the unique pages in compressed groups.
///
/// Nothing is allocated if `out` has room for [`COLD_BYTES_MAX`](super::COLD_BYTES_MAX) more bytes.
///
/// # Errors
/// [`Error::Hot`] if a unique page does not decode, [`Error::Zstd`]; `out` is then as it was.
pub fn transcode_to_cold(
    hot: &VerifiedChunk<'_>,
    encoder: &mut ColdEncoder,
    out: &mut Vec<u8>,
) -> Result<ColdStats, Error> {
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
) -> Result<ColdStats, Error> {
    let start = out.len();
    let unique = |page: PageIndex| hot.kind(page).is_some_and(is_unique);
    let header = ColdHeader::new(hot.page_count(), hot.page_indices().filter(|&page| unique(page)).count());
    out.resize(start + header.records_at(), 0);

    for page in hot.page_indices() {
        let (kind, record) = hot.record(page).map_err(|wrong| Error::Hot(wrong.into()))?;
        let entry = if is_unique(kind) {
            MapEntry { kind: PageKind::Raw, record_bytes: 0 }
        } else {
            out.extend_from_slice(record.bytes());
            MapEntry { kind, record_bytes: record.bytes().len() }
        };
        let entry_at = start + header.map_at() + page.get() * MAP_ENTRY_BYTES;
        out[entry_at..entry_at + MAP_ENTRY_BYTES].copy_from_slice(&entry.to_bytes());
    }

    let groups_at = out.len();
    let mut stored_groups = 0;
    let mut uniques = hot.page_indices().filter(|&page| unique(page));
    for group in 0..header.groups() {
        let slots = encoder.pages.as_chunks_mut().0;
        let mut pages = 0;
        for (page, slot) in uniques.by_ref().take(GROUP_PAGES).zip(slots) {
            decode_page(hot, page, &NoResolve, slot).map_err(Error::Hot)?;
            pages += 1;
        }
        stored_groups += u64::from(encoder.append_group(pages, out)?);
        let end = u32::try_from(out.len() - groups_at).expect("a chunk is small").to_le_bytes();
        let end_at = start + header.table_at() + group * GROUP_END_BYTES;
        out[end_at..end_at + GROUP_END_BYTES].copy_from_slice(&end);
    }

    let records_bytes = groups_at - start - header.records_at();
    let encoded = &mut out[start..];
    let header = header.with_lengths(records_bytes, encoded.len());
    header.write(encoded);
    seal(encoded);
    Ok(ColdStats {
        page_bytes: (header.page_count() * PAGE_BYTES) as u64,
        encoded_bytes: encoded.len() as u64,
        unique_pages: header.unique_pages() as u64,
        groups: header.groups() as u64,
        stored_groups,
        group_bytes: (encoded.len() - header.groups_at()) as u64,
    })
}

/// Whether the hot form holds the page's content itself: such pages go into groups.
fn is_unique(kind: PageKind) -> bool {
    matches!(kind, PageKind::WordMarked | PageKind::ByteMarked | PageKind::Raw)
}
