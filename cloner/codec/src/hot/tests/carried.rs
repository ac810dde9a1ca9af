//! What an encoder or decoder has in its scratch memory from one chunk shows in no other.

use crate::chunk::{CHUNK_PAGES, PAGE_BYTES, Page, PageKind, PageRef, TargetContents};

use super::super::*;
use super::{Case, KeptPages};

/// A page whose vectors, but for some small ones, are those of every page with this seed.
fn words(seed: u64, factor: u64) -> Page {
    let mut page = [0; PAGE_BYTES];
    for (word, at) in page.as_chunks_mut::<8>().0.iter_mut().zip(0_u64..) {
        let value = match at % 4 {
            1 => (at % 31 + 1).wrapping_mul(0xd6e8_feb8_6659_fd93) ^ seed,
            2 => at % 5 * factor,
            _ => 0,
        };
        *word = value.to_le_bytes();
    }
    page
}

fn text(seed: usize) -> Page {
    std::array::from_fn(|at| b"what one chunk leaves behind, "[at * (1 + at / 300 * seed) % 30])
}

pub(super) fn noise(seed: u64) -> Page {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut page = [0; PAGE_BYTES];
    for word in page.as_chunks_mut::<8>().0 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        *word = state.to_le_bytes();
    }
    page
}

/// Chunks that fill different parts of the scratch memory: plans, census, dictionary, markers and windows.
fn cases() -> Vec<Case> {
    let case = |pages: Vec<Page>, parent: Option<Vec<Page>>| Case {
        pages: pages.concat(),
        touched: PageSet::ALL,
        parent: parent.map(|parent| parent.concat()),
    };
    let shared = |seed| (1..64).map(|page| words(seed, page)).collect::<Vec<_>>();
    let mixed: Vec<Page> = (0..12_usize)
        .map(|page| match page % 4 {
            0 => text(page),
            1 => words(page as u64, 1),
            2 => noise(page as u64),
            _ => [page.to_le_bytes()[0]; PAGE_BYTES],
        })
        .collect();
    let mut parent = mixed.clone();
    parent.iter_mut().for_each(|page| page[100] ^= 1);
    vec![
        case(shared(1), None),
        case(shared(1000), None),
        case(vec![[0; PAGE_BYTES], words(1, 1)], None),
        case((0..8).map(text).collect(), None),
        case(vec![[0; PAGE_BYTES], text(3)], None),
        case(mixed.clone(), None),
        case(mixed, Some(parent)),
        case(vec![[0; PAGE_BYTES]; CHUNK_PAGES], None),
        case((0..100).map(|page| noise(page + 50)).collect(), None),
    ]
}

#[test]
fn an_encoder_encodes_each_chunk_as_a_new_one_does() {
    let cases = cases();
    let dictionary = |case: &Case| case.encode(Backend::default()).1.dictionary_entries;
    assert!(dictionary(&cases[0]) > 0 && dictionary(&cases[1]) > 0 && dictionary(&cases[2]) == 0);
    let mut encoder = Encoder::new(EncoderOptions::default());
    // Every chunk after every other.
    for (first, second) in cases.iter().flat_map(|first| cases.iter().map(move |second| (first, second))) {
        for case in [first, second] {
            let mut input = ChunkInput::new(&case.pages, &case.touched).unwrap();
            if let Some(parent) = &case.parent {
                input = input.with_parent(parent).unwrap();
            }
            // Appended to bytes that belong to something else.
            let mut encoded = vec![7; 5];
            let stats = encoder.encode_chunk(&input, &mut case.kept(), &mut encoded);
            let (expected, expected_stats) = case.encode(Backend::default());
            assert!(encoded[..5] == [7; 5] && encoded[5..] == expected, "the chunk before it shows");
            assert_eq!(stats, expected_stats);
        }
    }
}

