//! What the fuzz targets share: functions that correct checksums, so that mutated input gets past them, and pages to refer to.

pub mod files;
pub mod flushed;
pub mod input;
pub mod parts;

use cloner_codec::chunk::{
    HEADER_BYTES, MAP_ENTRY_BYTES, PAGE_BYTES, Page, PageIndex, PageRef, Resolve, ResolveError, SLACK_BYTES,
};
use twox_hash::XxHash3_64;

/// Offset in a chunk, hot or cold, at which the checksummed bytes begin.
const CHECKSUMMED_FROM: usize = 16;

/// Corrects the length and the checksum in the header of a chunk, hot or cold. A chunk that is too short for a header stays as it
/// is.
pub fn correct_checksum(chunk: &mut [u8]) {
    let Ok(length) = u32::try_from(chunk.len()) else { return };
    if let Some(field) = chunk.get_mut(CHECKSUMMED_FROM..CHECKSUMMED_FROM + 4) {
        field.copy_from_slice(&length.to_le_bytes());
        let seed = u64::from_le_bytes(*chunk.first_chunk().expect("longer than 16 bytes"));
        let checksum = XxHash3_64::oneshot_with_seed(seed, &chunk[CHECKSUMMED_FROM..]);
        chunk[8..CHECKSUMMED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// As [`correct_checksum`]. Also sets the slack of a hot chunk to zero and makes the last record end there, so that inserted or
/// removed bytes move the bounds of records instead of giving the same error every time.
pub fn correct_hot_checksum(chunk: &mut [u8]) {
    let u16_at =
        |at: usize| chunk.get(at..)?.first_chunk().map(|field| usize::from(u16::from_le_bytes(*field)));
    if let (Some(pages @ 1..), Some(entries)) = (u16_at(6), u16_at(20)) {
        let map_end = HEADER_BYTES + pages * MAP_ENTRY_BYTES;
        let slack_at = chunk.len().saturating_sub(SLACK_BYTES);
        if let Some(records) = slack_at.checked_sub(map_end + entries * 8)
            && let Ok(end) = u32::try_from(records)
        {
            chunk[slack_at..].fill(0);
            let last = &mut chunk[map_end - MAP_ENTRY_BYTES..map_end];
            let kind = u32::from(last[3] >> 4) << 28;
            last.copy_from_slice(&(kind | end).to_le_bytes());
        }
    }
    correct_checksum(chunk);
}

/// A parent with varying pages, and a pool in which every odd reference leads to a page.
pub struct Elsewhere;

impl Resolve for Elsewhere {
    fn dup(&self, PageRef(reference): PageRef, out: &mut Page) -> Result<(), ResolveError> {
        let even = || format!("page reference {reference:#x}");
        *out = [(reference % 2 == 1).then_some(reference.to_le_bytes()[1]).ok_or_else(even)?; PAGE_BYTES];
        Ok(())
    }

    fn parent(&self, page: PageIndex, out: &mut Page) -> Result<(), ResolveError> {
        *out = [page.get().to_le_bytes()[0]; PAGE_BYTES];
        Ok(())
    }
}
