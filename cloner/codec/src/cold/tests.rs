//! Tests the promises of the cold form: what comes back, from where, and what is refused.

mod cases;
mod golden;
mod hostile;

use proptest::prelude::*;

use crate::chunk::{
    CHUNK_PAGES, COLD_BYTES_MAX, CodecError, FormatError, GROUP_PAGES, GROUPS_MAX, HEADER_BYTES,
    MAP_ENTRY_BYTES, NoResolve, PAGE_BYTES, PageIndex, PageKind, TargetContents,
};
use crate::hot::{self, VerifiedChunk};

use super::*;
use cases::{Case, Content};

fn encoder() -> ColdEncoder {
    ColdEncoder::new(ColdOptions::default()).unwrap()
}

fn to_cold(hot: &[u8], encoder: &mut ColdEncoder) -> (Vec<u8>, ColdStats) {
    let mut cold = Vec::new();
    let stats = transcode_to_cold(&VerifiedChunk::verify(hot).unwrap(), encoder, &mut cold).unwrap();
    (cold, stats)
}

fn to_hot(cold: &[u8]) -> Vec<u8> {
    let mut hot = Vec::new();
    let mut encoder = hot::Encoder::new(hot::EncoderOptions::default());
    let cold = VerifiedColdChunk::verify(cold).unwrap();
    transcode_to_hot(&cold, &mut ColdDecoder::new().unwrap(), &mut encoder, &mut hot).unwrap();
    hot
}

fn decode(cold: &[u8], case: &Case) -> Vec<u8> {
    let cold = VerifiedColdChunk::verify(cold).unwrap();
    let mut memory = vec![0xee; cold.page_count() * PAGE_BYTES];
    decode_chunk(&cold, &mut ColdDecoder::new().unwrap(), case, TargetContents::Unknown, &mut memory)
        .unwrap();
    memory
}

/// Checks everything that must hold for every chunk.
fn check(case: &Case, encoder: &mut ColdEncoder) -> ColdStats {
    let hot = case.hot();
    let (cold, stats) = to_cold(&hot, encoder);
    assert!(decode(&cold, case) == case.expected(), "decoding");
    assert!(to_hot(&cold) == hot, "the chunk changed on its way from hot to cold and back");

    let (hot, chunk) = (VerifiedChunk::verify(&hot).unwrap(), VerifiedColdChunk::verify(&cold).unwrap());
    let kinds: Vec<PageKind> = hot.page_indices().map(|page| cold_kind(hot.kind(page).unwrap())).collect();
    let unique = kinds.iter().filter(|&&kind| kind == PageKind::Raw).count();
    assert!(chunk.page_indices().map(|page| chunk.kind(page).unwrap()).eq(kinds));
    assert_eq!(stats.page_bytes, case.expected().len() as u64);
    assert_eq!(stats.encoded_bytes, cold.len() as u64);
    assert_eq!((stats.unique_pages, stats.groups), (unique as u64, unique.div_ceil(GROUP_PAGES) as u64));
    assert!(cold.len() <= COLD_BYTES_MAX);
    let found = chunk.stats();
    for kind in PageKind::ALL {
        let pages = chunk.page_indices().filter(|&page| chunk.kind(page) == Some(kind)).count();
        assert_eq!(found[kind].pages, pages as u64, "{kind}");
    }
    let counted: u64 = PageKind::ALL.iter().map(|&kind| found[kind].bytes).sum();
    let front = HEADER_BYTES + chunk.page_count() * MAP_ENTRY_BYTES;
    assert_eq!((found.encoded_bytes, counted), (cold.len() as u64, (cold.len() - front) as u64));
    stats
}

/// The kind that a page of the hot form has in the cold one.
fn cold_kind(hot: PageKind) -> PageKind {
    match hot {
        PageKind::WordMarked | PageKind::ByteMarked => PageKind::Raw,
        marker => marker,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(cases::cases(192)))]

    #[test]
    fn chunks_come_back_from_cold_and_get_hot_again(case in cases::case(), level in LEVEL_MIN..6) {
        check(&case, &mut ColdEncoder::new(ColdOptions { level }).unwrap());
    }

    #[test]
    fn single_pages_decode_like_the_chunk(case in cases::case()) {
        let (cold, _) = to_cold(&case.hot(), &mut encoder());
        let chunk = VerifiedColdChunk::verify(&cold).unwrap();
        let mut decoder = ColdDecoder::new().unwrap();
        for (index, expected) in chunk.page_indices().zip(case.expected().as_chunks().0) {
            let mut page = [0xee; PAGE_BYTES];
            let kind = decode_page(&chunk, index, &mut decoder, &case, &mut page).unwrap();
            prop_assert_eq!(Some(kind), chunk.kind(index));
            prop_assert!(page == *expected, "page {}", index);
        }
    }
}

