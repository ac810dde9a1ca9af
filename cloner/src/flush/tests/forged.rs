//! Indices that were changed together with every checksum over them, and chunks that are damaged in the pool.

use std::sync::Arc;

use super::super::files::BLOCK_BYTES;
use super::super::files::faulty::FaultyFiles;
use super::super::header::Header;
use super::super::index::{Index, IndexV2};
use super::super::*;
use super::scene::{Scene, contents, recover};
use crate::chunk_id::ChunkId;
use crate::pool::{PutOptions, StoredSnapshot};
use crate::snapshot::SnapshotId;

pub(super) fn here() -> FolderOptions {
    FolderOptions { host: String::from("here"), ..FolderOptions::default() }
}

fn scene(files: &FaultyFiles, form: Form) -> Scene {
    Scene::over(Arc::new(files.clone()), &here(), Some(form)).unwrap()
}

/// A folder with one snapshot, which has the chunks 0 and 3, and the name of its file.
pub(super) fn folder(form: Form) -> (FaultyFiles, String) {
    let files = FaultyFiles::new();
    let scene = scene(&files, form);
    scene.put("a", 1, (2, 1), &[]);
    assert_eq!(scene.flush().safe.len(), 1);
    let name = files.names().into_iter().find(|name| name.ends_with(".snapshot")).unwrap();
    (files.copy(), name)
}

/// Changes the index of a file. Header and envelope fit the new one.
pub(super) fn forge(file: &[u8], change: &dyn Fn(&mut IndexV2)) -> Vec<u8> {
    let header = Header::from_block(file.first_chunk().unwrap(), file.len() as u64).unwrap();
    let at = usize::try_from(header.index_at).unwrap();
    let len = usize::try_from(header.index_bytes).unwrap();
    let index = Index::from_bytes(&file[at..at + len], header.snapshot, header.index_at, false).unwrap();
    let mut index = index.get().clone();
    change(&mut index);
    let text = index.to_bytes();
    let mut forged = file[..at].to_vec();
    forged.extend_from_slice(&text);
    forged.resize(forged.len().next_multiple_of(BLOCK_BYTES), 0);
    let (index_bytes, file_bytes) = (text.len() as u64, forged.len() as u64);
    forged[..BLOCK_BYTES].copy_from_slice(&Header { index_bytes, file_bytes, ..header }.to_block());
    forged
}

/// Why a folder's only snapshot is not recovered after its index was changed.
#[track_caller]
fn refused(form: Form, change: &dyn Fn(&mut IndexV2)) -> Error {
    let (files, name) = folder(form);
    files.put(&name, forge(&files.bytes(&name), change));
    let (scene, mut report) = recover(&files, &here()).unwrap();
    assert!(scene.pool.all().is_empty(), "the forged file was recovered");
    assert_eq!(scene.pool.stats().used_bytes, 0);
    report.dropped.pop().unwrap().why
}

#[test]
fn an_index_that_is_not_changed_is_recovered() {
    for form in [Form::Hot, Form::Cold] {
        let (files, name) = folder(form);
        let expected = contents(&recover(&files, &here()).unwrap().0.pool);
        files.put(&name, forge(&files.bytes(&name), &|_| ()));
        assert!(contents(&recover(&files, &here()).unwrap().0.pool) == expected && expected.len() == 1);
    }
}

/// The ids in the index are those of the manifest, in a cold file as well, whose records they cannot be compared with.
#[test]
fn an_index_with_other_ids_than_the_manifest_is_refused() {
    type Change = dyn Fn(&mut ChunkId);
    for form in [Form::Hot, Form::Cold] {
        for change in [&(|id: &mut ChunkId| id.index = 4) as &Change, &|id| id.region = 1] {
            let why = refused(form, &|index| change(&mut index.chunks[1].id));
            assert!(matches!(why, Error::Contradiction { what: "their chunks", .. }), "{form}: {why}");
        }
        let why = refused(form, &|index| index.id = SnapshotId::from_number(1));
        assert!(matches!(why, Error::Index { source: IndexError::Id { .. }, .. }), "{form}: {why}");
        let why = refused(form, &|index| index.dependencies.push(index.id));
        assert!(matches!(why, Error::Dependency { .. }), "{form}: {why}");
    }
    let why = refused(Form::Cold, &|index| index.chunks[1].id.checksum ^= 1);
    assert!(matches!(why, Error::Contradiction { what: "their chunks", .. }), "{why}");
    let why = refused(Form::Hot, &|index| index.chunks[1].id.checksum ^= 1);
    assert!(matches!(why, Error::Index { source: IndexError::Checksum { .. }, .. }), "{why}");
}

