//! Decodes any bytes as a cold chunk with a correct checksum. The result must be an error, or pages that are the same when decoded
//! alone and in the hot chunk made from them.
#![no_main]

use std::cell::RefCell;
use std::collections::HashSet;

use cloner_codec::chunk::{
    GROUP_END_BYTES, GROUP_PAGES, HEADER_BYTES, MAP_ENTRY_BYTES, PAGE_BYTES, PageKind, TargetContents,
};
use cloner_codec::cold::{ColdDecoder, VerifiedColdChunk, decode_chunk, decode_page, transcode_to_hot};
use cloner_codec::hot::{self, Encoder, VerifiedChunk};
use cloner_fuzz::{Elsewhere, correct_checksum};
use libfuzzer_sys::fuzz_target;
use twox_hash::XxHash3_64;

thread_local! {
    // What a worker thread keeps from chunk to chunk. No data of one chunk may show in the next.
    static CODERS: RefCell<(ColdDecoder, Encoder)> = RefCell::new((
        ColdDecoder::new().expect("there is memory"),
        Encoder::new(hot::EncoderOptions::default()),
    ));
    static SEEN: RefCell<Seen> = RefCell::default();
}

/// Which pages were decoded alone before, out of which group, to which bytes. Each time takes decompressing the whole group, sixteen times
/// for all its pages, and most inputs have all groups but one in common with those before them.
#[derive(Default)]
struct Seen(HashSet<u64>);

impl Seen {
    /// Whether this is the first time.
    fn is_new(&mut self, group: u64, place: usize, page: &[u8]) -> bool {
        if self.0.len() > 1 << 20 {
            self.0.clear();
        }
        let hash = XxHash3_64::oneshot_with_seed(group, page);
        self.0.insert(hash ^ place as u64)
    }
}

/// The hashes of a valid chunk's groups, by the table of their ends, which lies after the page map.
fn groups(bytes: &[u8], chunk: &VerifiedColdChunk<'_>) -> Vec<u64> {
    let table_at = HEADER_BYTES + chunk.page_count() * MAP_ENTRY_BYTES;
    let table = &bytes[table_at..table_at + chunk.groups() * GROUP_END_BYTES];
    let ends: Vec<usize> = table.as_chunks().0.iter().map(|end| u32::from_le_bytes(*end) as usize).collect();
    let start = bytes.len() - ends.last().copied().unwrap_or(0);
    let starts = std::iter::once(0).chain(ends.iter().copied());
    starts.zip(&ends).map(|(from, to)| XxHash3_64::oneshot(&bytes[start + from..start + to])).collect()
}

fuzz_target!(|bytes: &[u8]| {
    let _ = VerifiedColdChunk::verify(bytes);
    let mut corrected = bytes.to_vec();
    correct_checksum(&mut corrected);
    if let Ok(chunk) = VerifiedColdChunk::verify(&corrected) {
        CODERS.with_borrow_mut(|(decoder, encoder)| check(&corrected, &chunk, decoder, encoder));
    }
});

fn check(bytes: &[u8], chunk: &VerifiedColdChunk<'_>, decoder: &mut ColdDecoder, encoder: &mut Encoder) {
    let mut pages = vec![0xee; chunk.page_count() * PAGE_BYTES];
    let whole = decode_chunk(chunk, decoder, &Elsewhere, TargetContents::Unknown, &mut pages).is_ok();
    let mut failed = false;
    let (groups, mut rank) = (groups(bytes, chunk), 0);
    for index in chunk.page_indices() {
        if chunk.kind(index) == Some(PageKind::Raw) {
            let (group, place) = (groups[rank / GROUP_PAGES], rank % GROUP_PAGES);
            rank += 1;
            let expected = &pages[index.get() * PAGE_BYTES..][..PAGE_BYTES];
            if whole && !SEEN.with_borrow_mut(|seen| seen.is_new(group, place, expected)) {
                continue;
            }
        }
        let mut page = [0xee; PAGE_BYTES];
        match decode_page(chunk, index, decoder, &Elsewhere, &mut page) {
            Ok(kind) => {
                assert_eq!(Some(kind), chunk.kind(index));
                assert!(!whole || pages[index.get() * PAGE_BYTES..][..PAGE_BYTES] == page, "page {index}");
            }
            Err(_) => failed = true,
        }
    }
    assert_eq!(failed, !whole);

    let mut hot = vec![1, 2, 3];
    if transcode_to_hot(chunk, decoder, encoder, &mut hot).is_err() {
        assert_eq!(hot, [1, 2, 3], "a failure leaves nothing behind");
        return;
    }
    let hot = VerifiedChunk::verify(&hot[3..]).expect("it was just written");
    let mut again = vec![0; pages.len()];
    let decoded = hot::decode_chunk(&hot, &Elsewhere, TargetContents::Zeroed, &mut again);
    assert_eq!(decoded.is_ok(), whole);
    assert!(!whole || again == pages, "the hot form has other pages");
}
