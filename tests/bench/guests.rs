//! Benches of snapshots and clones: a successful run prints every promised field.

use cloner_testing::{can_restore_lazily, huge_pages, room_for};
use serde_json::Value;

use crate::{MIB, run};

/// The report that the bench prints under its name.
#[track_caller]
fn report(args: &[&str]) -> Value {
    let outcome = run(&[args, &["--json"]].concat());
    outcome.assert_done();
    let mut object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    object[args[0]].take()
}

#[track_caller]
fn assert_positive(report: &Value, pointers: &[&str]) {
    for pointer in pointers {
        let number = report.pointer(pointer).and_then(Value::as_f64);
        assert!(number.is_some_and(|number| number > 0.0), "{pointer} in {report}");
    }
}

#[track_caller]
fn assert_spread(report: &Value, pointer: &str) {
    let of = |part| report.pointer(&format!("{pointer}/{part}")).and_then(Value::as_f64);
    let [p50, p99, max] = ["p50", "p99", "max"].map(|part| of(part).unwrap_or_else(|| panic!("{report}")));
    assert!(0.0 < p50 && p50 <= p99 && p99 <= max, "{pointer} in {report}");
}

#[test]
fn of_live_snapshots_prints_one_json_object() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let report = report(&["live", "--memory", "64M", "--count", "5"]);
    assert_eq!((&report["memory_bytes"], &report["equal"]), (&Value::from(64 * MIB), &Value::from(true)));
    assert_spread(&report, "/pause_ms");
    assert_positive(&report, &["/stop_pause_ms", "/total_ms", "/copied_bytes", "/guest_slowdown"]);
    huge.assert_all_back();
}

#[test]
fn of_forks_prints_one_json_object() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let report = report(&["fork", "--memory", "16M", "--count", "3"]);
    assert_eq!((&report["count"], &report["memory_bytes"]), (&Value::from(3), &Value::from(16 * MIB)));
    for pointer in ["/to_return_ms", "/to_first_output_ms", "/floor_ms"] {
        assert_spread(&report, pointer);
    }
    assert_eq!(report["guest"], "pulse");
    assert_positive(&report, &["/private_bytes_per_fork", "/all_ms"]);
    huge.assert_all_back();
}

/// A quiet Linux is forked: every fork answers, or the bench fails.
#[test]
fn of_forks_of_linux() {
    let Some(_room) = room_for(3) else { return };
    let Some(huge) = huge_pages(0) else { return };
    // The image is built first if necessary, because the bench would not wait that long.
    if cloner_testing::linux::image().is_none() {
        return;
    }
    let args = ["fork", "--linux", "--memory", "128M", "--count", "3", "--json"];
    let outcome = run(&args);
    assert_eq!(outcome.code, 0, "{outcome:?}");
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    assert_eq!(
        (&object["fork"]["guest"], &object["fork"]["count"]),
        (&Value::from("tiny-linux"), &Value::from(3))
    );
    assert_positive(&object["fork"], &["/private_bytes_per_fork", "/all_ms"]);
    huge.assert_all_back();
}

#[test]
fn of_second_snapshots_prints_one_json_object() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let args = ["incremental", "--memory", "64M", "--count", "2", "--dirty", "50", "--json"];
    let outcome = run(&args);
    outcome.assert_done();
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let report = &object["incremental"];
    let number = |key: &str| report[key].as_f64().unwrap_or_else(|| panic!("{key} in {report}"));
    assert!(number("dirtied_bytes") >= number("touched_bytes") / 20.0 * 0.9, "{report}");
    assert!(number("bytes") < number("full_bytes"), "{report}");
    assert!(number("time_ms") > 0.0 && number("full_time_ms") > 0.0, "{report}");
    assert_eq!(report["equal"], true, "{report}");
    huge.assert_all_back();
}

#[test]
fn of_lazy_clones_prints_one_json_object() {
    let Some(_room) = room_for(2) else { return };
    if !can_restore_lazily() {
        return;
    }
    let Some(huge) = huge_pages(0) else { return };
    let args = ["lazy", "--memory", "64M", "--count", "2", "--eager", "1", "--json"];
    let outcome = run(&args);
    outcome.assert_done();
    let object: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let report = &object["lazy"];
    let number = |pointer: &str| {
        report.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} in {report}"))
    };
    for spread in ["/to_first_output_ms", "/fault_us"] {
        let [p50, p99] = ["p50", "p99"].map(|part| number(&format!("{spread}/{part}")));
        assert!(p50 > 0.0 && p99 >= p50, "{report}");
    }
    for pointer in ["/memory_bytes", "/eager_to_first_output_ms", "/complete_ms", "/faults"] {
        assert!(number(pointer) > 0.0, "{pointer} in {report}");
    }
    assert!(number("/working_set/faults") * 10.0 <= number("/faults"), "{report}");
    assert_eq!(report["equal"], true, "{report}");
    huge.assert_all_back();
}

#[test]
fn of_branches_reports_what_was_asked_for() {
    let Some(_room) = room_for(4) else { return };
    let args = ["branch", "--memory", "32M", "--count", "2", "--alive", "2", "--json"];
    let outcome = run(&[&args[..], &["--pages", "ordinary"]].concat());
    assert_eq!((outcome.code, outcome.stderr.as_str()), (0, ""), "{}", outcome.stdout);
    let json: Value = serde_json::from_str(&outcome.stdout).unwrap();
    let branch = &json["branch"];
    assert_eq!(branch["memory_bytes"], 32 * MIB);
    assert_eq!((branch["count"].as_u64(), branch["equal"].as_bool()), (Some(2), Some(true)));
    for times in ["pause_ms", "to_first_output_ms", "pool_to_first_output_ms", "in_a_row_pause_ms"] {
        let [p50, p99] = ["p50", "p99"].map(|at| branch[times][at].as_f64().unwrap());
        assert!(p50 > 0.0 && p99 >= p50, "{times}: {json}");
    }
}
