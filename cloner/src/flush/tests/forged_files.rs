//! Files that were exchanged, renamed or put together from others, with every checksum over them mended.

use std::sync::Arc;

use super::super::encrypt::EncryptionKey;
use super::super::files::faulty::FaultyFiles;
use super::super::files::{BLOCK_BYTES, Files};
use super::super::folder::file_name;
use super::super::header::Header;
use super::super::index::{INDEX_BYTES_MAX, IndexV2};
use super::super::*;
use super::forged::{folder, forge, here};
use super::scene::{Scene, contents, recover};
use crate::pool::{self, MAX_TAGS};
use crate::snapshot::{MANIFEST_LABEL, Manifest, SnapshotId};

fn header_of(file: &[u8]) -> Header {
    Header::from_block(file.first_chunk().unwrap(), file.len() as u64).unwrap()
}

/// Changes the header of a file, and mends its checksum.
fn with_header(file: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = header_of(file);
    change(&mut header);
    let mut forged = file.to_vec();
    forged[..BLOCK_BYTES].copy_from_slice(&header.to_block());
    forged
}

/// Recovers a folder of which nothing can be recovered, and returns why, by file.
#[track_caller]
fn all_dropped(files: &FaultyFiles, options: &FolderOptions) -> Vec<DroppedFile> {
    let (scene, report) = recover(files, options).unwrap();
    assert!(scene.pool.all().is_empty(), "{:?}", report.recovered);
    assert_eq!(scene.pool.stats().used_bytes, 0);
    report.dropped
}

#[track_caller]
fn dropped(files: &FaultyFiles) -> Error {
    let mut dropped = all_dropped(files, &here());
    assert_eq!(dropped.len(), 1, "{dropped:?}");
    dropped.pop().unwrap().why
}

/// Puts `file` in place of the folder's only snapshot, and returns why it is not recovered.
#[track_caller]
fn refused(change: impl FnOnce(&[u8]) -> Vec<u8>) -> Error {
    let (files, name) = folder(Form::Hot);
    files.put(&name, change(&files.bytes(&name)));
    dropped(&files)
}

#[test]
fn a_header_belongs_to_its_folder_and_to_the_name_of_its_file() {
    let why = refused(|file| with_header(file, |header| header.folder ^= 1));
    assert!(
        matches!(why, Error::Misplaced { what: "folder", expected, found, .. } if expected == found ^ 1),
        "{why:?}"
    );
    let why = refused(|file| with_header(file, |header| header.snapshot ^= 1 << 127));
    assert!(
        matches!(why, Error::Misplaced { what: "snapshot", expected, found, .. } if expected == found ^ 1 << 127),
        "{why:?}"
    );
    // The same file under another name, beside the first: only the first is the snapshot.
    let (files, name) = folder(Form::Hot);
    let other = header_of(&files.bytes(&name)).snapshot ^ 1;
    files.put(&file_name(other, true), files.bytes(&name));
    let (scene, report) = recover(&files, &here()).unwrap();
    assert_eq!((scene.pool.all().len(), report.dropped.len()), (1, 1));
    assert!(matches!(report.dropped[0].why, Error::Misplaced { what: "snapshot", .. }), "{report:?}");
    // Header, index and name changed together still differ from the manifest.
    let (files, name) = folder(Form::Hot);
    let forged = forge(&files.bytes(&name), &|index| index.id = SnapshotId::from_number(7));
    files.rename(&name, &file_name(7, true)).unwrap();
    files.put(&file_name(7, true), with_header(&forged, |header| header.snapshot = 7));
    let why = dropped(&files);
    assert!(matches!(why, Error::Contradiction { what: "their ids", .. }), "{why:?}");
}

