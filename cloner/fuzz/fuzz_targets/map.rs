//! Puts as many bytes after a header and a page map, hot and cold, as these ask for. So mutations need not keep lengths correct to
//! get past the first check, and reach every rule of the map. The numbers of an accepted chunk must add up.
#![no_main]

use cloner_codec::chunk::{CHUNK_PAGES, HEADER_BYTES, MAP_ENTRY_BYTES, PAGE_BYTES, PageKind, SLACK_BYTES, TargetContents};
use cloner_codec::cold::{VerifiedColdChunk, self};
use cloner_codec::hot::{Error, VerifiedChunk, decode_chunk};
use cloner_fuzz::{Elsewhere, seal};
use libfuzzer_sys::fuzz_target;

/// The greatest number of bytes that may be asked for. More would take long and show nothing new.
const ASKED_MAX: usize = 256 << 10;

fuzz_target!(|bytes: &[u8]| {
    if let Some(chunk) = hot_front(bytes) {
        hot(&chunk);
    }
    if let Some(chunk) = cold_front(bytes) {
        cold(&chunk);
    }
});

/// Extends the bytes to the length that their header and map, read as a hot chunk's, ask for. `None` if that is too much.
fn hot_front(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut chunk = b"BMC1\x01\0".to_vec();
    chunk.extend(bytes.get(chunk.len()..)?);
    let (pages, entries) = (u16_at(&chunk, 6)?, u16_at(&chunk, 20)?);
    let records_at = HEADER_BYTES + pages * MAP_ENTRY_BYTES + entries * 8;
    let last_end = match pages {
        0 => 0,
        _ => u32_at(&chunk, HEADER_BYTES + (pages - 1) * MAP_ENTRY_BYTES)? & 0xfff_ffff,
    };
    let slack_at = Some(records_at + last_end).filter(|&asked| asked <= ASKED_MAX)?;
    chunk.resize(slack_at, 0x5a);
    chunk.resize(slack_at + SLACK_BYTES, 0);
    seal(&mut chunk);
    Some(chunk)
}

/// The same for a cold chunk.
fn cold_front(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut chunk = b"BMZ1\x01\0".to_vec();
    chunk.extend(bytes.get(chunk.len()..)?);
    let (pages, records, unique) = (u16_at(&chunk, 6)?, u32_at(&chunk, 20)?, u16_at(&chunk, 24)?);
    let table_at = cold::HEADER_BYTES + pages * cold::MAP_ENTRY_BYTES;
    let groups = unique.div_ceil(cold::GROUP_PAGES);
    let last_end = match groups {
        0 => 0,
        _ => u32_at(&chunk, table_at + (groups - 1) * 4)?,
    };
    let asked = (table_at + groups * 4).checked_add(records)?.checked_add(last_end)?;
    chunk.resize(Some(asked).filter(|&asked| asked <= ASKED_MAX)?, 0x5a);
    seal(&mut chunk);
    Some(chunk)
}

fn hot(chunk: &[u8]) {
    let Ok(chunk) = VerifiedChunk::verify(chunk) else { return };
    let header = chunk.header();
    assert!((1..=CHUNK_PAGES).contains(&header.page_count()));
    let map_and_dictionary = header.page_count() * MAP_ENTRY_BYTES + header.entries() * 8;
    assert!(HEADER_BYTES + map_and_dictionary + SLACK_BYTES <= header.encoded_bytes());
    assert_eq!(chunk.as_bytes().len(), header.encoded_bytes());
    assert_eq!(chunk.page_indices().filter_map(|page| chunk.kind(page)).count(), chunk.page_count());
    let mut pages = vec![0; chunk.page_count() * PAGE_BYTES];
    if let Err(error) = decode_chunk(&chunk, &Elsewhere, TargetContents::Zeroed, &mut pages) {
        assert!(!matches!(error, CodecError::Format(_)), "it was verified, and then refused: {error}");
    }
}

fn cold(chunk: &[u8]) {
    let Ok(chunk) = VerifiedColdChunk::verify(chunk) else { return };
    assert!((1..=CHUNK_PAGES).contains(&chunk.page_count()));
    let unique = chunk.page_indices().filter(|&page| chunk.kind(page) == Some(PageKind::Raw)).count();
    assert_eq!((chunk.unique_pages(), chunk.groups()), (unique, unique.div_ceil(GROUP_PAGES)));
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|field| usize::from(u16::from_le_bytes(*field)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|field| u32::from_le_bytes(*field) as usize)
}
