//! Benches that need no machine: a flush, and invalid command lines.

use std::fs;

use cloner_testing::folder::Folder;
use serde_json::Value;

use crate::run;

#[test]
fn of_a_flush_in_both_forms() {
    let folder = Folder::new();
    let dir = folder.path().to_str().unwrap();
    for form in ["hot", "cold"] {
        let args = ["flush", "--bytes", "8M", "--rounds", "1", "--dir", dir, "--form", form, "--json"];
        let outcome = run(&args);
        outcome.assert_done();
        let report: Value = serde_json::from_str(&outcome.stdout).unwrap();
        for field in [
            "bytes",
            "flush_gbps",
            "device_gbps",
            "recover_gbps",
            "recover_limit_gbps",
            "holdup_s",
            "budget_bytes",
            "used_s",
        ] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{field} in {report}");
        }
        assert_eq!(report["form"], form);
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the bench left files behind");
}

#[test]
fn impossible_levels_are_named() {
    for level in ["0", "23", "-1"] {
        let outcome = run(&["codec", "--image", "x", "--cold-level", level]);
        outcome.assert_failed(2, &["--cold-level", level, "1..=22"]);
        assert_eq!(outcome.stdout, "");
    }
}

#[test]
fn help_names_every_command() {
    let outcome = run(&["--help"]);
    outcome.assert_done();
    for command in ["codec", "branch", "fork", "live", "flush", "lazy", "incremental"] {
        assert!(outcome.stdout.contains(command), "{command} is missing in {}", outcome.stdout);
    }
    assert!(!outcome.stdout.contains("zygote"), "{}", outcome.stdout);
}
