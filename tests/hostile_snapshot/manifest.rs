//! Manifests that lie, contradict the pool, or do not follow the schema.

use cloner::chunk_id::ChunkId;
use cloner::snapshot::{Error, MANIFEST_LABEL, ManifestError, ManifestV2, RegionV2, STATE_LABEL, Snapshot};
use vmm::schema::envelope::Error as EnvelopeError;

use crate::MIB;
use cloner_testing::{assert_names, room_for};

use super::{real, studio};

#[test]
fn a_manifest_that_lies() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    let refused = |change: &dyn Fn(&mut ManifestV2)| parts.clone().with_manifest(change).refused(&studio);

    let error = refused(&|manifest| manifest.regions[0].bytes += 4096);
    assert!(matches!(error, Error::MemorySize { .. }), "{error:?}");
    assert_names(&error, &[&(9 * MIB).to_string(), &(9 * MIB + 4096).to_string()]);
    let error = refused(&|manifest| manifest.chunks[1].checksum ^= 1);
    assert!(matches!(error, Error::Exchanged { index: 1, .. }), "{error:?}");
    for change in [
        &(|manifest: &mut ManifestV2| manifest.chunks.truncate(2)) as &dyn Fn(&mut ManifestV2),
        &|manifest| manifest.chunks.clear(),
        &|manifest| manifest.chunks.swap(0, 1),
        &|manifest| manifest.chunks.push(manifest.chunks[2]),
        &|manifest| manifest.chunks[1] = manifest.chunks[0],
        &|manifest| manifest.chunks[2].index = 5,
        &|manifest| manifest.chunks[2].index = u32::MAX,
    ] {
        let error = refused(change);
        assert!(matches!(error, Error::Chunks { .. }), "{error:?}");
    }
    // No index is made up where no chunk is listed.
    let error = refused(&|manifest| manifest.chunks.clear());
    assert!(matches!(error, Error::Chunks { listed: 0, last: None, held: 3, count: 5 }), "{error:?}");
    assert_eq!(error.to_string(), "the manifest lists 0 chunks, the pool holds 3 and the guest has 5");
    // A chunk beyond the guest's memory, in manifest and pool alike.
    let mut beyond = parts.clone();
    beyond.chunks.insert(5, parts.chunks[&0].clone());
    let entry = ChunkId { index: 5, ..parts.manifest.chunks[0] };
    let error = beyond.with_manifest(|manifest| manifest.chunks.push(entry)).refused(&studio);
    assert!(matches!(error, Error::Chunks { last: Some(5), count: 5, .. }), "{error:?}");
}

/// The pool knows a chunk by a checksum that is not the manifest's: that is refused before the chunk is opened.
#[test]
fn a_pool_that_contradicts_the_manifest() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    let expected = parts.id(1).checksum;
    let reservation = studio.pool.reserve("hostile").unwrap();
    for (index, bytes) in &parts.chunks {
        let id = parts.id(*index);
        let checksum = if *index == 1 { !id.checksum } else { id.checksum };
        reservation.put_chunk(ChunkId { checksum, ..id }, bytes).unwrap();
    }
    for (label, bytes) in &parts.blobs {
        reservation.put_blob(label, bytes).unwrap();
    }
    let error = Snapshot::open(reservation.publish()).unwrap_err();
    assert!(
        matches!(error, Error::Exchanged { index: 1, expected: manifest, found }
            if manifest == expected && found == !expected),
        "{error:?}"
    );
}

