use cloner_codec::chunk::{HEADER_BYTES, MAP_ENTRY_BYTES};
use cloner_codec::cold;
use serde_json::Value;

use crate::measure::Image;
use cloner::progress::Watch;
use cloner_testing::image;

use super::codec::{Plan, measure, thread_counts};
use super::report::Report;
use super::table;

const PAGES: usize = 600;

fn report(parent: Option<&Image>) -> Report {
    let plan = Plan { threads: 3, rounds: 1, cold: cold::ColdOptions::default() };
    measure("synthetic", &image(PAGES), parent, plan, Watch::default()).unwrap()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is not a number"))
}

fn near(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-9 * right.abs(), "{left} and {right}");
}

#[test]
fn json_has_the_documented_keys() {
    let json: Value = serde_json::from_str(&report(None).json()).unwrap();
    let sorted = |mut keys: Vec<&'static str>| {
        keys.sort_unstable();
        keys
    };
    let expect = |value: &Value, wanted: &[&'static str]| {
        let mut found = keys(value);
        found.sort_unstable();
        assert_eq!(found, sorted(wanted.to_vec()));
    };
    expect(
        &json,
        &[
            "image",
            "bytes",
            "pages",
            "memcpy_gbps",
            "hot",
            "unique",
            "word_marked",
            "cold",
            "baselines",
            "threads",
        ],
    );
    expect(&json["pages"], &["zero", "fill", "dup", "parent", "patch", "word_marked", "byte_marked", "raw"]);
    expect(&json["hot"], &["bytes", "ratio", "encode_gbps", "decode_gbps", "page_us"]);
    expect(&json["hot"]["page_us"], &["p50", "p99"]);
    expect(&json["unique"], &["pages", "ratio", "encode_gbps", "decode_gbps"]);
    expect(&json["word_marked"], &["pages", "ratio", "decode_gbps", "lz4_decode_gbps_same_pages"]);
    expect(&json["cold"], &["level", "bytes", "ratio", "encode_gbps", "decode_gbps", "unique"]);
    expect(&json["cold"]["unique"], &["ratio", "encode_gbps", "decode_gbps"]);
    expect(&json["baselines"], &["lz4_4k", "zstd1_4k", "zstd1_64k", "zstd1_2m"]);
    let blocks = ["unique_ratio", "image_ratio", "encode_gbps", "decode_gbps"];
    for (key, baseline) in json["baselines"].as_object().unwrap() {
        let pages: &[&str] = if key.ends_with("_4k") { &["page_us"] } else { &[] };
        expect(baseline, &[&blocks, pages].concat());
    }
    json["threads"]
        .as_array()
        .unwrap()
        .iter()
        .for_each(|row| expect(row, &["n", "encode_gbps", "decode_gbps"]));
}

#[test]
fn numbers_agree_with_each_other() {
    let json: Value = serde_json::from_str(&report(None).json()).unwrap();
    let pages = json["pages"].as_object().unwrap();
    assert_eq!(pages.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), PAGES as u64);
    assert_eq!(pages["zero"], PAGES / 6);
    let unique: u64 =
        ["word_marked", "byte_marked", "raw"].iter().map(|kind| pages[*kind].as_u64().unwrap()).sum();
    assert_eq!(json["unique"]["pages"], unique);
    assert_eq!(json["word_marked"]["pages"], pages["word_marked"]);

    let (bytes, hot) = (number(&json["bytes"]), &json["hot"]);
    near(number(&hot["ratio"]), bytes / number(&hot["bytes"]));
    // What is stored for the unique pages is stored in the image as well, which has at least as much around them.
    let unique_bytes = unique as f64 * 4096.0;
    let around = 2.0 * HEADER_BYTES as f64 + (PAGES * MAP_ENTRY_BYTES) as f64;
    assert!(unique_bytes / number(&json["unique"]["ratio"]) < number(&hot["bytes"]));
    assert!(
        number(&hot["bytes"]) - unique_bytes / number(&json["unique"]["ratio"]) < around + 8.0 * PAGES as f64
    );
    for baseline in json["baselines"].as_object().unwrap().values() {
        let coded = unique_bytes / number(&baseline["unique_ratio"]);
        near(number(&baseline["image_ratio"]), bytes / (coded + 8.0 * PAGES as f64));
        assert!(number(&baseline["encode_gbps"]) > 0.0 && number(&baseline["decode_gbps"]) > 0.0);
    }
    let cold = &json["cold"];
    assert_eq!(cold["level"], 1);
    near(number(&cold["ratio"]), bytes / number(&cold["bytes"]));
    // The cold form has two frames or more of the same pages, and what is needed to find them: that must cost hardly anything.
    let zstd = &json["baselines"]["zstd1_64k"];
    assert!(number(&cold["ratio"]) > 0.98 * number(&zstd["image_ratio"]), "{cold} {zstd}");
    for speeds in [cold, &cold["unique"]] {
        assert!(number(&speeds["encode_gbps"]) > 0.0 && number(&speeds["decode_gbps"]) > 0.0);
    }
    for page_us in [&hot["page_us"], &json["baselines"]["lz4_4k"]["page_us"]] {
        assert!(number(&page_us["p50"]) > 0.0 && number(&page_us["p50"]) <= number(&page_us["p99"]));
    }
    let threads: Vec<u64> =
        json["threads"].as_array().unwrap().iter().map(|row| row["n"].as_u64().unwrap()).collect();
    assert_eq!(threads, [1, 2, 3]);
    assert_eq!(json["threads"][0]["encode_gbps"], hot["encode_gbps"]);
}

#[test]
fn a_parent_adds_a_child() {
    let report = report(Some(&image(PAGES)));
    let json: Value = serde_json::from_str(&report.json()).unwrap();
    let child = &json["child"];
    let pages = child["pages"].as_object().unwrap();
    assert_eq!(pages.values().map(|count| count.as_u64().unwrap()).sum::<u64>(), PAGES as u64);
    assert_eq!(pages["parent"], PAGES - PAGES / 6 * 2, "zero and fill need no parent");
    assert!(number(&child["bytes"]) < number(&json["hot"]["bytes"]) / 10.0);
    assert_eq!(child["full_encode_gbps"], json["hot"]["encode_gbps"]);
    assert!(table::of(&report).contains("as a child of its parent"));
}

#[test]
fn an_image_without_unique_pages_has_dashes_instead_of_figures() {
    let image = Image::from_bytes(vec![0; 4096]).unwrap();
    let plan = Plan { threads: 1, rounds: 2, cold: cold::ColdOptions { level: 19 } };
    let report = measure("zero", &image, None, plan, Watch::default()).unwrap();
    let json: Value = serde_json::from_str(&report.json()).unwrap();
    assert_eq!(json["unique"]["ratio"], Value::Null);
    assert_eq!(json["hot"]["page_us"], Value::Null);
    assert_eq!(json["cold"]["unique"]["ratio"], Value::Null);
    assert_eq!(json["cold"]["level"], 19);
    assert_eq!(number(&json["baselines"]["lz4_4k"]["image_ratio"]), 512.0);
    let text = table::of(&report);
    assert!(text.contains("0 unique pages") && text.contains("cold form of level 19"));
    assert!(text.contains("0 unique pages") && !text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn thread_counts_double_up_to_the_last() {
    let counts = |most| thread_counts(most).collect::<Vec<_>>();
    assert_eq!(counts(1), [1]);
    assert_eq!(counts(2), [1, 2]);
    assert_eq!(counts(6), [1, 2, 4, 6]);
    assert_eq!(counts(8), [1, 2, 4, 8]);
}
