//! From a chunk's pages to its encoded bytes.
//!
//! ```text
//! plan a page:   untouched? zero? one vector repeated? the parent's? kept elsewhere? few vectors patched?
//!                if none of these, it is unique
//! plan pages and count the vectors of unique ones, until enough are counted; choose the dictionary
//! for each page: plan it, if that is not done yet; append its record: for a unique page by word markers, by byte markers, or raw
//! ```
//!
//! The census comes before the rest, because the dictionary lies before the records.

use crate::chunk::{
    CHUNK_PAGES, ChunkHeader, CodecError, Form, HEADER_BYTES, MAP_ENTRY_BYTES, MapEntry, PAGE_BYTES,
    PAGE_VECTORS, Page, PageIndex, PageKind, PageRef, SLACK_BYTES, write_checksum,
};

use super::byte::{ByteEncoder, MarkBytes, WriteBytes};
use super::page::{CountZeros, PageSet, fill_value, load_vectors};
use super::word::{Dictionary, MarkWords, WordEncoder, WriteWords};
use super::{Backend, ChunkStats, KeptRecord, patch};

/// How to encode.
#[derive(Clone, Copy, Debug, Default)]
pub struct EncoderOptions {
    /// The instruction set; by default the fastest that this machine has. It changes the speed, but never the bytes.
    pub backend: Backend,
}

/// One chunk to encode: a copy of guest memory that nothing else can write.
#[derive(Clone, Copy, Debug)]
pub struct ChunkInput<'a> {
    pages: &'a [Page],
    touched: &'a PageSet,
    parent: Option<&'a [Page]>,
    kept: &'a [Option<KeptRecord<'a>>],
}

impl<'a> ChunkInput<'a> {
    /// Makes the input from the chunk's bytes, 1 to 512 whole pages. Pages outside `touched` may hold any bytes.
    ///
    /// # Errors
    /// [`CodecError::ChunkLength`] if the bytes are not 1 to 512 whole pages.
    pub fn new(bytes: &'a [u8], touched: &'a PageSet) -> Result<Self, CodecError> {
        let wrong = CodecError::ChunkLength { bytes: bytes.len() };
        match bytes.as_chunks::<PAGE_BYTES>() {
            (pages, []) if (1..=CHUNK_PAGES).contains(&pages.len()) => {
                Ok(Self { pages, touched, parent: None, kept: &[] })
            }
            _ => Err(wrong),
        }
    }

    /// Adds the same chunk of the parent snapshot, decoded: pages may then become PARENT or PATCH.
    ///
    /// # Errors
    /// [`CodecError::ParentLength`] if `parent` is not exactly as long as the chunk.
    pub fn with_parent(self, parent: &'a [u8]) -> Result<Self, CodecError> {
        let (pages, rest) = parent.as_chunks();
        if pages.len() != self.pages.len() || !rest.is_empty() {
            return Err(CodecError::ParentLength {
                bytes: self.pages.len() * PAGE_BYTES,
                parent_bytes: parent.len(),
            });
        }
        Ok(Self { parent: Some(pages), ..self })
    }

    /// Lets some pages keep the marker they have: page `i` that of `kept[i]`, and then its bytes do not matter. Pages without one
    /// are encoded like any other.
    ///
    /// The encoder copies records without reading them. The caller must make sure that a reference means the same in the new chunk.
    /// A word-marked record cannot be kept: it needs the dictionary of the chunk it comes from.
    #[must_use]
    pub fn with_kept(self, kept: &'a [Option<KeptRecord<'a>>]) -> Self {
        Self { kept, ..self }
    }

    fn kept(&self, index: PageIndex) -> Option<KeptRecord<'a>> {
        self.kept.get(index.get()).copied().flatten()
    }
}

/// Finds pages that are already kept elsewhere.
pub trait Dedup {
    /// Called once for every page that is worth finding: touched, not one vector repeated, not equal to its parent.
    ///
    /// Returns a reference if an equal page is kept *and* will stay as long as the chunk: the implementation finds it by
    /// [`page_hash`](crate::chunk::page_hash) and must have compared its bytes.
    fn find(&mut self, page: PageIndex, bytes: &Page) -> Option<PageRef>;
}

