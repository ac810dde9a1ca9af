//! Makes the power fail at every operation, and after every few bytes. What was not synced is lost, torn and reordered.

use std::collections::BTreeMap;
use std::io;

use super::super::files::faulty::{Fault, FaultyFiles};
use super::super::*;
use super::scene::{Content, Scene, contents, recover};

/// What has been promised by the end of the story, and what else may be there.
#[derive(Default)]
struct Promised {
    /// Snapshots that were reported safe and not removed since: they must be there.
    safe: BTreeMap<String, Content>,
    /// Snapshots that were once in the pool: they may be there, but only with this content.
    possible: Vec<(String, Content)>,
    /// Snapshots whose removal succeeded: they must not be there with this name and content.
    removed: Vec<(String, Content)>,
}

/// A day in the life of a folder, which ends when the power does.
fn story(files: &FaultyFiles, options: &FolderOptions) -> (Promised, Vec<FlushFailure>) {
    let mut promised = Promised::default();
    let mut failures = Vec::new();
    let Ok(scene) = Scene::new(files, options) else { return (promised, failures) };
    let flush = |promised: &mut Promised, failures: &mut Vec<FlushFailure>| {
        let report = scene.flush();
        for safe in report.safe {
            if let Ok(stored) = scene.pool.get(&safe.name) {
                promised.safe.insert(safe.name, Content::of(&stored));
            }
        }
        failures.extend(report.failed);
    };
    let note = |promised: &mut Promised, stored: &crate::pool::StoredSnapshot| {
        promised.possible.push((stored.name().to_owned(), Content::of(stored)));
    };
    let remove = |promised: &mut Promised, name: &str| {
        let content = Content::of(&scene.pool.get(name).unwrap());
        promised.safe.remove(name);
        if scene.remove(name).is_ok() {
            promised.removed.push((name.to_owned(), content));
        }
    };

    let parent = scene.put("parent", 1, (2, 3), &[]);
    note(&mut promised, &parent);
    flush(&mut promised, &mut failures);
    let child = scene.put("child", 2, (1, 2), &[&parent]);
    let other = scene.put("other", 3, (1, 1), &[]);
    note(&mut promised, &child);
    note(&mut promised, &other);
    flush(&mut promised, &mut failures);
    drop(other);
    // The parent stays for its child, hidden; a new snapshot takes its name.
    remove(&mut promised, "parent");
    let again = scene.put("parent", 4, (1, 4), &[&child, &parent]);
    note(&mut promised, &again);
    drop((parent, child, again));
    flush(&mut promised, &mut failures);
    remove(&mut promised, "other");
    remove(&mut promised, "child");
    let last = scene.put("last", 5, (3, 2), &[]);
    note(&mut promised, &last);
    flush(&mut promised, &mut failures);
    (promised, failures)
}

/// Recovers from a disk and compares with what was promised.
fn verify(
    files: &FaultyFiles,
    options: &FolderOptions,
    promised: &Promised,
    (case, seed): (&str, u64),
) -> usize {
    let (scene, report) = match recover(files, options) {
        Ok(recovered) => recovered,
        // The power failed before there was a folder at all.
        Err(error) => {
            assert!(promised.safe.is_empty(), "{case}: {error}");
            return 0;
        }
    };
    let found = contents(&scene.pool);
    for (name, content) in &promised.safe {
        assert!(found.get(name) == Some(content), "{case}: {name} was safe: {report:?}");
    }
    for (name, content) in &found {
        let known = promised.possible.iter().any(|(other, like)| (other, like) == (name, content));
        assert!(known, "{case}: {name} never was like this");
        let removed = promised.removed.iter().any(|(other, like)| (other, like) == (name, content));
        assert!(!removed, "{case}: {name} was removed");
    }
    // A crash leaves only flushes that were not completed: no file that could be read is damaged.
    for dropped in &report.dropped {
        assert!(matches!(dropped.why, Error::Unfinished { .. }), "{case}: {dropped:?}");
    }
    if seed != 0 {
        return found.len();
    }
    // And the folder can still be used.
    scene.put("afterwards", 9, (1, 1), &[]);
    let after = scene.flush();
    assert!(after.failed.is_empty() && after.safe.len() == 1, "{case}: {after:?}");
    found.len()
}

