//! The report on what memory consists of, in the shape of its JSON.

use cloner_codec::chunk::{CHUNK_BYTES, MAP_ENTRY_BYTES, PAGE_BYTES, PageKind};
use cloner_codec::hot::{ChunkStats, WordTag};
use serde::Serialize;

use crate::numbers::{PageCounts, quotient};

use super::source::SourceKind;

/// Number of chunks listed as the best, and as the worst.
const EXTREMES: usize = 3;

/// The report on an encoded image, a snapshot or one chunk. Ratios are `null` in JSON where nothing is stored.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// Name of the file.
    pub(super) image: String,
    pub(super) what: SourceKind,
    pub(super) bytes: u64,
    pub(super) encoded_bytes: u64,
    pub(super) ratio: f64,
    pub(super) pages: PageCounts,
    pub(super) kinds: Vec<KindReport>,
    pub(super) vectors: Vec<VectorClass>,
    /// Number of vectors in all word-marked pages.
    pub(super) vector_count: u64,
    pub(super) dictionary_entries: u64,
    /// Number of byte markers in all byte-marked pages.
    pub(super) byte_markers: u64,
    pub(super) chunk_ratio: ChunkRatio,
    pub(super) chunks: Vec<ChunkReport>,
}

/// The pages of one kind.
#[derive(Debug, Serialize)]
pub(super) struct KindReport {
    #[serde(serialize_with = "name")]
    pub(super) kind: PageKind,
    pub(super) pages: u64,
    /// Bytes of their records and map entries; dictionaries count for the word-marked ones.
    pub(super) encoded_bytes: u64,
    pub(super) ratio: f64,
}

/// The vectors of word-marked pages that have one tag.
#[derive(Debug, Serialize)]
pub(super) struct VectorClass {
    pub(super) tag: &'static str,
    pub(super) vectors: u64,
    /// Their share of all vectors of word-marked pages.
    pub(super) share: f64,
}

/// How the ratios of the chunks are spread.
#[derive(Debug, Serialize)]
pub(super) struct ChunkRatio {
    pub(super) min: f64,
    pub(super) median: f64,
    pub(super) max: f64,
    /// Numbers of the chunks with the lowest ratios, the lowest first.
    pub(super) worst: Vec<usize>,
    /// Numbers of the chunks with the highest ratios, the highest first.
    pub(super) best: Vec<usize>,
}

/// The figures of one chunk.
#[derive(Debug, Serialize)]
pub(super) struct ChunkReport {
    pub(super) index: usize,
    /// Offset of the chunk in the image, in bytes.
    pub(super) offset: u64,
    pub(super) bytes: u64,
    pub(super) encoded_bytes: u64,
    pub(super) ratio: f64,
    /// The kind that most of the chunk's pages have.
    #[serde(serialize_with = "name")]
    pub(super) dominant: PageKind,
    pub(super) pages: PageCounts,
}

impl Report {
    /// Makes the report on chunks that were encoded in this order; there must be at least one.
    pub(super) fn new(image: String, what: SourceKind, chunks: &[ChunkStats]) -> Self {
        let total = chunks.iter().fold(ChunkStats::default(), |mut total, &chunk| {
            total += chunk;
            total
        });
        let vector_count: u64 = WordTag::ALL.iter().map(|&tag| total.word_tags(tag)).sum();
        let class = |tag: WordTag| {
            let vectors = total.word_tags(tag);
            VectorClass { tag: tag.name(), vectors, share: quotient(vectors, vector_count).unwrap_or(0.0) }
        };
        let unstored = chunks.iter().filter(|stats| stats.encoded_bytes == 0);
        let unstored = unstored.map(|stats| stats.page_bytes / PAGE_BYTES as u64).sum();
        let chunks: Vec<ChunkReport> =
            chunks.iter().enumerate().map(|(index, stats)| ChunkReport::new(index, stats)).collect();
        Self {
            image,
            what,
            bytes: total.page_bytes,
            encoded_bytes: total.encoded_bytes,
            ratio: total.ratio(),
            pages: PageCounts::of(&total),
            kinds: kinds(&total, unstored),
            vectors: WordTag::ALL.into_iter().map(class).collect(),
            vector_count,
            dictionary_entries: total.dictionary_entries,
            byte_markers: total.byte_markers,
            chunk_ratio: ChunkRatio::of(&chunks),
            chunks,
        }
    }

    /// The report as JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain structs of numbers and strings")
    }
}

impl ChunkReport {
    fn new(index: usize, stats: &ChunkStats) -> Self {
        // Of several with equally many pages, the first, which is the cheapest: `max_by_key` alone would take the last.
        let dominant = PageKind::ALL.into_iter().rev().max_by_key(|&kind| stats[kind].pages);
        Self {
            index,
            offset: index as u64 * CHUNK_BYTES as u64,
            bytes: stats.page_bytes,
            encoded_bytes: stats.encoded_bytes,
            ratio: stats.ratio(),
            dominant: dominant.expect("there are kinds"),
            pages: PageCounts::of(stats),
        }
    }
}

impl ChunkRatio {
    fn of(chunks: &[ChunkReport]) -> Self {
        let mut order: Vec<&ChunkReport> = chunks.iter().filter(|chunk| chunk.encoded_bytes > 0).collect();
        order.sort_by(|left, right| left.ratio.total_cmp(&right.ratio));
        let ratio = |rank: usize| order.get(rank).map_or(1.0, |chunk| chunk.ratio);
        let last = order.len().saturating_sub(1);
        Self {
            min: ratio(0),
            median: f64::midpoint(ratio(last / 2), ratio(order.len() / 2)),
            max: ratio(last),
            worst: order.iter().take(EXTREMES).map(|chunk| chunk.index).collect(),
            best: order.iter().rev().take(EXTREMES).map(|chunk| chunk.index).collect(),
        }
    }
}

/// The kinds that occur. `unstored` of the untouched pages are in chunks that are not stored, and so have no map entry.
fn kinds(stats: &ChunkStats, unstored: u64) -> Vec<KindReport> {
    let kinds = PageKind::ALL.into_iter().filter(|&kind| stats[kind].pages > 0);
    let kind = |kind| {
        let pages = stats[kind].pages;
        let dictionary = if kind == PageKind::WordMarked { stats.dictionary_entries * 8 } else { 0 };
        let mapped = if kind == PageKind::Untouched { pages - unstored } else { pages };
        let encoded_bytes = stats[kind].bytes + mapped * MAP_ENTRY_BYTES as u64 + dictionary;
        let ratio = quotient(pages * PAGE_BYTES as u64, encoded_bytes).unwrap_or(f64::INFINITY);
        KindReport { kind, pages, encoded_bytes, ratio }
    };
    kinds.map(kind).collect()
}

fn name<S: serde::Serializer>(kind: &PageKind, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(kind.name())
}