#[test]
fn regions_producers_and_chunks_of_regions_that_are_not_allowed() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    let refused =
        |change: &dyn Fn(&mut ManifestV2)| match parts.clone().with_manifest(change).refused(&studio) {
            Error::Manifest(error) => error,
            other => panic!("{other:?}"),
        };
    let disk = || RegionV2 { name: String::from("disk-0"), ..RegionV2::memory(MIB) };

    let error = refused(&|manifest| manifest.regions.clear());
    assert!(matches!(error, ManifestError::RegionCount { found: 0 }), "{error:?}");
    let error = refused(&|manifest| manifest.regions.push(disk()));
    assert!(matches!(error, ManifestError::RegionCount { found: 2 }), "{error:?}");
    assert_names(&error, &["2 regions", "exactly 1"]);
    let error = refused(&|manifest| manifest.regions.push(manifest.regions[0].clone()));
    assert!(matches!(error, ManifestError::DuplicateRegion { .. }), "{error:?}");
    assert_names(&error, &["\"memory\" twice"]);
    let error = refused(&|manifest| manifest.regions = vec![disk()]);
    assert!(matches!(error, ManifestError::UnknownRegion { .. }), "{error:?}");
    assert_names(&error, &["disk-0", "allowed is \"memory\""]);
    let error = refused(&|manifest| manifest.regions[0].name = String::from("Memory"));
    assert!(matches!(error, ManifestError::RegionName { number: 0, .. }), "{error:?}");
    assert_names(&error, &["regions[0].name", "\"Memory\"", "1 to 32 characters"]);
    let error = refused(&|manifest| manifest.producer = "x".repeat(65));
    assert!(matches!(error, ManifestError::Producer { .. }), "{error:?}");
    assert_names(&error, &["producer", "1 to 64 printable"]);
    let error = refused(&|manifest| manifest.chunks[1].region = 1);
    assert!(matches!(error, ManifestError::ChunkRegion { .. }), "{error:?}");
    assert_names(&error, &["region 1, chunk 1", "0 to 0"]);
}

#[test]
fn a_manifest_or_state_that_is_damaged() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    for label in [MANIFEST_LABEL, STATE_LABEL] {
        let of_label = |error: &Error| match label {
            MANIFEST_LABEL => matches!(error, Error::Manifest(_)),
            _ => matches!(error, Error::State(_)),
        };
        let whole = &parts.blobs[label];
        for at in (0..whole.len()).step_by(whole.len().div_ceil(200)) {
            let mut damaged = parts.clone();
            damaged.blobs.get_mut(label).unwrap()[at] ^= 1 << (at % 8);
            let error = damaged.refused(&studio);
            assert!(of_label(&error), "{label}, byte {at}: {error:?}");
            let mut cut = parts.clone();
            cut.blobs.get_mut(label).unwrap().truncate(at.max(1));
            let error = cut.refused(&studio);
            assert!(of_label(&error), "{label}, cut at {at}: {error:?}");
        }
        let mut missing = parts.clone();
        missing.blobs.remove(label);
        let error = missing.refused(&studio);
        assert!(matches!(&error, Error::Missing { label: found, .. } if *found == label), "{error:?}");
        assert_names(&error, &["hostile", label]);
    }
    // Each stored in place of the other.
    let mut exchanged = parts.clone();
    exchanged.blobs.insert(MANIFEST_LABEL, parts.blobs[STATE_LABEL].clone());
    assert!(matches!(
        exchanged.refused(&studio),
        Error::Manifest(ManifestError::Envelope(EnvelopeError::Magic { .. }))
    ));
}

#[test]
fn a_manifest_that_is_not_of_the_schema() {
    let Some(_room) = room_for(1) else { return };
    let studio = studio();
    let (parts, _) = real(&studio);
    let whole = serde_json::to_string(&parts.manifest).unwrap();
    parts.clone().with_manifest_text(whole.as_bytes()).restore(&studio).unwrap();
    let id = parts.manifest.id.to_string();
    let mut texts = ["", "{}", "[]", r#"{"touched_pages":0}"#].map(String::from).to_vec();
    for (from, to) in [
        (r#""kind":"memory""#, r#""kind":"disk""#),
        (r#""name":"memory","#, ""),
        (r#""index":1,"#, r#""index":-1,"#),
        (r#""index":1,"#, r#""index":4294967296,"#),
        (r#"{"region":0,"index":1,"#, r#"{"region":65536,"index":1,"#),
        (r#"{"region":0,"index":1,"#, r#"{"index":1,"#),
        (r#"{"region":0,"index":1,"#, r#"{"region":0,"surprise":0,"index":1,"#),
        (r#""touched_pages":"#, r#""surprise":0,"touched_pages":"#),
        (r#""has_parent":false,"#, ""),
        (&id, "0x1"),
        (&id, &id.to_uppercase().replace(|digit: char| digit.is_ascii_digit(), "A")),
    ] {
        let text = whole.replacen(from, to, 1);
        assert_ne!(text, whole, "{from}");
        texts.push(text);
    }
    for text in texts {
        let error = parts.clone().with_manifest_text(text.as_bytes()).refused(&studio);
        let is_of_schema =
            matches!(&error, Error::Manifest(ManifestError::Envelope(EnvelopeError::Schema(_))));
        assert!(is_of_schema, "{text}: {error:?}");
    }
}