fn keys() -> [FolderOptions; 2] {
    let plain = FolderOptions { host: String::from("here"), ..FolderOptions::default() };
    [plain.clone(), FolderOptions { key: Some(EncryptionKey::from_bytes(&[3; 32])), ..plain }]
}

#[test]
fn the_power_fails_at_every_operation_and_what_was_not_synced_is_anybodys_guess() {
    const SEEDS: u64 = 20;
    for options in keys() {
        let quiet = FaultyFiles::new();
        let (promised, failures) = story(&quiet, &options);
        assert!(failures.is_empty() && promised.safe.len() == 2 && promised.removed.len() == 3);
        let operations = quiet.operations();
        let (mut cases, mut recovered) = (0, 0);
        for operation in 0..operations {
            let files = FaultyFiles::new().with_fault(Fault::PowerAt(operation));
            let (promised, _) = story(&files, &options);
            for seed in 0..SEEDS {
                let case = format!("power gone at operation {operation}, seed {seed}");
                recovered += verify(&files.crash(seed), &options, &promised, (&case, seed));
                cases += 1;
            }
        }
        println!(
            "{cases} cases at {operations} operations, {recovered} snapshots recovered, encrypted: {}",
            options.key.is_some()
        );
        assert!(cases > 1000);
    }
}

#[test]
fn the_energy_is_used_up_after_every_few_bytes() {
    let [options, _] = keys();
    let quiet = FaultyFiles::new();
    story(&quiet, &options);
    let written = quiet.written_bytes();
    let mut cases = 0;
    for bytes in (0..written).step_by(251) {
        let files = FaultyFiles::new().with_fault(Fault::PowerAfterBytes(bytes));
        let (promised, _) = story(&files, &options);
        for seed in 0..2 {
            verify(&files.crash(seed), &options, &promised, (&format!("{bytes} bytes, seed {seed}"), seed));
            cases += 1;
        }
    }
    println!("{cases} cases within {written} bytes");
    assert!(cases > 300);
}

/// The disk reports an error once, at any operation. That snapshot is named, the others are safe, and no safe snapshot is lost.
#[test]
fn an_error_at_any_operation_costs_no_other_snapshot() {
    let [options, _] = keys();
    let quiet = FaultyFiles::new();
    story(&quiet, &options);
    let mut cases = 0;
    for operation in 0..quiet.operations() {
        for kind in [io::ErrorKind::Other, io::ErrorKind::StorageFull] {
            let files = FaultyFiles::new().with_fault(Fault::ErrorAt(operation, kind));
            let (promised, failures) = story(&files, &options);
            for failure in &failures {
                let named = matches!(failure.why, Error::File { ref source, .. } if source.kind() == kind);
                assert!(named, "{failure:?}");
            }
            assert!(failures.len() <= 1, "one error, one snapshot: {failures:?}");
            files.clear_faults();
            for (disk, end) in [(files.copy(), "goes on"), (files.crash(operation), "crashes")] {
                let case = format!("{kind:?} at operation {operation}, and then it {end}");
                verify(&disk, &options, &promised, (&case, 0));
                cases += 1;
            }
        }
    }
    println!("{cases} cases");
}

#[test]
fn short_writes_are_completed() {
    let [options, _] = keys();
    for most in [4096, 5000, 9000, 100_000] {
        let files = FaultyFiles::new().with_fault(Fault::ShortWrites(most));
        let (promised, failures) = story(&files, &options);
        assert!(failures.is_empty(), "{failures:?}");
        files.clear_faults();
        assert_eq!(verify(&files.copy(), &options, &promised, ("short writes", 0)), 2);
    }
    let files = FaultyFiles::new();
    let scene = Scene::new(&files, &options).unwrap();
    scene.put("a", 1, (1, 1), &[]);
    let _stuck = files.clone().with_fault(Fault::ShortWrites(100));
    assert!(matches!(&scene.flush().failed[..], [FlushFailure { why: Error::File { .. }, .. }]));
}