#[test]
fn a_file_is_encrypted_if_its_folder_is() {
    let why = refused(|file| with_header(file, |header| header.nonce = Some([0; 16])));
    assert!(matches!(why, Error::Encryption { encrypted: true, .. }), "{why:?}");
    let files = FaultyFiles::new();
    let options = FolderOptions { key: Some(EncryptionKey::from_bytes(&[1; 32])), ..here() };
    let scene = Scene::new(&files, &options).unwrap();
    scene.put("a", 1, (1, 1), &[]);
    assert_eq!(scene.flush().safe.len(), 1);
    let name = files.names().into_iter().find(|name| name.ends_with(".snapshot")).unwrap();
    let (files, encrypted) = (files.copy(), files.bytes(&name));
    files.put(&name, with_header(&encrypted, |header| header.nonce = None));
    let why = all_dropped(&files, &options).pop().unwrap().why;
    assert!(matches!(why, Error::Encryption { encrypted: false, .. }), "{why:?}");
    // The index is bound to all of the header, each record to what the file is.
    for change in [
        (|header| header.index_bytes -= 1) as fn(&mut Header),
        |header| header.nonce.as_mut().unwrap()[15] ^= 1,
        |header| header.file_bytes += BLOCK_BYTES as u64,
    ] {
        let mut forged = with_header(&encrypted, change);
        forged.resize(usize::try_from(header_of_any(&forged)).unwrap(), 0);
        files.put(&name, forged);
        let why = all_dropped(&files, &options).pop().unwrap().why;
        assert!(matches!(&why, Error::Forged { part, .. } if part == "the index"), "{why:?}");
    }
}

/// The length that a header gives, whatever the file has.
fn header_of_any(file: &[u8]) -> u64 {
    u64::from_le_bytes(*file[80..].first_chunk().unwrap())
}

#[test]
fn an_index_longer_than_any_can_be_is_not_read() {
    let with_index_of = |bytes: u64| {
        refused(|file| {
            let file_bytes = (BLOCK_BYTES as u64 + bytes).next_multiple_of(BLOCK_BYTES as u64);
            let header =
                Header { index_at: BLOCK_BYTES as u64, index_bytes: bytes, file_bytes, ..header_of(file) };
            let mut forged = header.to_block().to_vec();
            forged.resize(usize::try_from(file_bytes).unwrap(), 0);
            forged
        })
    };
    let why = with_index_of(INDEX_BYTES_MAX);
    assert!(matches!(why, Error::Index { .. }), "it is read: {why:?}");
    let why = with_index_of(INDEX_BYTES_MAX + 1);
    let value = INDEX_BYTES_MAX + 1;
    let wrong = HeaderError::Field { field: "index_bytes", value };
    assert!(matches!(&why, Error::Header { source, .. } if *source == wrong), "{why:?}");
    assert!(matches!(with_index_of(0), Error::Index { .. }));
}

#[test]
fn a_file_that_is_not_whole_blocks_is_named_as_cut() {
    for len in [0, 1, BLOCK_BYTES - 1] {
        let why = refused(|file| file[..len].to_vec());
        let wrong = HeaderError::Short { found: len as u64 };
        assert!(matches!(&why, Error::Header { source, .. } if *source == wrong), "{why:?}");
    }
    let why = refused(|file| file[..BLOCK_BYTES + 1].to_vec());
    let wrong = HeaderError::Length { expected: 2 * BLOCK_BYTES as u64, found: BLOCK_BYTES as u64 + 1 };
    assert!(matches!(&why, Error::Header { source, .. } if *source == wrong), "{why:?}");
}

#[test]
fn blobs_are_those_that_the_index_means_and_one_of_them_is_the_manifest() {
    for at in [0, 1] {
        let why = refused(|file| forge(file, &|index| index.blobs[at].checksum ^= 1));
        let label = ["\"manifest\"", "\"state\""][at];
        assert!(matches!(&why, Error::Exchanged { part, .. } if part == label), "{why:?}");
    }
    let why = refused(|file| forge(file, &|index| index.blobs[0].label.push('2')));
    assert!(matches!(why, Error::NoManifest { .. }), "{why:?}");
    let state_as_manifest = |index: &mut IndexV2| {
        index.blobs[0].label = String::from("a");
        index.blobs[1].label = String::from(MANIFEST_LABEL);
    };
    let why = refused(|file| forge(file, &state_as_manifest));
    assert!(matches!(why, Error::Manifest { .. }), "{why:?}");
}

