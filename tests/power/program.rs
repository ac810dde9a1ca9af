//! Runs the program: power loss from end to end, battery plans, and flush folders.

use std::fs;

use cloner_testing::folder::Folder as Temporary;
use cloner_testing::program::Outcome;
use cloner_testing::{huge_pages, note, room_for};
use rustix::process::Signal;
use serde_json::Value;

use super::snapshots::{fill, flusher, folder, pool};
use crate::{PROGRAM, run};

#[track_caller]
fn object(outcome: &Outcome) -> Value {
    assert_eq!(outcome.code, 0, "{outcome:?}");
    serde_json::from_str(&outcome.stdout).unwrap()
}

#[track_caller]
fn assert_survived(object: &Value) {
    for field in ["killed", "memory_equal", "same_nonce", "verified"] {
        assert_eq!(object[field], true, "{field} in {object}");
    }
    assert_eq!((&object["recovered"], &object["dropped"]), (&Value::from(1), &Value::from(0)), "{object}");
    note(format_args!(
        "power loss: {} flushed in {:.0} ms, recovered in {:.0} ms, clone answers after {:.0} ms",
        object["file_bytes"],
        object["before"]["flush_ms"].as_f64().unwrap(),
        object["recover_ms"].as_f64().unwrap(),
        object["clone_ms"].as_f64().unwrap(),
    ));
}

#[test]
fn a_guest_survives_a_power_loss() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let folder = Temporary::new();
    let dir = folder.path().to_str().unwrap();
    assert_survived(&object(&run(&["demo", "--power-loss", "--json", "--memory", "64M", "--dir", dir])));
    huge.assert_all_back();

    // What the demo left is a snapshot that can be inspected.
    let inspected = object(&run(&["inspect", dir, "--json"]));
    assert_eq!((&inspected["what"], &inspected["bytes"]), (&"snapshot".into(), &(64 << 20).into()));
    let chunks = inspected["chunks"].as_array().unwrap();
    assert_eq!(chunks.len(), 32);
    let unstored = chunks.iter().filter(|chunk| chunk["encoded_bytes"] == 0);
    assert!(unstored.clone().count() > 0 && unstored.clone().all(|chunk| chunk["ratio"].is_null()));
    let unique = ["word_marked", "byte_marked", "raw"].map(|kind| inspected["pages"][kind].as_u64().unwrap());
    assert!(unique.iter().sum::<u64>() > 0, "{inspected}");
    run(&["inspect", dir, "--snapshot", "nobody"]).assert_failed(1, &["nobody"]);
    run(&["inspect", "Cargo.toml", "--snapshot", "nobody"]).assert_failed(1, &["Cargo.toml", "flush folder"]);
}

#[test]
fn a_linux_survives_a_power_loss() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    // The image is built first if necessary, because the demo would not wait that long.
    if cloner_testing::linux::image().is_none() {
        return;
    }
    let args = ["demo", "--power-loss", "--linux", "--json", "--memory", "128M"];
    assert_survived(&object(&run(&args)));
    huge.assert_all_back();
}

/// A battery that protects less than the snapshot: the snapshot is refused with the numbers, before anything is lost.
#[test]
fn a_battery_that_is_too_small_is_named() {
    let Some(_room) = room_for(1) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let outcome = run(&["demo", "--power-loss", "--memory", "64M", "--capacity", "0.5"]);
    outcome.assert_failed(1, &["the battery protects", "not admitted"]);
    huge.assert_all_back();
}

