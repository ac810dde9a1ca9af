//! `cloner demo`.

use std::collections::HashSet;

use cloner_testing::program::Outcome;
use cloner_testing::room::{can_set_huge_pages_aside, may_set_huge_pages_aside};
use cloner_testing::{huge_pages, room_for};
use serde_json::Value;

use crate::{MIB, run};

/// The only JSON object on standard output of a successful demo.
#[track_caller]
fn object(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert!(object.is_object(), "{object}");
    object
}

#[track_caller]
fn number(object: &Value, pointer: &str) -> f64 {
    let number = object.pointer(pointer).and_then(Value::as_f64);
    number.unwrap_or_else(|| panic!("no number {pointer} in {object}"))
}

/// A number that must be greater than zero, because something was done.
#[track_caller]
fn positive(object: &Value, pointer: &str) -> f64 {
    let number = number(object, pointer);
    assert!(number > 0.0 && number.is_finite(), "{pointer} is {number} in {object}");
    number
}

/// Checks every promised field, and what it must say about a real clone.
#[track_caller]
fn check(object: &Value, guest: &str, memory_bytes: u64, clones: usize) {
    assert_eq!(object["guest"], guest);
    assert_eq!(object["memory_bytes"], memory_bytes);
    let touched = positive(object, "/touched_bytes");
    positive(object, "/pause_ms");
    assert_eq!(object["source_resumed"], true);
    let seconds = positive(object, "/encode/seconds");
    let touched_gbps = positive(object, "/encode/touched_gbps");
    assert!((touched / seconds / 1e9 / touched_gbps - 1.0).abs() < 0.01, "{object}");
    assert!(positive(object, "/encode/logical_gbps") >= touched_gbps);
    positive(object, "/memcpy_gbps");
    let pool = positive(object, "/pool/bytes");
    // A user who may not set huge pages aside may still find some that are free.
    if object["pool"]["hugepages"] == false {
        assert!(may_set_huge_pages_aside().is_err(), "{object}");
        let backing = object["pool"]["backing"].as_str().unwrap();
        assert!(backing.starts_with("ordinary pages: ") && backing.contains("vm.nr_hugepages="), "{backing}");
    } else {
        assert_eq!(object["pool"]["hugepages"], true);
    }
    let ratio = positive(object, "/ratio");
    assert!((touched / pool / ratio - 1.0).abs() < 0.01, "{object}");

    let kinds = ["untouched", "zero", "fill", "dup", "marked", "raw"];
    let pages: f64 = kinds.iter().map(|kind| number(object, &format!("/pages/{kind}"))).sum();
    // An untouched page can be part of a huge page that the guest has touched, and then is not counted as untouched.
    #[expect(clippy::cast_precision_loss, reason = "a few hundred MiB")]
    let all = memory_bytes as f64 / 4096.0;
    assert!((pages - all).abs() < 1.0, "{pages} pages of {all}: {object}");

    let list = object["clones"].as_array().unwrap();
    assert_eq!(list.len(), clones);
    let ids: HashSet<&str> = list.iter().map(|clone| clone["id"].as_str().unwrap()).collect();
    assert!(ids.len() == clones && ids.iter().all(|id| id.len() == 32), "{object}");
    for clone in list {
        assert!(clone["mode"].is_string(), "{clone}");
        positive(clone, "/decode_gbps");
        positive(clone, "/build_ms");
        assert!(positive(clone, "/first_output_ms") >= number(clone, "/build_ms"), "{clone}");
        assert_eq!(
            (&clone["memory_equal"], &clone["verified"]),
            (&Value::Bool(true), &Value::Bool(true)),
            "{clone}"
        );
    }
}

#[test]
fn prints_one_json_object() {
    let Some(_room) = room_for(3) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let outcome = run(&["demo", "--json", "--memory", "64M"]);
    check(&object(&outcome), "pulse", 64 * MIB, 2);
    outcome.assert_done();
    huge.assert_all_back();
}

#[test]
fn goes_on_for_generations_on_several_vcpus_and_huge_pages() {
    let Some(_room) = room_for(3) else { return };
    if !can_set_huge_pages_aside() {
        return;
    }
    let Some(huge) = huge_pages(0) else { return };
    let args = [
        "demo",
        "--json",
        "--memory",
        "32M",
        "--cpus",
        "4",
        "--clones",
        "2",
        "--generations",
        "3",
        "--hugepages",
    ];
    let object = object(&run(&args));
    check(&object, "pulse", 32 * MIB, 6);
    let generations = object["generations"].as_array().unwrap();
    let numbers: Vec<&Value> = generations.iter().map(|generation| &generation["generation"]).collect();
    assert_eq!(numbers, [1, 2, 3]);
    // Two clones of each.
    let of_clones: Vec<&Value> =
        object["clones"].as_array().unwrap().iter().map(|clone| &clone["generation"]).collect();
    assert_eq!(of_clones, [1, 1, 2, 2, 3, 3]);
    assert!(generations.iter().all(|generation| generation["source_resumed"] == true), "{object}");
    huge.assert_all_back();
}

/// Source, its clones, their clones: they have the same nonce, their ticks go on, and none of them boots.
#[test]
fn clones_a_running_linux_for_three_generations() {
    let Some(_room) = room_for(4) else { return };
    let Some(huge) = huge_pages(0) else { return };
    // The image is built first if necessary, because the demo would not wait that long.
    if cloner_testing::linux::image().is_none() {
        return;
    }
    let args = ["demo", "--linux", "--json", "--memory", "128M", "--clones", "2", "--generations", "3"];
    check(&object(&run(&args)), "tiny-linux", 128 * MIB, 6);
    huge.assert_all_back();
}

#[test]
fn tells_the_story() {
    let Some(_room) = room_for(3) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let outcome = run(&["demo", "--memory", "64M", "--clones", "2"]);
    outcome.assert_done();
    let stdout = &outcome.stdout;
    for start in ["source", "booted", "paused", "encoded", "pool", "pages", "clone", "1.1", "1.2"] {
        let lines = stdout.lines().filter(|line| line.split_whitespace().next() == Some(start)).count();
        assert_eq!(lines, 1, "{start:?} in {stdout}");
    }
    let pages = if outcome.stderr.is_empty() { "huge pages of 2 MiB" } else { "in ordinary pages\n" };
    for text in [pages, "the source runs on", "equal", "same nonce, goes on", "GB/s"] {
        assert!(stdout.contains(text), "{text:?} is missing in {stdout}");
    }
    huge.assert_all_back();
}

/// What happens is printed on standard error, so that standard output is still one object.
#[test]
fn says_more_on_standard_error() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let outcome = run(&["-v", "demo", "--json", "--memory", "16M", "--clones", "1"]);
    check(&object(&outcome), "pulse", 16 * MIB, 1);
    assert!(outcome.stderr.contains("INFO"), "{}", outcome.stderr);
    huge.assert_all_back();
}

#[test]
fn says_when_it_does_not_compare() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let object = object(&run(&["demo", "--json", "--memory", "16M", "--clones", "1", "--no-compare"]));
    assert_eq!(object["clones"][0]["memory_equal"], Value::Null);
    assert_eq!(object["clones"][0]["verified"], true);
    huge.assert_all_back();
}