/// Names, priorities and tags come from the index, and break no rule of the pool.
#[test]
fn names_and_tags_of_a_file_follow_the_rules_of_the_pool() {
    for name in ["", ".", "..", ".a", "a/b", "../a", "a\0", "a b", &"n".repeat(65)] {
        let why = refused(|file| forge(file, &|index| index.name = name.to_owned()));
        assert!(
            matches!(&why, Error::Pool { source: pool::Error::InvalidName { name: told }, .. } if told == name),
            "{name:?}: {why:?}"
        );
    }
    let tag = |key: &str| {
        let key = key.to_owned();
        refused(move |file| forge(file, &|index| drop(index.labels.tags.insert(key.clone(), String::new()))))
    };
    for key in ["", "a\n", &"k".repeat(257)] {
        let why = tag(key);
        assert!(
            matches!(why, Error::Pool { source: pool::Error::InvalidTag { .. }, .. }),
            "{key:?}: {why:?}"
        );
    }
    let many = |index: &mut IndexV2| {
        index.labels.tags.extend((0..MAX_TAGS).map(|number| (format!("tag-{number}"), String::new())));
    };
    let why = refused(|file| forge(file, &many));
    assert!(matches!(why, Error::Pool { source: pool::Error::TooManyTags { tags: 33 }, .. }), "{why:?}");
}

/// A folder with the snapshots `a` and `b`, and their files.
fn two() -> (FaultyFiles, [String; 2]) {
    let files = FaultyFiles::new();
    let scene = Scene::over(Arc::new(files.clone()), &here(), Some(Form::Hot)).unwrap();
    scene.put("a", 1, (1, 1), &[]);
    scene.put("b", 2, (1, 1), &[]);
    assert_eq!(scene.flush().safe.len(), 2);
    let file_of = |name: &str| {
        let stored = scene.pool.get(name).unwrap();
        let manifest = Manifest::from_bytes(stored.blob(MANIFEST_LABEL).unwrap()).unwrap();
        file_name(manifest.get().id.number(), true)
    };
    let names = ["a", "b"].map(file_of);
    (files.copy(), names)
}

fn depend(files: &FaultyFiles, name: &str, on: &str) {
    let other = header_of(&files.bytes(on)).snapshot;
    files.put(
        name,
        forge(&files.bytes(name), &|index| index.dependencies.push(SnapshotId::from_number(other))),
    );
}

#[test]
fn an_index_and_its_manifest_name_the_same_dependencies() {
    let (files, [a, b]) = two();
    depend(&files, &a, &b);
    let (scene, report) = recover(&files, &here()).unwrap();
    assert_eq!(contents(&scene.pool).into_keys().collect::<Vec<_>>(), ["b"]);
    let why = &report.dropped[0].why;
    assert!(matches!(why, Error::Contradiction { what: "what they depend on", .. }), "{why:?}");
}

#[test]
fn snapshots_that_depend_on_each_other_are_dropped_and_the_recovery_ends() {
    let (files, [a, b]) = two();
    depend(&files, &a, &b);
    depend(&files, &b, &a);
    let dropped = all_dropped(&files, &here());
    assert_eq!(dropped.len(), 2);
    for DroppedFile { file, why, .. } in &dropped {
        let other = if *file == a { &b } else { &a };
        let other = header_of(&files.bytes(other)).snapshot;
        assert!(
            matches!(why, Error::Dependency { dependency, .. } if dependency.number() == other),
            "{why:?}"
        );
    }
}

