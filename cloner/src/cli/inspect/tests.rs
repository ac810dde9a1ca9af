use serde_json::Value;

use super::report::Report;
use super::{html, map, table};
use crate::measure::{HotEncoder, tests::image};
use crate::walk::Progress;

const PAGES: usize = 1100;

fn report(name: &str) -> Report {
    let hot = HotEncoder::new(2).unwrap().encode(&image(PAGES), None, &Progress::default()).unwrap();
    Report::new(name.to_owned(), hot.chunk_stats())
}

#[test]
fn json_adds_up() {
    let json: Value = serde_json::from_str(&report("synthetic").json()).unwrap();
    let number = |value: &Value| value.as_f64().unwrap();
    let sum = |list: &Value, key: &str| -> u64 {
        list.as_array().unwrap().iter().map(|item| item[key].as_u64().unwrap()).sum()
    };
    assert_eq!(json["bytes"], PAGES * 4096);
    assert_eq!(sum(&json["kinds"], "pages"), PAGES as u64);
    assert_eq!(sum(&json["chunks"], "bytes"), PAGES as u64 * 4096);
    assert_eq!(sum(&json["chunks"], "encoded_bytes"), json["encoded_bytes"]);
    // All but headers and slack is counted for some kind.
    let rest = json["encoded_bytes"].as_u64().unwrap() - sum(&json["kinds"], "encoded_bytes");
    assert!(rest <= 3 * 64, "{rest}");
    assert!((number(&json["ratio"]) - number(&json["bytes"]) / number(&json["encoded_bytes"])).abs() < 1e-9);
    let word_marked = json["pages"]["word_marked"].as_u64().unwrap();
    assert_eq!(json["vector_count"], word_marked * 512);
    assert_eq!(sum(&json["vectors"], "vectors"), word_marked * 512);

    let spread = &json["chunk_ratio"];
    let ratio =
        |index: &Value| number(&json["chunks"][usize::try_from(index.as_u64().unwrap()).unwrap()]["ratio"]);
    assert_eq!(ratio(&spread["worst"][0]), number(&spread["min"]));
    assert_eq!(ratio(&spread["best"][0]), number(&spread["max"]));
    assert_eq!(ratio(&spread["worst"][1]), number(&spread["median"]), "the middle one of three chunks");
}

#[test]
fn the_page_is_whole_and_names_are_escaped() {
    let page = html::page(&report("<b>\"R&D\"</b>.raw"));
    assert!(page.contains("&lt;b&gt;&quot;R&amp;D&quot;&lt;/b&gt;.raw") && !page.contains("<b>"));
    assert_eq!(page.matches("<title>").count(), 1 + PAGES.div_ceil(512), "the page's and each cell's");
    for tag in ["html", "head", "body", "table", "tr", "td", "th", "ul", "li", "svg", "rect", "div", "h2"] {
        let opened = page.matches(&format!("<{tag}>")).count() + page.matches(&format!("<{tag} ")).count();
        let closed = page.matches(&format!("</{tag}>")).count() + self_closed(&page, tag);
        assert_eq!(opened, closed, "{tag}");
    }
    for outside in ["http:", "https:", "url(", "<script", "<link", "@import"] {
        assert!(!page.contains(outside), "{outside}");
    }
}

fn self_closed(page: &str, tag: &str) -> usize {
    page.split(&format!("<{tag} "))
        .skip(1)
        .filter(|rest| rest.split('>').next().unwrap().ends_with('/'))
        .count()
}

#[test]
fn text_is_escaped_everywhere_it_matters() {
    assert_eq!(html::escape("a < b && 'c' > \"d\""), "a &lt; b &amp;&amp; &#39;c&#39; &gt; &quot;d&quot;");
    assert_eq!(html::escape("größer"), "größer");
}

#[test]
fn maps_are_wide_and_their_rows_round() {
    for (chunks, columns) in [(1, 16), (64, 16), (128, 16), (129, 32), (2048, 64), (32_768, 128)] {
        assert_eq!(map::columns(chunks), columns, "{chunks}");
    }
    let steps = [0.99, 1.5, 2.49, 2.5, 19.0, 20.0, 1000.0].map(map::step);
    assert_eq!(steps, [4, 3, 3, 2, 1, 0, 0]);
}

#[test]
fn the_table_names_what_is_there() {
    let text = table::of(&report("synthetic"));
    for wanted in
        ["zero", "fill", "dup", "word-marked", "byte-marked", "raw", "3 chunks", "worst: chunk", "repeat"]
    {
        assert!(text.contains(wanted), "{wanted} in {text}");
    }
    assert!(!text.contains("patch"));
}