/// Finds no pages.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoDedup;

impl Dedup for NoDedup {
    fn find(&mut self, _page: PageIndex, _bytes: &Page) -> Option<PageRef> {
        None
    }
}

/// What the first pass decides about a page.
#[derive(Clone, Copy)]
enum PagePlan {
    Kept,
    Untouched,
    Zero,
    Fill(u64),
    Dup(PageRef),
    Parent,
    Patch,
    Unique,
}

/// Encodes chunks, one after another. Keep one per thread: it holds all the scratch memory that encoding needs.
pub struct Encoder {
    options: EncoderOptions,
    plans: Vec<PagePlan>,
    dictionary: Dictionary,
    words: WordEncoder,
    bytes: ByteEncoder,
}

impl Encoder {
    /// Makes an encoder with its scratch memory.
    #[must_use]
    pub fn new(options: EncoderOptions) -> Self {
        Self {
            options,
            plans: Vec::with_capacity(CHUNK_PAGES),
            dictionary: Dictionary::new(),
            words: WordEncoder::new(),
            bytes: ByteEncoder::new(),
        }
    }

    /// Appends the encoded chunk to `out` and counts what became of its pages.
    ///
    /// Nothing is allocated if `out` has room for [`ENCODED_BYTES_MAX`](crate::chunk::ENCODED_BYTES_MAX) more bytes.
    pub fn encode_chunk(
        &mut self,
        input: &ChunkInput<'_>,
        dedup: &mut impl Dedup,
        out: &mut Vec<u8>,
    ) -> ChunkStats {
        self.take_census(input, dedup);
        let start = out.len();
        let pages = input.pages.len();
        let front = ChunkHeader::new(Form::Hot, pages, self.dictionary.entries().len(), 0);
        let map_at = start + HEADER_BYTES;
        out.resize(start + front.table_at(), 0);
        out.extend(self.dictionary.entries().iter().flat_map(|vector| vector.to_le_bytes()));

        let records_at = out.len();
        let mut stats = ChunkStats::default();
        stats.page_bytes = (pages * PAGE_BYTES) as u64;
        for index in PageIndex::first(pages) {
            let before = out.len();
            let plan = self.plans.get(index.get()).copied().unwrap_or_else(|| plan(input, index, dedup));
            let kind = self.write_record(input, index, plan, out, &mut stats);
            stats.count_page(kind, out.len() - before);
            let entry =
                MapEntry { kind, end: u32::try_from(out.len() - records_at).expect("a chunk is small") };
            let entry_at = map_at + index.get() * MAP_ENTRY_BYTES;
            out[entry_at..entry_at + MAP_ENTRY_BYTES].copy_from_slice(&entry.to_bytes());
        }

        let mut entries = self.dictionary.entries().len();
        if stats[PageKind::WordMarked].pages == 0 {
            out.drain(start + front.table_at()..records_at);
            entries = 0;
        }
        out.extend([0; SLACK_BYTES]);
        let header = ChunkHeader::new(Form::Hot, pages, entries, out.len() - start);
        let encoded = &mut out[start..];
        header.write(encoded);
        write_checksum(encoded);
        stats.encoded_bytes = encoded.len() as u64;
        stats.dictionary_entries = entries as u64;
        stats
    }

    /// Plans pages until enough vectors have been counted to choose a dictionary.
    fn take_census(&mut self, input: &ChunkInput<'_>, dedup: &mut impl Dedup) {
        self.plans.clear();
        self.dictionary.clear();
        let mut counted = 0;
        for (index, page) in PageIndex::first(input.pages.len()).zip(input.pages) {
            let plan = plan(input, index, dedup);
            self.plans.push(plan);
            if matches!(plan, PagePlan::Unique) {
                self.dictionary.count(index, page);
                counted += 1;
                if counted == CENSUS_PAGES {
                    break;
                }
            }
        }
        self.dictionary.choose();
    }

