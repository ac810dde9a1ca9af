//! Puts as many bytes after a header and a page map, hot and cold, as these ask for. So mutations need not keep lengths correct to
//! get past the first check, and reach every rule of the map. The numbers of an accepted chunk must add up.
#![no_main]

use cloner_codec::chunk::{
    CHUNK_PAGES, CodecError, Form, GROUP_PAGES, HEADER_BYTES, MAP_ENTRY_BYTES, PAGE_BYTES, PageKind,
    SLACK_BYTES, TargetContents, VERSION,
};
use cloner_codec::cold::VerifiedColdChunk;
use cloner_codec::hot::{VerifiedChunk, decode_chunk};
use cloner_fuzz::{Elsewhere, correct_checksum};
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
    let mut chunk = start(Form::Hot, bytes)?;
    let (pages, entries) = (u16_at(&chunk, 6)?, u16_at(&chunk, 20)?);
    let records_at = HEADER_BYTES + pages * MAP_ENTRY_BYTES + entries * 8;
    let asked = records_at + last_record_end(&chunk, pages)?;
    let slack_at = Some(asked).filter(|&asked| asked <= ASKED_MAX)?;
    chunk.resize(slack_at, 0x5a);
    chunk.resize(slack_at + SLACK_BYTES, 0);
    correct_checksum(&mut chunk);
    Some(chunk)
}

/// The same for a cold chunk.
fn cold_front(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut chunk = start(Form::Cold, bytes)?;
    let (pages, unique) = (u16_at(&chunk, 6)?, u16_at(&chunk, 20)?);
    let table_at = HEADER_BYTES + pages * MAP_ENTRY_BYTES;
    let groups = unique.div_ceil(GROUP_PAGES);
    let last_end = match groups {
        0 => 0,
        _ => u32_at(&chunk, table_at + (groups - 1) * 4)?,
    };
    let asked = (table_at + groups * 4 + last_record_end(&chunk, pages)?).checked_add(last_end)?;
    chunk.resize(Some(asked).filter(|&asked| asked <= ASKED_MAX)?, 0x5a);
    correct_checksum(&mut chunk);
    Some(chunk)
}

/// The bytes after the magic and the version of a form.
fn start(form: Form, bytes: &[u8]) -> Option<Vec<u8>> {
    let mut chunk = [&form.magic()[..], &VERSION.to_le_bytes()].concat();
    chunk.extend(bytes.get(chunk.len()..)?);
    Some(chunk)
}

/// Where the page map says that the last record ends, counted from the first.
fn last_record_end(chunk: &[u8], pages: usize) -> Option<usize> {
    match pages {
        0 => Some(0),
        _ => Some(u32_at(chunk, HEADER_BYTES + (pages - 1) * MAP_ENTRY_BYTES)? & 0xfff_ffff),
    }
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
