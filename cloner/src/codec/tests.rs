//! The coder against its own promises, on every backend of this machine.

mod pages;

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::format::page_hash;

/// Pages kept elsewhere: what a pool would be.
#[derive(Default)]
struct Kept {
    pages: Vec<Page>,
    by_hash: HashMap<u128, usize>,
    parent: Vec<u8>,
}

impl Kept {
    fn keep(&mut self, page: &Page) {
        self.by_hash.insert(page_hash(page).0, self.pages.len());
        self.pages.push(*page);
    }
}

impl Dedup for Kept {
    fn find(&mut self, _page: PageIndex, bytes: &Page) -> Option<PageRef> {
        let &kept = self.by_hash.get(&page_hash(bytes).0)?;
        (self.pages[kept] == *bytes).then_some(PageRef(kept as u64))
    }
}

impl Resolve for Kept {
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
    /// What decoding has to give: untouched pages read as zero.
    fn expected(&self) -> Vec<u8> {
        let mut expected = self.pages.clone();
        for (index, page) in expected.as_chunks_mut::<PAGE_BYTES>().0.iter_mut().enumerate() {
            if !self.touched.contains(index) {
                page.fill(0);
            }
        }
        expected
    }

    fn kept(&self) -> Kept {
        let mut kept = Kept { parent: self.parent.clone().unwrap_or_default(), ..Kept::default() };
        // Every fifth page is elsewhere already.
        self.pages.as_chunks().0.iter().step_by(5).for_each(|page| kept.keep(page));
        kept
    }

    fn encode(&self, backend: Backend) -> (Vec<u8>, ChunkStats) {
        let mut input = ChunkInput::new(&self.pages, &self.touched).unwrap();
        if let Some(parent) = &self.parent {
            input = input.with_parent(parent).unwrap();
        }
        let mut encoded = Vec::new();
        let stats = Encoder::new(Options { backend }).encode_chunk(&input, &mut self.kept(), &mut encoded);
        (encoded, stats)
    }
}

fn decode(backend: Backend, encoded: &[u8], kept: &Kept) -> Vec<u8> {
    let chunk = VerifiedChunk::verify(encoded).unwrap();
    let mut memory = vec![0xee; chunk.page_count() * PAGE_BYTES];
    decode_chunk_on(backend, &chunk, kept, Fresh::Unknown, &mut memory).unwrap();
    memory
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(pages::cases(64)))]

    #[test]
    fn what_is_encoded_is_decoded_on_every_backend(case in pages::case()) {
        let (reference, _) = case.encode(Backend::PORTABLE);
        for backend in Backend::available() {
            let (encoded, stats) = case.encode(backend);
            prop_assert_eq!(&encoded, &reference, "{} encodes other bytes", backend.name());
            prop_assert_eq!(stats.encoded_bytes, encoded.len() as u64);
            prop_assert_eq!(stats.pages(), (case.pages.len() / PAGE_BYTES) as u64);
            prop_assert!(decode(backend, &encoded, &case.kept()) == case.expected(), "{}", backend.name());
        }
    }
}
