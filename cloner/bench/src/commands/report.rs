//! The report of `cloner-bench codec`, in the shape of its JSON. A figure is null where there was nothing to measure.

use serde::{Serialize, Serializer};

use crate::measure::{Baseline, PageCounts, PageTimes};

/// The whole report. Speeds are medians, in 10⁹ bytes of pages per second, of one thread unless stated otherwise.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) image: String,
    pub(super) bytes: u64,
    pub(super) pages: PageCounts,
    pub(super) memcpy_gbps: Option<f64>,
    pub(super) hot: HotReport,
    pub(super) unique: UniqueReport,
    pub(super) word_marked: WordMarkedReport,
    pub(super) cold: ColdReport,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) child: Option<ChildReport>,
    #[serde(serialize_with = "by_key")]
    pub(super) baselines: Vec<BaselineReport>,
    pub(super) threads: Vec<ThreadsReport>,
}

/// The whole image in hot form: everything that must be stored is counted, and every page is decoded.
#[derive(Debug, Serialize)]
pub(super) struct HotReport {
    pub(super) bytes: u64,
    pub(super) ratio: Option<f64>,
    pub(super) encode_gbps: Option<f64>,
    pub(super) decode_gbps: Option<f64>,
    /// Time to decode single unique pages.
    pub(super) page_us: Option<PageTimes>,
}

/// The unique pages alone in hot form, headers and maps included.
#[derive(Debug, Serialize)]
pub(super) struct UniqueReport {
    pub(super) pages: usize,
    pub(super) ratio: Option<f64>,
    pub(super) encode_gbps: Option<f64>,
    pub(super) decode_gbps: Option<f64>,
}

/// The word-marked pages alone, with whole dictionaries, headers and maps.
#[derive(Debug, Serialize)]
pub(super) struct WordMarkedReport {
    pub(super) pages: usize,
    pub(super) ratio: Option<f64>,
    pub(super) decode_gbps: Option<f64>,
    pub(super) lz4_decode_gbps_same_pages: Option<f64>,
}

/// The whole image in cold form, made from the hot form: everything that must be stored is counted, and every page is decoded.
#[derive(Debug, Serialize)]
pub(super) struct ColdReport {
    pub(super) level: i32,
    pub(super) bytes: u64,
    pub(super) ratio: Option<f64>,
    pub(super) encode_gbps: Option<f64>,
    pub(super) decode_gbps: Option<f64>,
    /// The unique pages alone, the same as the baselines get.
    pub(super) unique: CoderReport,
}

/// The unique pages by one coder.
#[derive(Debug, Serialize)]
pub(super) struct CoderReport {
    pub(super) ratio: Option<f64>,
    pub(super) encode_gbps: Option<f64>,
    pub(super) decode_gbps: Option<f64>,
}

/// The image as a child of its parent, whose decoded pages are at hand.
#[derive(Debug, Serialize)]
pub(super) struct ChildReport {
    pub(super) bytes: u64,
    pub(super) pages: PageCounts,
    pub(super) encode_gbps: Option<f64>,
    pub(super) full_encode_gbps: Option<f64>,
}

/// The unique pages by a baseline.
#[derive(Debug, Serialize)]
pub(super) struct BaselineReport {
    #[serde(skip)]
    pub(super) baseline: Baseline,
    /// Ratio of the compressed blocks alone: what is needed to find them is not counted here.
    pub(super) unique_ratio: Option<f64>,
    /// Ratio of the image, counted as its compressed unique pages and eight bytes for each page of any kind.
    pub(super) image_ratio: Option<f64>,
    pub(super) encode_gbps: Option<f64>,
    pub(super) decode_gbps: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) page_us: Option<PageTimes>,
}

/// The whole image in hot form by several threads.
#[derive(Debug, Serialize)]
pub(super) struct ThreadsReport {
    pub(super) n: usize,
    pub(super) encode_gbps: Option<f64>,
    pub(super) decode_gbps: Option<f64>,
}

impl Report {
    /// The report as JSON.
    pub(super) fn json(&self) -> String {
        serde_json::to_string_pretty(self).expect("plain structs of numbers and strings")
    }
}

fn by_key<S: Serializer>(baselines: &[BaselineReport], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_map(baselines.iter().map(|report| (report.baseline.key(), report)))
}