#[test]
fn a_page_decodes_the_same_after_any_other() {
    let cases = cases();
    let encoded: Vec<(Vec<u8>, KeptPages)> =
        cases.iter().map(|case| (case.encode(Backend::default()).0, case.kept())).collect();
    let chunks: Vec<VerifiedChunk<'_>> =
        encoded.iter().map(|(encoded, _)| VerifiedChunk::verify(encoded).unwrap()).collect();
    let expected: Vec<Vec<u8>> = cases.iter().map(Case::expected).collect();
    let mut kinds = std::collections::BTreeSet::new();
    // Pages of all chunks in turn, so that each follows pages of other kinds and of other dictionaries.
    for number in 0..12 {
        for ((chunk, (_, kept)), expected) in chunks.iter().zip(&encoded).zip(&expected) {
            let Some(index) = chunk.page_indices().nth(number) else { continue };
            let mut page = [0xee; PAGE_BYTES];
            kinds.insert(decode_page(chunk, index, kept, &mut page).unwrap());
            assert!(page[..] == expected[number * PAGE_BYTES..][..PAGE_BYTES], "page {number}");
        }
    }
    let wanted = [PageKind::Fill, PageKind::Dup, PageKind::WordMarked, PageKind::ByteMarked, PageKind::Raw];
    assert!(wanted.iter().all(|kind| kinds.contains(kind)), "{kinds:?}");
}

/// A kept marker is copied, whatever bytes stand in its page's place; the pages beside it are encoded as ever.
#[test]
fn a_kept_record_is_that_of_the_earlier_chunk() {
    let case = &cases()[6];
    let (encoded, stats) = case.encode(Backend::default());
    let earlier = VerifiedChunk::verify(&encoded).unwrap();
    assert!(stats[PageKind::Patch].pages > 0 && stats[PageKind::Dup].pages > 0);
    for every in 1..4 {
        let mut pages = case.pages.clone();
        let mut kept = [None; CHUNK_PAGES];
        let mut expected = case.expected();
        for (number, index) in earlier.page_indices().enumerate() {
            let marker = earlier.marker(index).unwrap();
            let page = number * PAGE_BYTES..(number + 1) * PAGE_BYTES;
            if number % every == 0 && marker.kind != PageKind::WordMarked {
                kept[number] = Some(marker);
                pages[page].fill(0xdd);
            } else if number % 2 == 1 {
                pages[page.clone()].copy_from_slice(&noise(number as u64));
                expected[page].copy_from_slice(&noise(number as u64));
            }
        }
        let input = ChunkInput::new(&pages, &case.touched)
            .unwrap()
            .with_parent(case.parent.as_ref().unwrap())
            .unwrap();
        let mut next = Vec::new();
        Encoder::new(EncoderOptions::default()).encode_chunk(
            &input.with_kept(&kept),
            &mut case.kept(),
            &mut next,
        );
        let chunk = VerifiedChunk::verify(&next).unwrap();
        let mut memory = vec![0xee; pages.len()];
        decode_chunk(&chunk, &case.kept(), TargetContents::Unknown, &mut memory).unwrap();
        assert!(memory == expected, "every {every}th page kept");
        for (index, kept) in chunk.page_indices().zip(kept) {
            if let Some(KeptRecord { kind, record }) = kept {
                let marker = chunk.marker(index).unwrap();
                assert_eq!((marker.kind, marker.record), (kind, record));
            }
        }
    }
}

/// A page is looked for with the bytes and under the number that it has in its own chunk.
#[test]
fn pages_are_looked_for_once_each_and_in_order() {
    struct Asked(Vec<(usize, u8)>);
    impl Dedup for Asked {
        fn find(&mut self, page: crate::chunk::PageIndex, bytes: &Page) -> Option<PageRef> {
            self.0.push((page.get(), bytes[0]));
            None
        }
    }
    // More unique pages than the census takes, and pages between them that are not looked for.
    let pages: Vec<Page> = (0..200_u8)
        .map(|number| {
            let mut page = if number % 3 == 0 { [0; PAGE_BYTES] } else { noise(u64::from(number)) };
            page[0] = if number % 3 == 0 { 0 } else { number };
            page
        })
        .collect();
    let mut asked = Asked(Vec::new());
    let input = ChunkInput::new(pages.as_flattened(), &PageSet::ALL).unwrap();
    Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut asked, &mut Vec::new());
    let expected: Vec<(usize, u8)> =
        (0..200_u8).filter(|number| number % 3 != 0).map(|number| (number.into(), number)).collect();
    assert_eq!(asked.0, expected);
}
