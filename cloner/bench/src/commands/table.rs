//! The report of `cloner-bench codec` for people: every speed beside those of lz4 and memcpy in the same run.

use super::report::{BaselineReport, ChildReport, ColdReport, Report, WordMarkedReport};
use crate::measure::{Baseline, PageCounts, PageTimes};
use cloner_cli::columns::{Columns, number};
use cloner_cli::size::Size;

pub(super) fn of(report: &Report) -> String {
    let mut parts = vec![head(report), unique(report).to_string()];
    parts.push(word_marked(&report.word_marked, report.memcpy_gbps));
    parts.push(whole(report).to_string());
    parts.push(cold(&report.cold, &report.baselines));
    parts.extend(report.child.as_ref().map(|child| self::child(child, report)));
    parts.join("\n")
}

fn head(report: &Report) -> String {
    let Report { image, bytes, pages, memcpy_gbps, hot, .. } = report;
    format!(
        "image     {image}: {}\n\
         pages     {}\n\
         hot form  {}, {} times less\n\
         memcpy    {} GB/s\n",
        Size(*bytes),
        kinds(pages),
        Size(hot.bytes),
        number(hot.ratio),
        number(*memcpy_gbps),
    )
}

fn kinds(pages: &PageCounts) -> String {
    let PageCounts { zero, fill, dup, parent, patch, word_marked, byte_marked, raw } = pages;
    let kinds = [
        (zero, "zero"),
        (fill, "fill"),
        (dup, "dup"),
        (parent, "parent"),
        (patch, "patch"),
        (word_marked, "word-marked"),
        (byte_marked, "byte-marked"),
        (raw, "raw"),
    ];
    let present = kinds.iter().filter(|(pages, _)| **pages > 0);
    present.map(|(pages, kind)| format!("{pages} {kind}")).collect::<Vec<_>>().join(", ")
}

/// The figures of one coder, which are one row of the table.
struct Row<'a> {
    name: String,
    ratio: Option<f64>,
    encode: Option<f64>,
    decode: Option<f64>,
    page: &'a Option<PageTimes>,
    image_ratio: Option<f64>,
}

impl<'a> From<&'a BaselineReport> for Row<'a> {
    fn from(report: &'a BaselineReport) -> Self {
        Self {
            name: report.baseline.to_string(),
            ratio: report.unique_ratio,
            encode: report.encode_gbps,
            decode: report.decode_gbps,
            page: &report.page_us,
            image_ratio: report.image_ratio,
        }
    }
}

fn unique(report: &Report) -> Columns {
    let Report { hot, unique, cold, baselines, memcpy_gbps, .. } = report;
    let cold = Row {
        name: String::from("cold form"),
        ratio: cold.unique.ratio,
        encode: cold.unique.encode_gbps,
        decode: cold.unique.decode_gbps,
        page: &None,
        image_ratio: cold.ratio,
    };
    let hot = Row {
        name: String::from("hot form"),
        ratio: unique.ratio,
        encode: unique.encode_gbps,
        decode: unique.decode_gbps,
        page: &hot.page_us,
        image_ratio: hot.ratio,
    };
    let mut table = Columns::new([
        &format!("{} unique pages", unique.pages),
        "ratio",
        "× lz4",
        "encode GB/s",
        "× lz4",
        "decode GB/s",
        "× lz4",
        "× memcpy",
        "page µs p50",
        "p99",
        "image ratio",
        "× lz4",
    ]);
    let lz4 = baselines.iter().find(|report| report.baseline == Baseline::LZ4_PAGE).map(Row::from);
    let lz4 = |figure: fn(&Row<'_>) -> Option<f64>| lz4.as_ref().and_then(figure);
    for row in [hot, cold].into_iter().chain(baselines.iter().map(Row::from)) {
        let page = |part: fn(&PageTimes) -> f64| number(row.page.as_ref().map(part));
        table.row([
            row.name.clone(),
            number(row.ratio),
            times(row.ratio, lz4(|lz4| lz4.ratio)),
            number(row.encode),
            times(row.encode, lz4(|lz4| lz4.encode)),
            number(row.decode),
            times(row.decode, lz4(|lz4| lz4.decode)),
            times(row.decode, *memcpy_gbps),
            page(|times| times.p50),
            page(|times| times.p99),
            number(row.image_ratio),
            times(row.image_ratio, lz4(|lz4| lz4.image_ratio)),
        ]);
    }
    table
}

fn word_marked(report: &WordMarkedReport, memcpy_gbps: Option<f64>) -> String {
    let WordMarkedReport { pages, ratio, decode_gbps, lz4_decode_gbps_same_pages: lz4 } = report;
    format!(
        "{pages} word-marked pages: ratio {}, decode {} GB/s = {} × lz4 on these = {} × memcpy\n",
        number(*ratio),
        number(*decode_gbps),
        times(*decode_gbps, *lz4),
        times(*decode_gbps, memcpy_gbps),
    )
}

fn whole(report: &Report) -> Columns {
    let headings = ["whole image", "encode GB/s", "× 1 thread", "decode GB/s", "× 1 thread", "× memcpy"];
    let mut table = Columns::new(headings);
    let one = report.threads.first();
    for row in &report.threads {
        table.row([
            format!("hot form, {} thread{}", row.n, if row.n == 1 { "" } else { "s" }),
            number(row.encode_gbps),
            times(row.encode_gbps, one.and_then(|one| one.encode_gbps)),
            number(row.decode_gbps),
            times(row.decode_gbps, one.and_then(|one| one.decode_gbps)),
            times(row.decode_gbps, report.memcpy_gbps),
        ]);
    }
    let ColdReport { level, encode_gbps, decode_gbps, .. } = &report.cold;
    table.row([
        format!("cold form, level {level}, 1 thread"),
        number(*encode_gbps),
        String::new(),
        number(*decode_gbps),
        String::new(),
        times(*decode_gbps, report.memcpy_gbps),
    ]);
    table
}

/// The cold form, compared with blocks of as many bytes that are compressed alone.
fn cold(cold: &ColdReport, baselines: &[BaselineReport]) -> String {
    let Some(zstd) = baselines.iter().find(|report| report.baseline == Baseline::ZSTD_GROUP) else {
        return String::new();
    };
    format!(
        "cold form of level {}, made of the hot form: {}, {} times less = {} × {}\n\
         \x20         decodes the unique pages at {} × its speed\n",
        cold.level,
        Size(cold.bytes),
        number(cold.ratio),
        times(cold.ratio, zstd.image_ratio),
        zstd.baseline,
        times(cold.unique.decode_gbps, zstd.decode_gbps),
    )
}

fn child(child: &ChildReport, report: &Report) -> String {
    let ChildReport { bytes, pages, encode_gbps, full_encode_gbps } = child;
    format!(
        "as a child of its parent: {}, {} times less than the full hot form\n\
         \x20         {}\n\
         \x20         encode {} GB/s = {} × the full one, one thread, the parent at hand decoded\n",
        Size(*bytes),
        number(crate::measure::quotient(report.hot.bytes, *bytes)),
        kinds(pages),
        number(*encode_gbps),
        times(*encode_gbps, *full_encode_gbps),
    )
}

fn times(value: Option<f64>, unit: Option<f64>) -> String {
    number(value.zip(unit).map(|(value, unit)| value / unit))
}