#[test]
fn groups_of_every_length_come_back() {
    let mut encoder = encoder();
    for unique in [0, 1, 2, 15, 16, 17, 31, 32, 33, 255, 496, 511, 512] {
        // Adjoining and with other pages between, at the start and at the end.
        let adjoining = (0..CHUNK_PAGES).map(|page| page < unique);
        let last = (0..CHUNK_PAGES).map(|page| page >= CHUNK_PAGES - unique);
        let spread =
            (0..CHUNK_PAGES).map(|page| (page + 1) * unique / CHUNK_PAGES > page * unique / CHUNK_PAGES);
        for places in [adjoining.collect::<Vec<_>>(), last.collect(), spread.collect()] {
            let contents = places.into_iter().enumerate().map(|(page, unique)| match (unique, page % 5) {
                (true, _) => Content::Text,
                (false, 0) => Content::Untouched,
                (false, 1) => Content::Zero,
                (false, 2) => Content::Fill,
                (false, 3) => Content::Dup,
                (false, _) => Content::Parent,
            });
            let stats = check(&Case::of(contents), &mut encoder);
            assert_eq!(stats.unique_pages, unique as u64);
            assert_eq!(stats.stored_groups, 0);
        }
    }
}

#[test]
fn every_level_writes_frames_of_the_one_form() {
    let contents = [Content::Text, Content::Words, Content::Noise];
    let few = Case::of(contents.into_iter().cycle().take(3));
    let many = Case::of(contents.into_iter().cycle().take(40));
    for level in LEVEL_MIN..=LEVEL_MAX {
        let mut encoder = ColdEncoder::new(ColdOptions { level }).unwrap();
        check(&few, &mut encoder);
        check(&many, &mut encoder);
    }
    for level in [i32::MIN, LEVEL_MIN - 1, LEVEL_MAX + 1, i32::MAX] {
        let wrong = ColdEncoder::new(ColdOptions { level }).err().unwrap();
        assert!(matches!(wrong, CodecError::Level { level: l, .. } if l == level));
        assert_eq!(wrong.to_string(), format!("zstd level {level} is outside -7..=22"));
    }
}

#[test]
fn noise_is_stored_as_it_is_and_nothing_is_larger() {
    let stats = check(&Case::of([Content::Noise; CHUNK_PAGES]), &mut encoder());
    assert_eq!(stats.stored_groups, GROUPS_MAX as u64);
    assert_eq!(stats.encoded_bytes, COLD_BYTES_MAX as u64);
}

#[test]
fn fresh_memory_is_not_written_where_it_is_zero() {
    let case = Case::of([Content::Zero, Content::Text, Content::Untouched]);
    let (cold, _) = to_cold(&case.hot(), &mut encoder());
    let chunk = VerifiedColdChunk::verify(&cold).unwrap();
    let mut memory = vec![0xee; 3 * PAGE_BYTES];
    decode_chunk(&chunk, &mut ColdDecoder::new().unwrap(), &NoResolve, TargetContents::Zeroed, &mut memory)
        .unwrap();
    let untouched = [0xee; PAGE_BYTES];
    assert_eq!(memory.as_chunks().0, [untouched, case.expected().as_chunks().0[1], untouched]);
}

#[test]
fn what_cannot_be_decoded_is_named() {
    let case = Case::of([Content::Text, Content::Patch]);
    let (cold, _) = to_cold(&case.hot(), &mut encoder());
    let chunk = VerifiedColdChunk::verify(&cold).unwrap();
    let mut decoder = ColdDecoder::new().unwrap();
    let short = decode_chunk(&chunk, &mut decoder, &case, TargetContents::Unknown, &mut [0; PAGE_BYTES]);
    assert!(matches!(short, Err(CodecError::MemoryLength { chunk_bytes: 8192, memory_bytes: 4096 })));
    let alone =
        decode_chunk(&chunk, &mut decoder, &NoResolve, TargetContents::Unknown, &mut [0; 2 * PAGE_BYTES]);
    assert!(matches!(alone, Err(CodecError::Resolve { kind: PageKind::Patch, .. })));
    let beyond = decode_page(&chunk, PageIndex::new(2).unwrap(), &mut decoder, &case, &mut [0; PAGE_BYTES]);
    assert!(matches!(beyond, Err(CodecError::Format(FormatError::Page { page_count: 2, .. }))));
    assert_eq!(chunk.kind(PageIndex::new(2).unwrap()), None);
}
