//! The report as one HTML page that loads nothing else: no scripts, no fonts, no network.

use std::fmt::Write as _;

use super::escape::escape;
use super::report::Report;
use super::{map, table};
use crate::columns::Columns;
use crate::size::Size;

/// The style sheet, with every colour of the page for light and dark screens.
const STYLE: &str = "\
:root { color-scheme: light dark; --paper: #fcfcfb; --ink: #1d1f21; --faint: #6b7075; --rule: #dcdfe2;
  --zero: #8b949e; --fill: #b08800; --dup: #8250df; --parent: #1b7c83; --word: #0969da; --byte: #1a7f37; --raw: #cf222e; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171a; --ink: #e3e6e9; --faint: #98a0a8; --rule: #30363d;
  --zero: #8b949e; --fill: #d4a72c; --dup: #a371f7; --parent: #39c5cf; --word: #4b9bff; --byte: #46b45c; --raw: #ff6a69; } }
body { margin: 2rem auto; padding: 0 1.25rem; max-width: 62rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 1.35rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.05rem; margin: 2.25rem 0 .75rem; }
p { margin: .25rem 0; color: var(--faint); }
p.sum { margin-top: .5rem; font-size: 1.05rem; color: var(--ink); }
svg.map { display: block; width: 100%; height: auto; }
svg.map text { font: 8px system-ui, sans-serif; fill: var(--faint); }
svg.map rect { stroke: currentColor; stroke-opacity: .18; stroke-width: .5; }
svg.map rect:hover { stroke-opacity: 1; stroke-width: 1.5; }
.zero { fill: var(--zero); } .fill { fill: var(--fill); } .dup { fill: var(--dup); } .parent { fill: var(--parent); }
.word { fill: var(--word); } .byte { fill: var(--byte); } .raw { fill: var(--raw); } .any { fill: var(--ink); }
.s0 { fill-opacity: .14; } .s1 { fill-opacity: .34; } .s2 { fill-opacity: .55; } .s3 { fill-opacity: .77; } .s4 { fill-opacity: 1; }
ul.legend { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; margin: .6rem 0 0; padding: 0; list-style: none; font-size: .87rem; }
ul.legend svg { width: .9em; height: .9em; margin-right: .45em; vertical-align: -.08em; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: .28rem 0 .28rem 1.75rem; text-align: right; border-bottom: 1px solid var(--rule); white-space: nowrap; }
th { font-weight: 600; }
th:first-child, td:first-child { padding-left: 0; text-align: left; }";

/// Builds the page.
pub(super) fn page(report: &Report) -> String {
    let Report { image, what, bytes, encoded_bytes, ratio, dictionary_entries, byte_markers, .. } = report;
    let image = escape(image);
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Memory of {image}</title>\n<style>\n{STYLE}\n</style>\n</head>\n<body>\n\
         <h1>Memory of {image}</h1>\n\
         <p class=\"sum\">{} of memory in {} of {}: ratio {ratio:.2}</p>\n\
         <p>{dictionary_entries} dictionary entries, {byte_markers} byte markers</p>\n",
        Size(*bytes),
        Size(*encoded_bytes),
        what.form(),
    );
    out.push_str("<h2>Map</h2>\n");
    out.push_str(&map::svg(report));
    out.push_str(&map::legend(report));
    section(&mut out, "Kinds of pages", &table::kinds(report));
    section(&mut out, "Classes of vectors", &table::vectors(report));
    section(&mut out, "Chunks", &table::chunks(report));
    out.push_str("</body>\n</html>\n");
    out
}

fn section(out: &mut String, heading: &str, table: &Columns) {
    let mut rows = table.rows();
    let Some(headings) = rows.next().filter(|_| !table.is_empty()) else { return };
    let cells = |name: &str, row: &[String]| -> String {
        row.iter().map(|cell| format!("<{name}>{}</{name}>", escape(cell))).collect()
    };
    write!(
        out,
        "<h2>{heading}</h2>\n<div class=\"scroll\"><table>\n<thead><tr>{}</tr></thead>\n<tbody>\n",
        cells("th", headings)
    )
    .expect("strings can be written to");
    for row in rows {
        let missing = "<td></td>".repeat(headings.len() - row.len());
        writeln!(out, "<tr>{}{missing}</tr>", cells("td", row)).expect("strings can be written to");
    }
    out.push_str("</tbody>\n</table></div>\n");
}
