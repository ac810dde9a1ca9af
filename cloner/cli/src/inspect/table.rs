//! The report as tables for people.

use std::fmt::Write as _;

use super::report::{ChunkRatio, ChunkReport, Report};
use crate::columns::Columns;
use crate::numbers::quotient;
use crate::size::Size;

pub(super) fn of(report: &Report) -> String {
    let Report { image, what, bytes, encoded_bytes, ratio, .. } = report;
    let mut text = format!(
        "{:<9} {image}: {}\n{:<9} {}, {ratio:.2} times less\n\n",
        what.name(),
        Size(*bytes),
        what.form(),
        Size(*encoded_bytes)
    );
    for table in [kinds(report), vectors(report), chunks(report)].iter().filter(|table| !table.is_empty()) {
        writeln!(text, "{table}").expect("strings can be written to");
    }
    text
}

/// Pages and bytes of each kind.
pub(super) fn kinds(report: &Report) -> Columns {
    let pages: u64 = report.kinds.iter().map(|kind| kind.pages).sum();
    let mut table = Columns::new(["pages", "number", "% of pages", "encoded", "% of encoded", "ratio"]);
    for kind in &report.kinds {
        table.row([
            label(kind.kind.name()),
            kind.pages.to_string(),
            percent(kind.pages, pages),
            Size(kind.encoded_bytes).to_string(),
            percent(kind.encoded_bytes, report.encoded_bytes),
            ratio(kind.ratio),
        ]);
    }
    table
}

/// Classes of vectors; the table is empty if no page is word-marked.
pub(super) fn vectors(report: &Report) -> Columns {
    let mut table = Columns::new(["vectors of word-marked pages", "number", "%"]);
    for class in report.vectors.iter().filter(|class| class.vectors > 0) {
        table.row([
            class.tag.to_owned(),
            class.vectors.to_string(),
            percent(class.vectors, report.vector_count),
        ]);
    }
    table
}

/// The chunks that stand out; the table is empty if there is only one chunk.
pub(super) fn chunks(report: &Report) -> Columns {
    let ChunkRatio { min, median, max, worst, best } = &report.chunk_ratio;
    let heading = format!("{} chunks of 2 MiB", report.chunks.len());
    let mut table = Columns::new([heading.as_str(), "ratio", "at", "mostly", "encoded"]);
    if report.chunks.len() == 1 {
        return table;
    }
    table.row([String::from("lowest ratio"), ratio(*min)]);
    table.row([String::from("median"), ratio(*median)]);
    table.row([String::from("highest ratio"), ratio(*max)]);
    for (name, numbers) in [("worst", worst), ("best", best)] {
        for &number in numbers {
            let ChunkReport { index, offset, encoded_bytes, ratio: chunk, dominant, .. } =
                &report.chunks[number];
            table.row([
                format!("{name}: chunk {index}"),
                ratio(*chunk),
                format!("{offset:#x}"),
                label(dominant.name()),
                Size(*encoded_bytes).to_string(),
            ]);
        }
    }
    table
}

/// How people call a kind, from its name in JSON.
pub(super) fn label(name: &str) -> String {
    name.replace('_', "-")
}

pub(super) fn ratio(ratio: f64) -> String {
    format!("{ratio:.2}")
}

fn percent(part: u64, whole: u64) -> String {
    quotient(part * 100, whole).map_or_else(|| String::from("-"), |percent| format!("{percent:.1}"))
}
