use std::fs;
use std::path::PathBuf;

use cloner_codec::chunk::Form;
use serde_json::Value;

use cloner::image::{EncodeOptions, HotEncoder};
use cloner::walk::Threads;
use cloner_testing::image;

use super::escape::escape;
use super::report::Report;
use super::source::{Error, InspectSource, SourceKind};
use super::{html, map, table};

const PAGES: usize = 1100;

fn report(name: &str) -> Report {
    let hot =
        HotEncoder::new(&Threads::new(2).unwrap()).encode(&image(PAGES), &EncodeOptions::default()).unwrap();
    Report::new(name.to_owned(), SourceKind::Image, hot.chunk_stats())
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
    // Everything but headers and slack is counted for some kind.
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
    assert_eq!(
        page.matches("<title>").count(),
        1 + PAGES.div_ceil(512),
        "one for the page and one for each cell"
    );
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
    assert_eq!(escape("a < b && 'c' > \"d\""), "a &lt; b &amp;&amp; &#39;c&#39; &gt; &quot;d&quot;");
    assert_eq!(escape("größer"), "größer");
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

const HOT: &[u8] = include_bytes!("../../../codec/src/hot/tests/golden/v2-every-kind.chunk");
const COLD: &[u8] = include_bytes!("../../../codec/src/cold/tests/golden/v2-every-kind.chunk");

/// A file with these bytes, for one test.
struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str, bytes: &[u8]) -> Self {
        let path = std::env::temp_dir().join(format!("cloner-inspect-{}-{name}", std::process::id()));
        fs::write(&path, bytes).unwrap();
        Self(path)
    }

    fn inspect(&self) -> Result<Report, Error> {
        let source = InspectSource::read(&self.0)?;
        Ok(Report::new(String::from("file"), source.what(), &source.chunks(&self.0)?))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.0));
    }
}

#[test]
fn a_chunk_is_known_by_its_first_bytes() {
    let pages = |report: &Report| report.kinds.iter().map(|kind| kind.pages).sum::<u64>();
    let hot = Temporary::new("hot", HOT).inspect().unwrap();
    assert_eq!((hot.what, hot.encoded_bytes, pages(&hot)), (SourceKind::HotChunk, HOT.len() as u64, 12));
    assert_eq!(hot.kinds.len(), 9, "every kind: {:?}", hot.kinds);
    assert_eq!(hot.vector_count, hot.pages.word_marked * 512);
    let text = table::of(&hot);
    assert!(text.starts_with("chunk     file: 48 KiB\nhot form  "), "{text}");
    assert!(text.contains("patch") && text.contains("repeat") && !text.contains("worst"), "{text}");

    let cold = Temporary::new("cold", COLD).inspect().unwrap();
    assert_eq!((cold.what, cold.encoded_bytes, pages(&cold)), (SourceKind::ColdChunk, COLD.len() as u64, 56));
    assert_eq!((cold.pages.raw, cold.vector_count), (34, 0));
    // All but the header is counted for some kind.
    assert_eq!(cold.kinds.iter().map(|kind| kind.encoded_bytes).sum::<u64>(), COLD.len() as u64 - 24);
    assert!(table::of(&cold).contains("cold form ") && html::page(&cold).contains("of cold form"));

    let mut padded = HOT[1..].to_vec();
    padded.resize(8192, 0);
    let image = Temporary::new("image", &padded).inspect().unwrap();
    assert_eq!((image.what, image.bytes), (SourceKind::Image, 8192));
}

#[test]
fn what_is_no_whole_chunk_is_refused_by_name() {
    let inspect = |bytes: &[u8]| Temporary::new("damaged", bytes).inspect().unwrap_err();
    let mut flipped = HOT.to_vec();
    flipped[3000] ^= 1;
    assert!(matches!(inspect(&flipped), Error::File { form: Form::Hot, .. }));
    assert!(matches!(inspect(&HOT[..HOT.len() - 1]), Error::File { form: Form::Hot, .. }));
    assert!(matches!(inspect(&COLD[..20]), Error::File { form: Form::Cold, .. }));
    assert!(matches!(inspect(&[HOT, &vec![0; 4 << 20]].concat()), Error::Large { .. }));
    let nothing = InspectSource::read(&std::env::temp_dir().join("cloner-inspect-nothing")).unwrap_err();
    assert!(matches!(nothing, Error::Image(_)), "{nothing}");
}