#[test]
fn an_index_with_other_checksums_than_the_records_is_refused() {
    let why = refused(Form::Cold, &|index| index.chunks[1].checksum ^= 1);
    assert!(matches!(&why, Error::Exchanged { part, .. } if part == "region 0, chunk 3"), "{why}");
    let why = refused(Form::Hot, &|index| {
        index.chunks[1].checksum ^= 1;
        index.chunks[1].id.checksum ^= 1;
    });
    assert!(matches!(&why, Error::Exchanged { part, .. } if part == "region 0, chunk 3"), "{why}");
}

#[test]
fn an_index_whose_chunks_are_out_of_order_is_refused() {
    for form in [Form::Hot, Form::Cold] {
        let why = refused(form, &|index| {
            let [first, second] = &mut index.chunks[..] else { panic!("two chunks were put") };
            std::mem::swap(&mut first.id, &mut second.id);
            (first.checksum, second.checksum) = (first.id.checksum, second.id.checksum);
        });
        assert!(matches!(why, Error::Index { source: IndexError::Order { .. }, .. }), "{form}: {why}");
    }
}

/// Puts a snapshot again, with its last chunk changed, in place of the original.
fn put_changed(
    scene: &Scene,
    stored: &Arc<StoredSnapshot>,
    change: impl FnOnce(&mut ChunkId, &mut Vec<u8>),
) -> Arc<StoredSnapshot> {
    scene.pool.remove(stored.name()).unwrap();
    let claim = Some(scene.ledger.claim(0).unwrap());
    let options = PutOptions { claim, ..PutOptions::default() };
    let reservation = scene.pool.reserve_with(stored.name(), options).unwrap();
    let (last, others) = stored.chunks().split_last().unwrap();
    for chunk in others {
        reservation.put_chunk(chunk.id(), chunk.bytes()).unwrap();
    }
    let (mut id, mut bytes) = (last.id(), last.bytes().to_vec());
    change(&mut id, &mut bytes);
    reservation.put_chunk(id, &bytes).unwrap();
    for (label, blob) in stored.blobs() {
        reservation.put_blob(label, blob).unwrap();
    }
    reservation.publish()
}

#[test]
fn a_chunk_that_is_damaged_in_the_pool_is_named_and_not_written() {
    for form in [Form::Hot, Form::Cold] {
        let files = FaultyFiles::new();
        let scene = scene(&files, form);
        let good = scene.put("a", 1, (2, 1), &[]);
        let flush = |stored: &Arc<StoredSnapshot>| {
            assert!(stored.is_unflushed());
            let mut report = scene.flush();
            assert_eq!(report.safe.len(), 0, "{report:?}");
            report.failed.pop().unwrap().why
        };
        let cut = put_changed(&scene, &good, |_, bytes| bytes.truncate(100));
        let why = flush(&cut);
        assert!(matches!(why, Error::InPool { region: 0, index: 3, .. }), "{form}: {why}");
        assert_eq!(why.to_string(), "snapshot \"a\" in the pool: region 0, chunk 3");
        let other = put_changed(&scene, &good, |id, _| id.checksum ^= 1);
        let why = flush(&other);
        assert!(
            matches!(&why, Error::Exchanged { part, .. } if part == "region 0, chunk 3"),
            "{form}: {why}"
        );
        assert_eq!(files.names(), ["folder"]);
    }
}

/// The ledger counts a record's entry in the index and its tag, and the battery's budget a file's header and rounding.
#[test]
fn a_file_takes_no_more_than_ledger_and_battery_count() {
    for key in [None, Some(EncryptionKey::from_bytes(&[7; 32]))] {
        for chunks in [1, 2, 300] {
            let files = FaultyFiles::new();
            let options = FolderOptions { key: key.clone(), ..here() };
            let scene = Scene::over(Arc::new(files.clone()), &options, Some(Form::Hot)).unwrap();
            let stored = scene.put("a", 1, (chunks, 1), &[]);
            let counted = stored.unflushed_bytes() + crate::pool::FLUSHED_FILE_BYTES;
            let file_bytes = scene.flush().safe[0].file_bytes;
            assert!(file_bytes <= counted, "{chunks} chunks: {file_bytes} bytes, {counted} counted");
        }
    }
}