    fn write_record(
        &mut self,
        input: &ChunkInput<'_>,
        index: PageIndex,
        plan: PagePlan,
        out: &mut Vec<u8>,
        stats: &mut ChunkStats,
    ) -> PageKind {
        let page = &input.pages[index.get()];
        match plan {
            PagePlan::Kept => {
                let KeptRecord { kind, record } =
                    input.kept(index).expect("only a kept page is planned as such");
                out.extend_from_slice(record);
                kind
            }
            PagePlan::Untouched => PageKind::Untouched,
            PagePlan::Zero => PageKind::Zero,
            PagePlan::Fill(vector) => {
                out.extend_from_slice(&vector.to_le_bytes());
                PageKind::Fill
            }
            PagePlan::Dup(PageRef(reference)) => {
                out.extend_from_slice(&reference.to_le_bytes());
                PageKind::Dup
            }
            PagePlan::Parent => PageKind::Parent,
            PagePlan::Patch => {
                let parent = input.parent.expect("only a page with a parent is planned as a patch");
                patch::encode(page, &parent[index.get()], out);
                PageKind::Patch
            }
            PagePlan::Unique => {
                let next = input.pages.get(index.get() + 1).unwrap_or(page);
                self.write_unique(page, next, out, stats)
            }
        }
    }

    /// Marks a page in the way that serves it best, or keeps it as it is.
    ///
    /// Word markers are faster, both ways, and byte markers are mostly smaller; trying both would cost more than it gains. The
    /// more zero vectors a page has, the more of its other vectors are pointers and integers, which suit word markers.
    fn write_unique(
        &mut self,
        page: &Page,
        next: &Page,
        out: &mut Vec<u8>,
        stats: &mut ChunkStats,
    ) -> PageKind {
        let Self { options: EncoderOptions { backend }, dictionary, words, bytes, .. } = self;
        if WORD_ZEROS.contains(&backend.run(CountZeros(page))) {
            let vectors = load_vectors(page);
            let bytes_max = WORD_RECORD_MAX;
            let marks = MarkWords { encoder: words, vectors: &vectors, dictionary, bytes_max, next };
            if let Some(counts) = backend.run(marks) {
                backend.run(WriteWords { encoder: words, page, vectors: &vectors, out });
                stats.count_words(&counts);
                return PageKind::WordMarked;
            }
        }
        if backend.run(MarkBytes { encoder: bytes, page, next }) <= RECORD_BYTES_MAX {
            backend.run(WriteBytes { encoder: bytes, out });
            stats.byte_markers += bytes.marker_count() as u64;
            return PageKind::ByteMarked;
        }
        out.extend_from_slice(page);
        PageKind::Raw
    }
}

/// The dictionary is chosen from this many unique pages, the first of the chunk: an eighth of a chunk tells most of it, and the
/// other pages then have to be fetched from memory only once.
const CENSUS_PAGES: usize = CHUNK_PAGES / 8;
/// Word markers are tried for pages with this many zero vectors. The limit is seven of eight, because a page with so few other
/// vectors takes few byte markers, and so little time.
const WORD_ZEROS: std::ops::Range<usize> = 80..PAGE_VECTORS * 7 / 8;
/// Records of word markers that are longer than this are not worth their speed.
const WORD_RECORD_MAX: usize = PAGE_BYTES / 2;
/// A page is kept raw if its record would be longer than this: copying is faster than decoding.
const RECORD_BYTES_MAX: usize = PAGE_BYTES - PAGE_BYTES / 10;

fn plan(input: &ChunkInput<'_>, index: PageIndex, dedup: &mut impl Dedup) -> PagePlan {
    let page = &input.pages[index.get()];
    if input.kept(index).is_some() {
        return PagePlan::Kept;
    }
    if !input.touched.contains(index.get()) {
        return PagePlan::Untouched;
    }
    match fill_value(page) {
        Some(0) => return PagePlan::Zero,
        Some(vector) => return PagePlan::Fill(vector),
        None => {}
    }
    let parent = input.parent.map(|parent| &parent[index.get()]);
    if parent == Some(page) {
        return PagePlan::Parent;
    }
    if let Some(reference) = dedup.find(index, page) {
        return PagePlan::Dup(reference);
    }
    if parent.is_some_and(|parent| patch::pays(page, parent)) { PagePlan::Patch } else { PagePlan::Unique }
}
