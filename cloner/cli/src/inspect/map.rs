//! A map of memory as SVG: one cell for each chunk, row by row from the start of the image.
//!
//! The colour stands for the kind of most of the chunk's pages; the stronger it is, the more of the chunk's bytes remain when it
//! is encoded.

use std::fmt::Write as _;

use cloner_codec::chunk::PageKind;

use crate::numbers::PageCounts;

use super::escape::escape;
use super::report::{ChunkReport, Report};
use super::table::label;
use crate::size::Size;

/// Distance between cells, in units of the drawing.
const CELL: usize = 20;
/// Space on the left of the map for the offset of each row, in the same units.
const MARGIN: usize = 52;
/// Number of strengths that a colour has.
const STEPS: usize = 5;

/// Ratios at which a chunk's colour becomes one step weaker.
const STEP_RATIOS: [f64; STEPS - 1] = [1.5, 2.5, 5.0, 20.0];

/// Draws the map.
pub(super) fn svg(report: &Report) -> String {
    let columns = columns(report.chunks.len());
    let rows = report.chunks.len().div_ceil(columns);
    let (width, height) = (MARGIN + columns * CELL, rows * CELL);
    let mut out = format!(
        "<svg class=\"map\" viewBox=\"0 0 {width} {height}\" style=\"max-width:{}px\" role=\"img\" \
         aria-label=\"Map of memory: {} chunks\">\n",
        width * 2,
        report.chunks.len()
    );
    for (row, chunks) in report.chunks.chunks(columns).enumerate() {
        let y = row * CELL;
        let offset = Size(chunks[0].offset);
        let baseline = y + CELL * 2 / 3;
        line(&mut out, format_args!("<text y=\"{baseline}\">{offset}</text>"));
        for (column, chunk) in chunks.iter().enumerate() {
            let (x, size) = (MARGIN + column * CELL + 1, CELL - 2);
            let class = class(chunk.dominant);
            let step = step(chunk.ratio);
            let title = escape(&title(chunk));
            line(
                &mut out,
                format_args!(
                    "<rect class=\"{class} s{step}\" x=\"{x}\" y=\"{}\" width=\"{size}\" height=\"{size}\">\
                     <title>{title}</title></rect>",
                    y + 1
                ),
            );
        }
    }
    out.push_str("</svg>\n");
    out
}

/// Explains the colours.
pub(super) fn legend(report: &Report) -> String {
    let mut out = String::from("<ul class=\"legend\">\n");
    let swatch = |class: &str| {
        format!("<svg viewBox=\"0 0 12 12\"><rect class=\"{class}\" width=\"12\" height=\"12\"/></svg>")
    };
    for kind in PageKind::ALL {
        if report.chunks.iter().any(|chunk| chunk.dominant == kind) {
            let name = label(kind.name());
            line(&mut out, format_args!("<li>{}mostly {name}</li>", swatch(&format!("{} s4", class(kind)))));
        }
    }
    out.push_str("</ul>\n<ul class=\"legend\">\n");
    for step in (0..STEPS).rev() {
        let text = match STEPS - 1 - step {
            0 => format!("ratio below {}", STEP_RATIOS[0]),
            last if last == STEPS - 1 => format!("{} and more", STEP_RATIOS[last - 1]),
            from => format!("{} to {}", STEP_RATIOS[from - 1], STEP_RATIOS[from]),
        };
        line(&mut out, format_args!("<li>{}{text}</li>", swatch(&format!("any s{step}"))));
    }
    out.push_str("</ul>\n");
    out
}

/// Number of cells in a row: a power of two, so that rows start at round offsets, and few enough for the map to be wide
/// rather than long.
pub(super) fn columns(chunks: usize) -> usize {
    let mut columns = 16;
    while columns < 128 && chunks.div_ceil(columns) > columns / 2 {
        columns *= 2;
    }
    columns
}

/// How strong the colour of a chunk with this ratio is: 0 to 4.
pub(super) fn step(ratio: f64) -> usize {
    STEP_RATIOS.iter().filter(|&&limit| ratio < limit).count()
}

fn class(kind: PageKind) -> &'static str {
    match kind {
        // An image does not tell which pages were touched.
        PageKind::Untouched | PageKind::Zero => "zero",
        PageKind::Fill => "fill",
        PageKind::Dup => "dup",
        PageKind::Parent | PageKind::Patch => "parent",
        PageKind::WordMarked => "word",
        PageKind::ByteMarked => "byte",
        PageKind::Raw => "raw",
    }
}

fn title(chunk: &ChunkReport) -> String {
    let PageCounts { zero, fill, dup, parent, patch, word_marked, byte_marked, raw } = chunk.pages;
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
    let mut text = format!(
        "chunk {} at {:#x}\n{} in {}: ratio {:.2}",
        chunk.index,
        chunk.offset,
        Size(chunk.bytes),
        Size(chunk.encoded_bytes),
        chunk.ratio
    );
    for (pages, kind) in kinds.iter().filter(|(pages, _)| *pages > 0) {
        write!(text, "\n{pages} {kind}").expect("strings can be written to");
    }
    text
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("strings can be written to");
}
