//! Decodes any bytes as a hot chunk with a correct checksum. The result must be an error, or pages that do not depend on the
//! decoder or on the memory that they are decoded to.
#![no_main]

use std::cell::RefCell;

use cloner_codec::chunk::{PAGE_BYTES, PageKind, TargetContents};
use cloner_codec::cold::{self, ColdDecoder, ColdEncoder, VerifiedColdChunk};
use cloner_codec::hot::{Backend, VerifiedChunk, decode_chunk_on, decode_page};
use cloner_fuzz::{Elsewhere, correct_hot_checksum};
use libfuzzer_sys::fuzz_target;

/// Chunks with more pages than this are left to the target `map`: they take long and show nothing new.
const PAGES_MAX: usize = 64;

thread_local! {
    static COLD: RefCell<(ColdEncoder, ColdDecoder)> = RefCell::new((
        ColdEncoder::new(cold::ColdOptions::default()).expect("there is memory"),
        ColdDecoder::new().expect("there is memory"),
    ));
}

fuzz_target!(|bytes: &[u8]| {
    // Unchanged, the bytes are not a chunk, or are one whose checksum is already correct.
    let _ = VerifiedChunk::verify(bytes);
    let mut corrected = bytes.to_vec();
    correct_hot_checksum(&mut corrected);
    // Opened as if a pool had verified the chunk before, which is not the case: every access must stay in bounds, whatever is
    // decoded.
    if let Ok(chunk) = VerifiedChunk::reopen(&corrected) {
        if chunk.page_count() > PAGES_MAX {
            return;
        }
        let mut page = [0; PAGE_BYTES];
        chunk.page_indices().for_each(|index| drop(decode_page(&chunk, index, &Elsewhere, &mut page)));
    }
    let Ok(chunk) = VerifiedChunk::verify(&corrected) else { return };
    let decoded = Backend::available().into_iter().map(|backend| decode(backend, &chunk));
    let decoded: Vec<Option<Vec<u8>>> = decoded.collect();
    assert!(decoded.iter().all(|pages| *pages == decoded[0]), "backends disagree");
    pages_alone(&chunk, decoded[0].as_deref());
    if let Some(pages) = &decoded[0] {
        COLD.with_borrow_mut(|(encoder, decoder)| transcoded(&chunk, pages, encoder, decoder));
    }
});

fn decode(backend: Backend, chunk: &VerifiedChunk<'_>) -> Option<Vec<u8>> {
    let bytes = chunk.page_count() * PAGE_BYTES;
    let (mut fresh, mut used) = (vec![0; bytes], vec![0xee; bytes]);
    let to_fresh = decode_chunk_on(backend, chunk, &Elsewhere, TargetContents::Zeroed, &mut fresh);
    let to_used = decode_chunk_on(backend, chunk, &Elsewhere, TargetContents::Unknown, &mut used);
    assert_eq!(to_fresh.is_ok(), to_used.is_ok());
    to_used.ok()?;
    assert!(fresh == used, "{}: what was in memory shows", backend.name());
    Some(used)
}

/// Checks that every page decoded alone is the same as in its chunk, and that all pages decode if the chunk does.
fn pages_alone(chunk: &VerifiedChunk<'_>, expected: Option<&[u8]>) {
    let mut failed = false;
    for index in chunk.page_indices() {
        let mut page = [0xee; PAGE_BYTES];
        match decode_page(chunk, index, &Elsewhere, &mut page) {
            Ok(kind) => {
                assert_eq!(Some(kind), chunk.kind(index));
                assert!(expected.is_none_or(|pages| pages[index.get() * PAGE_BYTES..][..PAGE_BYTES] == page));
            }
            Err(_) => failed = true,
        }
    }
    assert_eq!(failed, expected.is_none());
}

/// Checks that the cold form made from the chunk has the same pages.
fn transcoded(
    chunk: &VerifiedChunk<'_>,
    expected: &[u8],
    encoder: &mut ColdEncoder,
    decoder: &mut ColdDecoder,
) {
    let mut cold = Vec::new();
    cold::transcode_to_cold(chunk, encoder, &mut cold).expect("all pages decode");
    let cold = VerifiedColdChunk::verify(&cold).expect("it was just written");
    let mut pages = vec![0xee; cold.page_count() * PAGE_BYTES];
    cold::decode_chunk(&cold, decoder, &Elsewhere, TargetContents::Unknown, &mut pages)
        .expect("it was just written");
    assert!(pages == expected, "the cold form has other pages");
    for index in chunk.page_indices() {
        let in_group = |kind| matches!(kind, PageKind::WordMarked | PageKind::ByteMarked | PageKind::Raw);
        let hot = chunk.kind(index).expect("a page of the chunk");
        assert_eq!(cold.kind(index), Some(if in_group(hot) { PageKind::Raw } else { hot }));
    }
}
