//! Tests with disks that are full, read-only or gone, and with folders that belong to another host.

use std::io;
use std::sync::Arc;

use super::super::files::faulty::{Fault, FaultyFiles};
use super::super::*;
use super::scene::{Content, Scene, contents, recover};
use crate::chunk_id::ChunkId;
use crate::progress::{Cancel, Watch};

fn here() -> FolderOptions {
    FolderOptions { host: String::from("here"), ..FolderOptions::default() }
}

fn kind(error: &Error) -> io::ErrorKind {
    match error {
        Error::File { source, .. } => source.kind(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_full_disk_takes_what_fits_and_names_what_does_not() {
    let files = FaultyFiles::new();
    let scene = Scene::new(&files, &here()).unwrap();
    let large = scene.put("large", 1, (8, 8), &[]);
    scene.put("child-of-large", 4, (1, 1), &[&large]);
    scene.put("small", 2, (1, 1), &[]);
    scene.put("tiny", 3, (1, 1), &[]);
    let _full = files.clone().with_fault(Fault::Capacity(100_000));
    let report = scene.flush();
    let safe: Vec<&str> = report.safe.iter().map(|safe| &*safe.name).collect();
    assert_eq!(safe, ["small", "tiny"], "by priority, then size: {report:?}");
    assert_eq!(report.failed.len(), 1);
    assert_eq!((&*report.failed[0].name, kind(&report.failed[0].why)), ("large", io::ErrorKind::StorageFull));
    assert!(large.is_unflushed() && !scene.pool.get("tiny").unwrap().is_unflushed());
    // Nothing is left of the snapshot that did not fit, and once there is room it goes out.
    files.clear_faults();
    let report = scene.flush();
    assert_eq!((report.safe.len(), report.failed.len()), (2, 0), "{report:?}");
    assert_eq!(scene.ledger.usage().snapshots, 0);
    let (again, _) = recover(&files.copy(), &here()).unwrap();
    assert_eq!(contents(&again.pool), contents(&scene.pool));
}

#[test]
fn a_read_only_or_vanished_folder_is_named_for_each_snapshot() {
    for (fault, expected) in
        [(Fault::ReadOnly, io::ErrorKind::ReadOnlyFilesystem), (Fault::Vanished, io::ErrorKind::NotFound)]
    {
        let files = FaultyFiles::new();
        let scene = Scene::new(&files, &here()).unwrap();
        scene.put("safe", 1, (1, 1), &[]);
        assert_eq!(scene.flush().safe.len(), 1);
        scene.put("a", 2, (1, 1), &[]);
        scene.put("b", 3, (1, 1), &[]);
        let _broken = files.clone().with_fault(fault);
        let report = scene.flush();
        assert_eq!(report.failed.len(), 2, "{report:?}");
        assert!(report.failed.iter().all(|failure| kind(&failure.why) == expected), "{report:?}");
        assert!(scene.folder.remove("safe").is_err());
        files.clear_faults();
        let (again, _) = recover(&files.copy(), &here()).unwrap();
        assert!(again.pool.get("safe").is_ok());
    }
}

/// A removed snapshot that others refer to survives crash and recovery; it is deleted together with the last of them.
#[test]
fn hidden_files_live_as_long_as_they_are_referred_to() {
    let files = FaultyFiles::new();
    let scene = Scene::new(&files, &here()).unwrap();
    let parent = scene.put("parent", 1, (2, 2), &[]);
    scene.put("child", 2, (1, 1), &[&parent]);
    let expected = Content::of(&scene.pool.get("child").unwrap());
    drop(parent);
    scene.pool.remove("parent").unwrap();
    // It was removed before it was ever flushed. It goes out all the same, hidden, because its child does.
    assert_eq!(scene.flush().safe.iter().map(|safe| &*safe.name).collect::<Vec<_>>(), ["parent", "child"]);
    let (scene, report) = recover(&files.copy(), &here()).unwrap();
    let listed: Vec<(&str, bool)> = report.recovered.iter().map(|one| (&*one.name, one.listed)).collect();
    assert_eq!(listed, [("child", true), ("parent", false)]);
    assert_eq!(Content::of(&scene.pool.get("child").unwrap()), expected);
    assert!(scene.pool.get("parent").is_err());
    // A new snapshot may have the name.
    scene.put("parent", 7, (1, 1), &[]);
    assert_eq!(scene.flush().safe.len(), 1);
    scene.remove("child").unwrap();
    scene.remove("parent").unwrap();
    assert_eq!(scene.folder.file_bytes(), 0);
    assert_eq!(scene.pool.stats().used_bytes, 0);
}

#[test]
fn folders_of_others_are_refused_by_name() {
    let files = FaultyFiles::new();
    let scene = Scene::new(&files, &here()).unwrap();
    scene.put("a", 1, (1, 1), &[]);
    scene.flush();
    let key = |byte| Some(EncryptionKey::from_bytes(&[byte; 32]));
    let open = |files: &FaultyFiles, options: &FolderOptions| {
        Folder::open(Arc::new(files.clone()), options).map(|_| ()).unwrap_err()
    };
    let elsewhere = FolderOptions { host: String::from("elsewhere"), ..here() };
    let error = open(&files, &elsewhere);
    assert!(error.to_string().contains("belongs to host here, this is elsewhere"), "{error}");
    assert!(matches!(
        open(&files, &FolderOptions { key: key(1), ..here() }),
        Error::Encryption { encrypted: false, .. }
    ));
    // Once adopted, the folder belongs to that host.
    let adopted = recover(&files.copy(), &FolderOptions { adopt: true, ..elsewhere.clone() }).unwrap();
    assert_eq!(adopted.1.recovered.len(), 1);

    let encrypted = FaultyFiles::new();
    let scene = Scene::new(&encrypted, &FolderOptions { key: key(1), ..here() }).unwrap();
    scene.put("secret", 1, (1, 1), &[]);
    scene.flush();
    assert!(matches!(open(&encrypted, &here()), Error::Encryption { encrypted: true, .. }));
    assert!(matches!(open(&encrypted, &FolderOptions { key: key(2), ..here() }), Error::Key { .. }));
    assert!(
        recover(&encrypted.copy(), &FolderOptions { key: key(1), ..here() })
            .unwrap()
            .0
            .pool
            .get("secret")
            .is_ok()
    );
    let secret = b"the state of 1";
    let told = |files: &FaultyFiles| {
        files.names().iter().any(|name| files.bytes(name).windows(secret.len()).any(|found| found == secret))
    };
    assert!(told(&files) && !told(&encrypted), "what is encrypted cannot be read");

    // A file of another folder, a file with another snapshot's name, a foreign file, and something that is not a flush folder.
    let [file] =
        &files.names().into_iter().filter(|name| name.ends_with(".snapshot")).collect::<Vec<_>>()[..]
    else {
        panic!("the folder does not hold exactly one snapshot")
    };
    let other = FaultyFiles::new();
    Scene::new(&other, &here()).unwrap();
    other.put(file, files.bytes(file));
    other.put(&format!("{:032x}.snapshot", 1), files.bytes(file));
    other.put("readme.txt", vec![1]);
    let (_, report) = recover(&other, &here()).unwrap();
    assert_eq!(report.recovered.len(), 0);
    let reasons: Vec<String> = report.dropped.iter().map(|dropped| dropped.why.to_string()).collect();
    assert!(reasons.iter().filter(|why| why.contains("has the folder")).count() == 2, "{reasons:?}");
    assert!(
        reasons.iter().any(|why| why.contains("readme.txt is not a file of a flush folder")),
        "{reasons:?}"
    );
    let stray = FaultyFiles::new();
    stray.put("holiday.jpg", vec![1]);
    assert!(matches!(open(&stray, &here()), Error::NoFolder { files: 1, .. }));
}

#[test]
fn a_missing_dependency_is_named_and_takes_its_dependents_with_it() {
    let files = FaultyFiles::new();
    let scene = Scene::new(&files, &here()).unwrap();
    let parent = scene.put("parent", 1, (1, 1), &[]);
    let child = scene.put("child", 2, (1, 1), &[&parent]);
    scene.put("grandchild", 3, (1, 1), &[&parent, &child]);
    scene.put("other", 4, (1, 1), &[]);
    scene.flush();
    let damaged = files.copy();
    let parent = files.names().into_iter().find(|name| {
        let bytes = files.bytes(name);
        bytes.windows(15).any(|text| text == b"\"name\":\"parent\"")
    });
    let parent = parent.unwrap();
    let mut bytes = files.bytes(&parent);
    bytes[5000] ^= 1;
    damaged.put(&parent, bytes);
    let (scene, report) = recover(&damaged, &here()).unwrap();
    assert_eq!(contents(&scene.pool).into_keys().collect::<Vec<_>>(), ["other"]);
    let mut dropped: Vec<&str> =
        report.dropped.iter().filter_map(|dropped| dropped.name.as_deref()).collect();
    dropped.sort_unstable();
    assert_eq!(dropped, ["child", "grandchild", "parent"], "{report:?}");
    assert!(matches!(report.dropped[0].why, Error::Chunk { .. }), "{report:?}");
    assert!(matches!(report.dropped[1].why, Error::Dependency { .. }), "{report:?}");
    // The names stay taken: no new snapshot may replace one that could still be repaired.
    assert!(scene.folder.lists("parent") && scene.folder.lists("child"));
}

#[test]
fn what_is_no_snapshot_is_not_flushed_and_a_cancelled_flush_leaves_nothing() {
    let files = FaultyFiles::new();
    let scene = Scene::new(&files, &here()).unwrap();
    let claim = Some(scene.ledger.claim(0).unwrap());
    let options = crate::pool::PutOptions { claim, ..crate::pool::PutOptions::default() };
    let reservation = scene.pool.reserve_with("bytes", options).unwrap();
    reservation.put_chunk(ChunkId { region: 0, index: 0, checksum: 0 }, b"anything").unwrap();
    reservation.publish();
    let report = scene.flush();
    assert!(report.safe.is_empty() && report.failed.is_empty(), "{report:?}");

    scene.put("a", 1, (40, 1), &[]);
    let cancel = Cancel::new();
    cancel.cancel();
    let watch = Watch::default().cancel(&cancel);
    let outcome = scene.flusher().flush_next(&mut std::collections::BTreeSet::new(), watch);
    assert!(matches!(outcome, Some(Err(FlushFailure { why: Error::Cancelled, .. }))), "{outcome:?}");
    assert_eq!(files.names(), ["folder"]);
    assert_eq!(scene.flush().safe.len(), 1);
}
