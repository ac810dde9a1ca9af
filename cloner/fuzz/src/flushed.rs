//! A flushed file around any index, any manifest and any records.

use cloner::snapshot::SnapshotId;
use cloner_codec::chunk::{Form, stored_checksum};
use serde_json::{Value, json};
use twox_hash::XxHash3_64;

use crate::input::Uncorrected;
use crate::parts::{BLOCK_BYTES, INDEX, MANIFEST, header, state};
use crate::{correct_checksum, correct_hot_checksum};

/// No more than this is stored as records, whatever the index asks for.
const RECORDS_MAX: usize = 1 << 20;

/// What a file is made of.
#[derive(Debug, Clone, Copy)]
pub struct FlushedParts<'a> {
    /// The snapshot that the header is for.
    pub id: SnapshotId,
    /// The text of the index.
    pub index: &'a [u8],
    /// The text of the manifest.
    pub manifest: &'a [u8],
    /// What the chunks are taken from, one after the other, as long as the index says.
    pub records: &'a [u8],
}

/// Puts a file together. Whatever can be parsed is corrected, part by part, unless `uncorrected` says otherwise: 0 the checksums of the
/// records, 1 those in the index, 2 the places in the file, 3 the ids, 4 the chunks and dependencies that the manifest lists.
#[must_use]
pub fn file(parts: FlushedParts<'_>, uncorrected: Uncorrected) -> Vec<u8> {
    let FlushedParts { id, mut records, .. } = parts;
    let mut bytes = vec![0; BLOCK_BYTES];
    let Ok(mut index) = serde_json::from_slice::<Value>(parts.index) else {
        return finish(id, bytes, &INDEX.wrap(parts.index));
    };
    let form = if index["form"] == "cold" { Form::Cold } else { Form::Hot };
    let place = |bytes: &mut Vec<u8>, entry: &mut Value, record: &[u8], checksum: u64| {
        if uncorrected.corrects(2) {
            set(entry, "offset", json!(bytes.len()));
            set(entry, "bytes", json!(record.len()));
        }
        if uncorrected.corrects(1) {
            set(entry, "checksum", json!(checksum));
        }
        bytes.extend(record);
    };
    for entry in list(&mut index, "chunks") {
        let wanted = entry["bytes"].as_u64().and_then(|len| usize::try_from(len).ok()).unwrap_or(0);
        let (taken, rest) = records.split_at(wanted.min(records.len()));
        records = rest;
        let mut record = taken.to_vec();
        record.resize(wanted.min(RECORDS_MAX.saturating_sub(bytes.len())), 0);
        match form {
            Form::Hot if uncorrected.corrects(0) => correct_hot_checksum(&mut record),
            Form::Cold if uncorrected.corrects(0) => correct_checksum(&mut record),
            _ => {}
        }
        // A record that is too short for a checksum is refused for that.
        let checksum = if record.len() < 16 { 0 } else { stored_checksum(&record) };
        if form == Form::Hot
            && uncorrected.corrects(1)
            && let Some(id) = entry.get_mut("id")
        {
            set(id, "checksum", json!(checksum));
        }
        place(&mut bytes, entry, &record, checksum);
    }
    if uncorrected.corrects(3) {
        set(&mut index, "id", json!(id.to_string()));
    }
    let manifest = manifest(parts, &index, uncorrected);
    for entry in list(&mut index, "blobs") {
        let record = match entry["label"].as_str() {
            Some("manifest") => manifest.clone(),
            Some("state") => state(),
            _ => b"text".to_vec(),
        };
        place(&mut bytes, entry, &record, XxHash3_64::oneshot(&record));
    }
    finish(id, bytes, &INDEX.wrap(&serde_json::to_vec(&index).expect("JSON")))
}

/// The manifest in its envelope, which agrees with the index.
fn manifest(parts: FlushedParts<'_>, index: &Value, uncorrected: Uncorrected) -> Vec<u8> {
    let Ok(mut manifest) = serde_json::from_slice::<Value>(parts.manifest) else {
        return MANIFEST.wrap(parts.manifest);
    };
    if uncorrected.corrects(3) {
        set(&mut manifest, "id", json!(parts.id.to_string()));
    }
    if uncorrected.corrects(4) {
        let chunks =
            index["chunks"].as_array().map(|chunks| chunks.iter().map(|chunk| chunk["id"].clone()).collect());
        set(&mut manifest, "chunks", Value::Array(chunks.unwrap_or_default()));
        set(&mut manifest, "dependencies", index["dependencies"].clone());
    }
    MANIFEST.wrap(&serde_json::to_vec(&manifest).expect("JSON"))
}

fn finish(id: SnapshotId, mut bytes: Vec<u8>, index: &[u8]) -> Vec<u8> {
    let index_at = bytes.len() as u64;
    bytes.extend(index);
    bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    let block = header(id, index_at, index.len() as u64, bytes.len() as u64);
    bytes[..BLOCK_BYTES].copy_from_slice(&block);
    bytes
}

/// Sets a field that is there.
pub fn set(object: &mut Value, field: &str, value: Value) {
    if let Some(place) = object.get_mut(field) {
        *place = value;
    }
}

/// The elements of a list that may be missing or something else.
pub fn list<'v>(object: &'v mut Value, field: &str) -> impl Iterator<Item = &'v mut Value> {
    object.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten()
}
