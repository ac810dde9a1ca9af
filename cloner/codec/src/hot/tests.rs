//! Tests the coder's promises on every backend of this machine.

mod carried;
mod forged;
mod hostile;
mod pages;

use std::collections::HashMap;

use proptest::prelude::*;

use crate::chunk::{
    CHUNK_BYTES, CodecError, NoResolve, PAGE_BYTES, Page, PageIndex, PageKind, PageRef, Resolve,
    ResolveError, TargetContents, page_hash,
};

use super::*;

/// Pages kept elsewhere, as a pool would keep them.
#[derive(Default)]
struct KeptPages {
    pages: Vec<Page>,
    by_hash: HashMap<u128, usize>,
    parent: Vec<u8>,
}

impl KeptPages {
    fn keep(&mut self, page: &Page) {
        self.by_hash.insert(page_hash(page).0, self.pages.len());
        self.pages.push(*page);
    }
}

impl Dedup for KeptPages {
    fn find(&mut self, _page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let &kept = self.by_hash.get(&page_hash(bytes).0)?;
        (self.pages[kept] == *bytes).then_some(PageRef(kept as u64))
    }
}

impl Resolve for KeptPages {
    fn dup(&self, reference: PageRef, out: &mut Page) -> Result<(), ResolveError> {
        let kept = usize::try_from(reference.0)?;
        *out = *self.pages.get(kept).ok_or("no such page")?;
        Ok(())
    }

    fn parent(&self, page: PageIndex, out: &mut Page) -> Result<(), ResolveError> {
        *out = *self.parent.as_chunks().0.get(page.get()).ok_or("no such page in the parent")?;
        Ok(())
    }
}

/// A chunk with everything that decides how it is encoded.
#[derive(Debug, Clone)]
struct Case {
    pages: Vec<u8>,
    touched: PageSet,
    parent: Option<Vec<u8>>,
}

impl Case {
    /// What decoding must give: untouched pages read as zero.
    fn expected(&self) -> Vec<u8> {
        let mut expected = self.pages.clone();
        for (index, page) in expected.as_chunks_mut::<PAGE_BYTES>().0.iter_mut().enumerate() {
            if !self.touched.contains(index) {
                page.fill(0);
            }
        }
        expected
    }

    fn kept(&self) -> KeptPages {
        let mut kept = KeptPages { parent: self.parent.clone().unwrap_or_default(), ..KeptPages::default() };
        // Every fifth page is kept elsewhere already.
        self.pages.as_chunks().0.iter().step_by(5).for_each(|page| kept.keep(page));
        kept
    }

    fn encode(&self, backend: Backend) -> (Vec<u8>, ChunkStats) {
        let mut input = ChunkInput::new(&self.pages, &self.touched).unwrap();
        if let Some(parent) = &self.parent {
            input = input.with_parent(parent).unwrap();
        }
        let mut encoded = Vec::new();
        let stats =
            Encoder::new(EncoderOptions { backend }).encode_chunk(&input, &mut self.kept(), &mut encoded);
        (encoded, stats)
    }
}

fn decode(backend: Backend, encoded: &[u8], kept: &KeptPages) -> Vec<u8> {
    let chunk = VerifiedChunk::verify(encoded).unwrap();
    let bytes = chunk.page_count() * PAGE_BYTES;
    let mut scratch = vec![0xee; bytes];
    decode_chunk_on(backend, &chunk, kept, TargetContents::Scratch, &mut scratch).unwrap();
    // Aligned as guest memory is, and as no heap is.
    let mut memory = vec![0xee; bytes + PAGE_BYTES];
    let aligned = memory.as_ptr().align_offset(PAGE_BYTES);
    for start in [aligned, (aligned + 1) % PAGE_BYTES] {
        memory.fill(0xee);
        decode_chunk_on(backend, &chunk, kept, TargetContents::Unknown, &mut memory[start..start + bytes])
            .unwrap();
        assert!(memory[start..start + bytes] == scratch, "{}: page at {start}", backend.name());
        assert!(memory[..start].iter().chain(&memory[start + bytes..]).all(|&byte| byte == 0xee));
    }
    scratch
}

impl naive::Elsewhere for KeptPages {
    fn dup(&self, reference: u64) -> Option<Vec<u8>> {
        self.pages.get(usize::try_from(reference).ok()?).map(|page| page.to_vec())
    }

    fn parent(&self, page: usize) -> Option<Vec<u8>> {
        self.parent.chunks(PAGE_BYTES).nth(page).map(<[u8]>::to_vec)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(pages::cases(256)))]

    #[test]
    fn what_is_encoded_is_decoded_on_every_backend_and_by_the_oracle(case in pages::case()) {
        let (reference, _) = case.encode(Backend::PORTABLE);
        let kept = case.kept();
        for backend in Backend::available() {
            let (encoded, stats) = case.encode(backend);
            prop_assert!(encoded == reference, "{} encodes other bytes", backend.name());
            prop_assert_eq!(stats.encoded_bytes, encoded.len() as u64);
            prop_assert_eq!(stats.pages(), (case.pages.len() / PAGE_BYTES) as u64);
            let chunk = VerifiedChunk::verify(&encoded).unwrap();
            prop_assert_eq!(ChunkStats::of(&chunk).unwrap(), stats, "the counts of encoding differ from what the chunk holds");
            prop_assert!(decode(backend, &encoded, &kept) == case.expected(), "{}", backend.name());
        }
        prop_assert!(naive::decode(&reference, &kept).as_ref() == Some(&case.expected()), "the oracle");
    }

    #[test]
    fn single_pages_decode_like_the_chunk(case in pages::case()) {
        let (encoded, _) = case.encode(Backend::default());
        let chunk = VerifiedChunk::verify(&encoded).unwrap();
        for (index, expected) in chunk.page_indices().zip(case.expected().as_chunks().0) {
            let mut page = [0xee; PAGE_BYTES];
            let kind = decode_page(&chunk, index, &case.kept(), &mut page).unwrap();
            prop_assert_eq!(Some(kind), chunk.kind(index));
            prop_assert!(page == *expected, "page {}", index);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(pages::cases(32)))]

    #[test]
    fn what_the_oracle_encodes_is_decoded(pages in prop::collection::vec((pages::page(), pages::way()), 1..4)) {
        let expected: Vec<u8> = pages.iter().flat_map(|(page, _)| *page).collect();
        let encoded = naive::encode(&pages.into_iter().map(|(page, way)| (page.to_vec(), way)).collect::<Vec<_>>());
        prop_assert!(naive::decode(&encoded, &KeptPages::default()).as_ref() == Some(&expected), "the oracle");
        for backend in Backend::available() {
            prop_assert!(decode(backend, &encoded, &KeptPages::default()) == expected, "{}", backend.name());
        }
    }
}