#[test]
fn plans_batteries_for_pools_and_pools_for_batteries() {
    let args = ["battery", "plan", "--pool", "8G", "--bandwidth", "1G", "--load", "100", "--json"];
    let plan = object(&run(&args));
    let rows = plan["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 4);
    let (needed, flush) = (rows[2]["capacity_j"].as_f64().unwrap(), rows[2]["flush_s"].as_f64().unwrap());
    assert!((flush - 8.32).abs() < 0.01, "{plan}");
    assert!(needed > flush * 100.0, "{plan}");
    // The battery found protects that pool and not much more.
    let capacity = needed.to_string();
    let args = ["battery", "plan", "--capacity", &capacity, "--bandwidth", "1G", "--load", "100", "--json"];
    let back = object(&run(&args));
    let bytes = back["rows"][1]["pool_bytes"].as_u64().unwrap();
    assert!(bytes.abs_diff(8 << 30) < 8 << 20, "{bytes}");

    let folder = Temporary::new();
    let dir = folder.path().to_str().unwrap();
    let measured = object(&run(&["battery", "plan", "--pool", "1G", "--device", dir, "--json"]));
    assert_eq!(measured["measured"], true);
    assert!(measured["bandwidth_bytes_per_second"].as_f64().unwrap() > 1e6, "{measured}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "the measurement left files behind");
    let table = run(&["battery", "plan", "--pool", "1G", "--bandwidth", "500M"]);
    assert!(table.stdout.contains("battery Wh") && table.stdout.contains("1 GiB"), "{table:?}");

    run(&["battery", "plan", "--pool", "1G"]).assert_failed(2, &["--device", "--bandwidth"]);
    run(&["battery", "plan", "--bandwidth", "1G"]).assert_failed(2, &["--pool", "--capacity"]);
    let wrong = ["battery", "plan", "--pool", "1G", "--bandwidth", "1G", "--margin", "1"];
    run(&wrong).assert_failed(1, &["margin is 1", "0 to below 1"]);
}

#[test]
fn looks_after_folders() {
    let [source, target, back] = [Temporary::new(), Temporary::new(), Temporary::new()];
    let host = fs::read_to_string("/etc/machine-id").unwrap_or_default();
    let path = |folder: &Temporary| folder.path().to_str().unwrap().to_owned();
    let (dir, to, again) = (path(&source), path(&target), path(&back));
    {
        let (pool, folder) = (pool(), std::sync::Arc::new(folder(source.path())));
        let flusher = flusher(&pool, &folder);
        for number in [7, 8] {
            let stored = fill(pool.reserve(&format!("n{number}")).unwrap(), number);
            flusher.flush_snapshot(&stored, cloner::progress::Watch::default()).unwrap();
        }
    }
    // The tests' folders belong to a host called "here".
    let refused = run(&["pool", "ls", "--dir", &dir]);
    refused.assert_failed(1, &["belongs to host here", "--adopt"]);
    let listed = object(&run(&["pool", "ls", "--dir", &dir, "--adopt", "--json"]));
    assert_eq!(listed["snapshots"].as_array().unwrap().len(), 2, "{listed} on {host}");
    let checked = run(&["pool", "check", "--dir", &dir]);
    assert!(checked.code == 0 && checked.stdout.contains("in 2 snapshots"), "{checked:?}");

    let exported = run(&["pool", "export", "n7", "--dir", &dir, "--to", &to]);
    assert!(exported.code == 0 && exported.stdout.contains("copied    n7"), "{exported:?}");
    run(&["pool", "export", "nobody", "--dir", &dir, "--to", &to]).assert_failed(1, &["nobody"]);
    object(&run(&["pool", "import", "--dir", &again, "--from", &to, "--json"]));
    run(&["pool", "import", "--dir", &again, "--from", &to]).assert_failed(1, &["n7"]);
    let imported = object(&run(&["pool", "check", "--dir", &again, "--json"]));
    assert_eq!(imported["snapshots"][0]["name"], "n7", "{imported}");

    assert_eq!(run(&["pool", "rm", "n7", "--dir", &dir]).code, 0);
    run(&["pool", "rm", "n7", "--dir", &dir]).assert_failed(1, &["n7"]);
    // One byte of the remaining snapshot is damaged.
    let is_snapshot = |path: &std::path::PathBuf| path.extension().is_some_and(|kind| kind == "snapshot");
    let files = fs::read_dir(source.path()).unwrap().map(|entry| entry.unwrap().path());
    let file = files.into_iter().find(is_snapshot).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    bytes[5000] ^= 1;
    fs::write(&file, bytes).unwrap();
    let damaged = run(&["pool", "check", "--dir", &dir]);
    assert!(damaged.code == 1 && damaged.stdout.contains("chunk 0: checksum"), "{damaged:?}");
    run(&["pool", "ls", "--dir", "/nowhere/at/all"]).assert_failed(1, &["/nowhere/at/all"]);
    // Another process has the folder open.
    let _open = cloner::flush::files::RealFiles::open(source.path()).unwrap();
    run(&["pool", "ls", "--dir", &dir]).assert_failed(1, &["in use by another process"]);
}

#[test]
fn ends_a_power_loss_when_interrupted() {
    let Some(_room) = room_for(2) else { return };
    let Some(huge) = huge_pages(0) else { return };
    let folder = Temporary::new();
    let dir = folder.path().to_str().unwrap();
    let args = ["demo", "--power-loss", "--memory", "512M", "--dir", dir];
    let program = PROGRAM.start(&args);
    program.stdout.line("folder");
    program.signal(Signal::INT);
    let outcome = program.finish();
    assert!([0, 1, 130].contains(&outcome.code) && !outcome.stderr.contains("panicked"), "{outcome:?}");
    huge.assert_all_back();
}