/// Two files say that they are the snapshot of one name: one of them is recovered, and the other one is named.
#[test]
fn a_name_is_given_to_one_snapshot_only() {
    let (files, [a, b]) = two();
    let expected = contents(&recover(&files, &here()).unwrap().0.pool);
    files.put(&b, forge(&files.bytes(&b), &|index| index.name = String::from("a")));
    let (scene, report) = recover(&files, &here()).unwrap();
    let found = contents(&scene.pool);
    assert_eq!((found.len(), report.dropped.len()), (1, 1));
    assert!(found["a"] == expected["a"] || found["a"].has_chunks_of(&expected["b"]));
    let why = &report.dropped[0].why;
    assert!(
        matches!(why, Error::Pool { source: pool::Error::NameTaken { name }, .. } if name == "a"),
        "{why:?}"
    );
    assert!(report.dropped[0].file == a || report.dropped[0].file == b);
}

/// A snapshot whose file is there twice, listed and hidden, is recovered once and listed.
#[test]
fn a_file_that_is_listed_and_hidden_is_one_snapshot() {
    let (files, name) = folder(Form::Hot);
    let expected = contents(&recover(&files, &here()).unwrap().0.pool);
    let id = header_of(&files.bytes(&name)).snapshot;
    files.put(&file_name(id, false), files.bytes(&name));
    let (scene, report) = recover(&files, &here()).unwrap();
    assert!(contents(&scene.pool) == expected, "{report:?}");
    assert_eq!((report.recovered.len(), report.recovered[0].listed), (1, true));
    // The hidden one alone is not needed.
    let (files, name) = folder(Form::Hot);
    files.rename(&name, &file_name(header_of(&files.bytes(&name)).snapshot, false)).unwrap();
    let (scene, report) = recover(&files, &here()).unwrap();
    assert_eq!((scene.pool.all().len(), report.deleted.len(), report.dropped.len()), (0, 1, 0));
}

#[test]
fn the_name_of_a_file_tells_what_it_is_at_every_place() {
    let (files, name) = folder(Form::Hot);
    let (id, kind) = name.split_once('.').unwrap();
    let other = "0123456789abcdef0123456789abcdef";
    let foreign = [
        String::from("Folder"),
        String::from("folder.snapshot"),
        String::from("folder.hidden"),
        String::from("probe"),
        String::from("probe.snapshot"),
        String::from(other),
        format!("{other}."),
        format!(".{kind}"),
        format!("{}.{kind}", &other[1..]),
        format!("{other}0.{kind}"),
        format!("{}G.{kind}", &other[1..]),
        format!("G{}.{kind}", &other[1..]),
        format!("{}.{kind}", other.to_uppercase()),
        format!("{other}.Snapshot"),
        format!("{other}.snapshot2"),
        format!("{other}.snapshot.partial"),
        format!("{other}.partial.snapshot"),
        format!("{id} .{kind}"),
    ];
    let unfinished =
        [String::from("folder.partial"), String::from("probe.partial"), format!("{other}.partial")];
    foreign.iter().chain(&unfinished).for_each(|name| files.put(name, vec![1; BLOCK_BYTES]));
    let (scene, report) = recover(&files, &here()).unwrap();
    assert_eq!((scene.pool.all().len(), report.dropped.len()), (1, foreign.len() + unfinished.len()));
    for DroppedFile { file, why, .. } in &report.dropped {
        let told = match why {
            Error::Foreign { file: told } => foreign.contains(file).then_some(told),
            Error::Unfinished { file: told } => unfinished.contains(file).then_some(told),
            _ => None,
        };
        assert_eq!(told, Some(file), "{why:?}");
    }
    // Recovery deletes what it knows to be worthless, and nothing else.
    let mut deleted = report.deleted;
    deleted.sort_unstable();
    assert_eq!(
        deleted,
        [other.to_owned() + ".partial", String::from("folder.partial"), String::from("probe.partial")]
    );
    assert!(foreign.iter().all(|name| files.names().contains(name)));
}