#[test]
fn fresh_memory_is_not_written_where_it_is_zero() {
    let pages = [[0; PAGE_BYTES], [7; PAGE_BYTES], [0; PAGE_BYTES]].concat();
    let mut touched = PageSet::EMPTY;
    [0, 1].into_iter().for_each(|page| touched.insert(page));
    let case = Case { pages, touched, parent: None };
    let (encoded, stats) = case.encode(Backend::default());
    assert_eq!(PageKind::ALL.map(|kind| stats[kind].pages)[..3], [1, 1, 1]);
    let mut memory = vec![0xee; 3 * PAGE_BYTES];
    let chunk = VerifiedChunk::verify(&encoded).unwrap();
    decode_chunk(&chunk, &NoResolve, TargetContents::Zeroed, &mut memory).unwrap();
    assert_eq!(memory, [[0xee; PAGE_BYTES], [7; PAGE_BYTES], [0xee; PAGE_BYTES]].concat());
    decode_chunk(&chunk, &NoResolve, TargetContents::Unknown, &mut memory).unwrap();
    assert_eq!(memory, case.expected());
}

/// Two pages are decoded at once, and markers are read a block at a time: here one page has one block and the other has two.
#[test]
fn pages_of_more_markers_than_a_block_decode_beside_pages_of_fewer() {
    let words = |letters: u64| -> Vec<u8> {
        let mut random = 1_u64;
        let mut word = || {
            random = random.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            (random >> 33) % 64
        };
        let letters = |word: u64| (0..letters).map(move |letter| (word * 31 + letter * 7).to_le_bytes()[0]);
        std::iter::repeat_with(|| letters(word())).flatten().take(PAGE_BYTES).collect()
    };
    let (short, long) = (words(5), words(40));
    for pages in [[short.clone(), long.clone()], [long, short]] {
        let encoded = naive::encode(&pages.clone().map(|page| (page, naive::NaiveMarkers::Bytes)));
        let chunk = VerifiedChunk::verify(&encoded).unwrap();
        let markers = |page| {
            let (kind, record) = chunk.record(page).unwrap();
            assert_eq!(kind, PageKind::ByteMarked);
            usize::from(u16::from_le_bytes([record.bytes()[0], record.bytes()[1]]) & 0xfff)
        };
        let counts: Vec<usize> = chunk.page_indices().map(markers).collect();
        assert!(counts.iter().max() > Some(&700) && counts.iter().min() < Some(&300), "{counts:?}");
        for backend in Backend::available() {
            assert!(decode(backend, &encoded, &KeptPages::default()) == pages.concat(), "{}", backend.name());
        }
    }
}

#[test]
fn lengths_that_do_not_fit_are_errors() {
    let page = [1; PAGE_BYTES];
    let all = PageSet::ALL;
    for bytes in [0, 1, PAGE_BYTES - 1, PAGE_BYTES + 1, CHUNK_BYTES + PAGE_BYTES] {
        let wrong = vec![0; bytes];
        assert!(
            matches!(ChunkInput::new(&wrong, &all), Err(CodecError::ChunkLength { bytes: b }) if b == bytes)
        );
    }
    let input = ChunkInput::new(&page, &all).unwrap();
    assert!(matches!(
        input.with_parent(&page[1..]),
        Err(CodecError::ParentLength { parent_bytes: 4095, .. })
    ));
    let mut encoded = Vec::new();
    Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut NoDedup, &mut encoded);
    let chunk = VerifiedChunk::verify(&encoded).unwrap();
    let short = decode_chunk(&chunk, &NoResolve, TargetContents::Unknown, &mut [0; PAGE_BYTES - 1]);
    assert!(matches!(short, Err(CodecError::MemoryLength { chunk_bytes: PAGE_BYTES, memory_bytes: 4095 })));
    let beyond = decode_page(&chunk, PageIndex::new(1).unwrap(), &NoResolve, &mut [0; PAGE_BYTES]);
    assert!(matches!(beyond, Err(CodecError::Format(_))));
}

#[test]
fn a_page_that_cannot_be_resolved_is_an_error() {
    let mut pages = [1, 2].repeat(PAGE_BYTES / 2);
    pages[9] = 9;
    let case = Case { pages, touched: PageSet::ALL, parent: None };
    let (encoded, stats) = case.encode(Backend::default());
    assert_eq!(stats[PageKind::Dup].pages, 1);
    let chunk = VerifiedChunk::verify(&encoded).unwrap();
    let failed = decode_chunk(&chunk, &NoResolve, TargetContents::Unknown, &mut [0; PAGE_BYTES]);
    assert!(matches!(failed, Err(CodecError::Resolve { kind: PageKind::Dup, .. })));
}
