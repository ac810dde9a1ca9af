//! Chunks with pages of every kind, in any order.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use crate::chunk::{PAGE_BYTES, Page, PageIndex, PageRef, Resolve, ResolveError};
use crate::hot::{ChunkInput, Dedup, Encoder, EncoderOptions, PageSet};

/// Number of cases of a property test: `fallback`, unless `CLONER_CASES` says otherwise.
pub(super) fn cases(fallback: u32) -> u32 {
    std::env::var("CLONER_CASES")
        .ok()
        .map_or(fallback, |cases| cases.parse().expect("CLONER_CASES is a number"))
}

/// The content of a page, chosen so that it is encoded in a certain way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Content {
    Untouched,
    Zero,
    Fill,
    Dup,
    Parent,
    Patch,
    Words,
    Text,
    Noise,
    /// Noise except for the last bytes, or the first.
    Edges,
}

impl Content {
    pub(super) const ALL: [Self; 10] = [
        Self::Untouched,
        Self::Zero,
        Self::Fill,
        Self::Dup,
        Self::Parent,
        Self::Patch,
        Self::Words,
        Self::Text,
        Self::Noise,
        Self::Edges,
    ];

    fn page(self, seed: u64) -> Page {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let mut page = [0; PAGE_BYTES];
        let vectors: &mut [[u8; 8]] = page.as_chunks_mut().0;
        match self {
            Self::Untouched | Self::Zero => {}
            Self::Fill => vectors.fill((random() | 1).to_le_bytes()),
            Self::Words => vectors.iter_mut().for_each(|vector| {
                let value = [0, 0x7f00_0000_1000 + random() % 64 * 16, random() % 256, 0];
                *vector = value[(random() % 4) as usize].to_le_bytes();
            }),
            Self::Dup | Self::Parent | Self::Patch | Self::Text => {
                let text = b"each unique vector is mapped to a bit marker; ";
                let start = (random() % 40) as usize;
                let mut letters = text.iter().cycle().skip(start);
                page.fill_with(|| *letters.next().expect("it is cycled"));
                (0..40).for_each(|_| page[(random() % 4096) as usize] = random().to_le_bytes()[0]);
            }
            Self::Noise => vectors.fill_with(|| random().to_le_bytes()),
            Self::Edges => {
                let zeros = (random() % 512) as usize;
                vectors[zeros..].fill_with(|| random().to_le_bytes());
                if random() % 2 == 0 {
                    page.reverse();
                }
            }
        }
        page
    }
}

/// A chunk, its parent, and the pages it refers to.
#[derive(Clone, Debug)]
pub(super) struct Case {
    contents: Vec<Content>,
    pages: Vec<Page>,
    parent: Vec<Page>,
    /// The reference to the first of its pages; each page's reference is one more than the one before.
    first_reference: u64,
}

impl Case {
    pub(super) fn of(contents: impl IntoIterator<Item = Content>) -> Self {
        Self::seeded(contents, 0)
    }

    fn seeded(contents: impl IntoIterator<Item = Content>, seed: u64) -> Self {
        let contents: Vec<Content> = contents.into_iter().collect();
        let pages: Vec<Page> =
            (seed + 1..).zip(&contents).map(|(seed, content)| content.page(seed)).collect();
        let parent = pages.iter().zip(&contents).map(|(page, content)| {
            let mut parent = *page;
            match content {
                Content::Parent => {}
                Content::Patch => [8, 4000, 4095].into_iter().for_each(|at| parent[at] ^= 0x55),
                _ => parent.iter_mut().for_each(|byte| *byte = !*byte),
            }
            parent
        });
        Self { parent: parent.collect(), pages, contents, first_reference: REFERENCE }
    }

    /// The same case with references that count the pages, so that a reader in another language can resolve them.
    pub(super) fn counted(self) -> Self {
        Self { first_reference: 0, ..self }
    }

    /// The parent's pages.
    pub(super) fn parent(&self) -> &[u8] {
        self.parent.as_flattened()
    }

    /// The chunk's hot form.
    pub(super) fn hot(&self) -> Vec<u8> {
        let mut touched = PageSet::EMPTY;
        for (page, content) in self.contents.iter().enumerate() {
            if *content != Content::Untouched {
                touched.insert(page);
            }
        }
        let input = ChunkInput::new(self.pages.as_flattened(), &touched).unwrap();
        let input = input.with_parent(self.parent.as_flattened()).unwrap();
        let mut hot = Vec::new();
        Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut CaseDedup(self), &mut hot);
        hot
    }

    /// What decoding must give.
    pub(super) fn expected(&self) -> Vec<u8> {
        self.pages.concat()
    }
}

/// The first reference: an arbitrary number, all bytes of which have to survive.
const REFERENCE: u64 = 0xfedc_ba98_7654_0000;

struct CaseDedup<'a>(&'a Case);

impl Dedup for CaseDedup<'_> {
    fn find(&mut self, page: PageIndex, _bytes: &Page) -> Option<PageRef> {
        let Self(Case { contents, first_reference, .. }) = self;
        (contents[page.get()] == Content::Dup).then_some(PageRef(first_reference + page.get() as u64))
    }
}

impl Resolve for Case {
    fn dup(&self, reference: PageRef, out: &mut Page) -> Result<(), ResolveError> {
        let page = usize::try_from(reference.0.wrapping_sub(self.first_reference))?;
        *out = *self.pages.get(page).ok_or("no such page")?;
        Ok(())
    }

    fn parent(&self, page: PageIndex, out: &mut Page) -> Result<(), ResolveError> {
        *out = *self.parent.get(page.get()).ok_or("no such page in the parent")?;
        Ok(())
    }
}

/// A chunk of up to 70 pages, more than four groups.
pub(super) fn case() -> impl Strategy<Value = Case> {
    // Runs of equal content, so that the pages of groups adjoin now and then.
    let runs = vec((select(Content::ALL.to_vec()), 1..20_usize), 1..12);
    (runs, 0..1_000_000_u64).prop_map(|(runs, seed)| {
        let contents = runs.into_iter().flat_map(|(content, pages)| std::iter::repeat_n(content, pages));
        Case::seeded(contents.take(70), seed)
    })
}
