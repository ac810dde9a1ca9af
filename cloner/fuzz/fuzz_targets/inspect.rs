//! Inspects any bytes as `cloner inspect` and `cloner-bench` do: as a chunk if they begin like one, otherwise as an image. The figures of a
//! chunk add up, and an image that was encoded decodes to itself.
#![no_main]

use cloner::image::{EncodeOptions, HotEncoder, Image};
use cloner::progress::Watch;
use cloner::walk::Threads;
use cloner_codec::chunk::{Form, PAGE_BYTES};
use cloner_codec::cold::VerifiedColdChunk;
use cloner_codec::hot::{ChunkStats, VerifiedChunk};
use cloner_fuzz::{correct_checksum, correct_hot_checksum};
use libfuzzer_sys::fuzz_target;

/// An image of more pages takes long and shows nothing new.
const PAGES_MAX: usize = 64;

thread_local! {
    static ENCODER: HotEncoder = HotEncoder::new(&Threads::new(1).expect("a thread starts"));
}

fuzz_target!(|bytes: &[u8]| {
    let mut bytes = bytes.to_vec();
    match Form::of(&bytes) {
        Some(Form::Hot) => {
            correct_hot_checksum(&mut bytes);
            if let Ok(chunk) = VerifiedChunk::verify(&bytes)
                && let Ok(stats) = ChunkStats::of(&chunk)
            {
                assert_figures(&stats, chunk.page_count(), bytes.len());
            }
        }
        Some(Form::Cold) => {
            correct_checksum(&mut bytes);
            if let Ok(chunk) = VerifiedColdChunk::verify(&bytes) {
                assert_figures(&chunk.stats(), chunk.page_count(), bytes.len());
            }
        }
        _ => image(bytes),
    }
});

fn assert_figures(stats: &ChunkStats, pages: usize, bytes: usize) {
    assert_eq!(stats.pages(), pages as u64);
    assert_eq!(stats.encoded_bytes, bytes as u64);
}

fn image(mut bytes: Vec<u8>) {
    // Most inputs are shorter than a page: each byte is followed by its like, up to whole pages.
    let pages = bytes.len().div_ceil(64).min(PAGES_MAX);
    let len = bytes.len();
    bytes = (0..pages * PAGE_BYTES).map(|at| bytes[at / 64 % len]).collect();
    let Some(image) = Image::from_bytes(bytes) else { return };
    ENCODER.with(|encoder| {
        let hot = encoder.encode(&image, &EncodeOptions::default()).expect("nothing cancels it");
        assert_eq!(hot.stats().pages(), image.page_count() as u64);
        let mut decoded = vec![0xee; image.bytes().len()];
        let opened = hot.open().expect("it was just encoded");
        encoder.decode(&opened, &mut decoded, Watch::default()).expect("it was just encoded");
        assert!(decoded == image.bytes(), "another image");
    });
}
