//! What the fuzz targets share: functions that make checksums right, so that mutated chunks get past them, and pages to refer to.

use cloner_codec::chunk::{HEADER_BYTES, MAP_ENTRY_BYTES, PAGE_BYTES, Page, PageIndex, PageRef, Resolve, ResolveError, SLACK_BYTES};
use twox_hash::XxHash3_64;

/// Where the bytes begin that the checksum of a chunk covers, hot or cold.
const SEALED_FROM: usize = 16;

/// Makes the length and the checksum of a chunk, hot or cold, fit its bytes. A chunk that is too short for them stays as it is.
pub fn seal(chunk: &mut [u8]) {
    let Ok(length) = u32::try_from(chunk.len()) else { return };
    if let Some(field) = chunk.get_mut(SEALED_FROM..SEALED_FROM + 4) {
        field.copy_from_slice(&length.to_le_bytes());
        let seed = u64::from_le_bytes(*chunk.first_chunk().expect("longer than 16 bytes"));
        let checksum = XxHash3_64::oneshot_with_seed(seed, &chunk[SEALED_FROM..]);
        chunk[8..SEALED_FROM].copy_from_slice(&checksum.to_le_bytes());
    }
}

/// As [`seal`], and also makes the slack of a hot chunk zero, and its last record end where the slack begins. So inserted or removed
/// bytes move the bounds of records, instead of ending in the same error every time.
pub fn seal_hot(chunk: &mut [u8]) {
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
    seal(chunk);
}

/// A parent whose pages differ, and a pool in which every odd reference leads to a page.
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
