//! Decodes any bytes as a cold chunk with a correct checksum. The result must be an error, or pages that are the same when decoded
//! alone and in the hot chunk made from them.
#![no_main]

use std::cell::RefCell;

use cloner_codec::chunk::{PAGE_BYTES, TargetContents};
use cloner_codec::cold::{ColdDecoder, VerifiedColdChunk, decode_chunk, decode_page, transcode_to_hot};
use cloner_codec::hot::{self, Encoder, VerifiedChunk};
use cloner_fuzz::{Elsewhere, correct_checksum};
use libfuzzer_sys::fuzz_target;

thread_local! {
    // What a worker thread keeps from chunk to chunk. No data of one chunk may show in the next.
    static CODERS: RefCell<(ColdDecoder, Encoder)> = RefCell::new((
        ColdDecoder::new().expect("there is memory"),
        Encoder::new(hot::EncoderOptions::default()),
    ));
}

fuzz_target!(|bytes: &[u8]| {
    let _ = VerifiedColdChunk::verify(bytes);
    let mut corrected = bytes.to_vec();
    correct_checksum(&mut corrected);
    if let Ok(chunk) = VerifiedColdChunk::verify(&corrected) {
        CODERS.with_borrow_mut(|(decoder, encoder)| check(&chunk, decoder, encoder));
    }
});

fn check(chunk: &VerifiedColdChunk<'_>, decoder: &mut ColdDecoder, encoder: &mut Encoder) {
    let mut pages = vec![0xee; chunk.page_count() * PAGE_BYTES];
    let whole = decode_chunk(chunk, decoder, &Elsewhere, TargetContents::Unknown, &mut pages).is_ok();
    let mut failed = false;
    for index in chunk.page_indices() {
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
