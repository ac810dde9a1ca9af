//! Flips every byte of a small folder, and cuts every file at every length: each gives a named error, or the content as it was.

use crate::chain;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::files::faulty::FaultyFiles;
use super::super::*;
use super::scene::{Content, Scene, contents, recover};

fn folder(key: Option<EncryptionKey>, form: Form) -> (FaultyFiles, FolderOptions) {
    let files = FaultyFiles::new();
    let options = FolderOptions { host: String::from("here"), key, adopt: false };
    let scene = Scene::over(Arc::new(files.clone()), &options, Some(form)).unwrap();
    let parent = scene.put("parent", 1, (1, 1), &[]);
    scene.put("child", 2, (2, 1), &[&parent]);
    assert_eq!(scene.flush().safe.len(), 2);
    (files.copy(), options)
}

/// Recovers a folder in which the content of `file` is `bytes`. Snapshots that come back must be as they were; the others must be
/// named with their reason. Returns whether all came back.
fn verify(
    (files, options): &(FaultyFiles, FolderOptions),
    good: &BTreeMap<String, Content>,
    (file, bytes): (&str, Vec<u8>),
    what: &str,
) -> bool {
    let damaged = files.copy();
    damaged.put(file, bytes);
    match recover(&damaged, options) {
        Err(error) => {
            assert!(chain(&error).contains("folder"), "{what}: {error}");
            false
        }
        Ok((scene, report)) => {
            let found = contents(&scene.pool);
            assert!(found.iter().all(|(name, content)| good[name] == *content), "{what}: other content");
            assert_eq!(found.len() + report.dropped.len(), good.len(), "{what}: {report:?}");
            let named = |dropped: &DroppedFile| chain(&dropped.why).contains(&dropped.file);
            assert!(report.dropped.iter().all(named), "{what}: {report:?}");
            report.dropped.is_empty()
        }
    }
}

fn files_of(files: &FaultyFiles) -> Vec<String> {
    let names = files.names();
    assert_eq!(names.len(), 3, "{names:?}");
    names
}

#[test]
fn every_byte_flipped() {
    let (mut cases, mut harmless) = (0, 0);
    for (key, form) in
        [(None, Form::Hot), (None, Form::Cold), (Some(EncryptionKey::from_bytes(&[5; 32])), Form::Hot)]
    {
        let folder = folder(key, form);
        let good = contents(&recover(&folder.0, &folder.1).unwrap().0.pool);
        for file in files_of(&folder.0) {
            let bytes = folder.0.bytes(&file);
            for at in 0..bytes.len() {
                let mut bytes = bytes.clone();
                bytes[at] ^= 1 << (at % 8);
                cases += 1;
                let what = format!("{file}, byte {at}");
                harmless += usize::from(verify(&folder, &good, (&file, bytes), &what));
            }
        }
    }
    println!("{cases} bytes flipped, {harmless} of them in padding that does not matter");
    assert!(cases > 30_000 && harmless < cases / 2);
}

#[test]
fn every_file_cut_at_every_length() {
    let mut cases = 0;
    for key in [None, Some(EncryptionKey::from_bytes(&[5; 32]))] {
        let folder = folder(key, Form::Hot);
        let good = contents(&recover(&folder.0, &folder.1).unwrap().0.pool);
        for file in files_of(&folder.0) {
            let bytes = folder.0.bytes(&file);
            for len in 0..bytes.len() {
                let whole =
                    verify(&folder, &good, (&file, bytes[..len].to_vec()), &format!("{file} cut at {len}"));
                assert!(!whole || file == "folder", "{file} cut at {len} of {}", bytes.len());
                cases += 1;
            }
        }
    }
    println!("{cases} files cut");
}
