//! Indices that lie, with every checksum over them mended.

use super::*;
use crate::pool::flushed_bytes;

fn index(form: Form, chunks: &[(ChunkId, u64, u64)]) -> (IndexV2, u64) {
    let mut offset = BLOCK_BYTES as u64;
    let mut place = |&(id, bytes, checksum): &(ChunkId, u64, u64)| {
        offset += bytes;
        ChunkPlaceV2 { id, offset: offset - bytes, bytes, checksum }
    };
    let index = IndexV2 {
        id: SnapshotId::from_number(1),
        name: String::from("a"),
        labels: Labels::default(),
        dependencies: Vec::new(),
        form,
        chunks: chunks.iter().map(&mut place).collect(),
        blobs: Vec::new(),
    };
    (index, offset)
}

fn id(index: u32) -> ChunkId {
    ChunkId { region: 0, index, checksum: 100 + u64::from(index) }
}

fn read((index, end): &(IndexV2, u64)) -> Result<Index, IndexError> {
    Index::from_bytes(&index.to_bytes(), 1, *end, false)
}

#[test]
fn chunks_out_of_order_or_listed_twice_are_refused() {
    for form in [Form::Hot, Form::Cold] {
        let entries = |ids: [ChunkId; 2]| ids.map(|id| (id, 50, id.checksum));
        let second = ChunkId { region: 1, ..id(0) };
        let good = index(form, &entries([id(3), second]));
        assert_eq!(read(&good).unwrap().get(), &good.0);
        let twin = ChunkId { checksum: 200, ..id(3) };
        for ids in [[id(3), id(2)], [id(3), id(3)], [id(3), twin], [second, id(3)]] {
            let error = read(&index(form, &entries(ids))).unwrap_err();
            assert!(matches!(&error, IndexError::Order { what } if *what == ids[1].to_string()), "{error}");
        }
    }
}

fn blob(label: &str, offset: u64, bytes: u64) -> BlobPlaceV1 {
    BlobPlaceV1 { label: label.to_owned(), offset, bytes, checksum: 0 }
}

/// Two chunks of 50 bytes and two blobs of 60, and where the index starts after them.
fn whole(form: Form) -> (IndexV2, u64) {
    let (mut index, end) = index(form, &[id(3), id(4)].map(|id| (id, 50, id.checksum)));
    index.blobs = vec![blob("a", end, 60), blob("b", end + 60, 60)];
    (index, end + 120)
}

/// Moves all that follows the first chunk, so that it has `bytes` bytes and all parts adjoin.
fn first_chunk_of((mut index, end): (IndexV2, u64), bytes: u64) -> (IndexV2, u64) {
    let moved = |at: u64| at - 50 + bytes;
    index.chunks[0].bytes = bytes;
    index.chunks[1].offset = moved(index.chunks[1].offset);
    index.blobs.iter_mut().for_each(|blob| blob.offset = moved(blob.offset));
    (index, moved(end))
}

/// Makes the last blob `bytes` long.
fn last_blob_of((mut index, end): (IndexV2, u64), bytes: u64) -> (IndexV2, u64) {
    index.blobs[1].bytes = bytes;
    (index, end - 60 + bytes)
}

/// Every length up to the greatest that the part can have is accepted, and no other, whatever checksum is over it.
#[test]
fn a_part_is_neither_longer_than_its_kind_can_be_nor_shorter_than_its_tag() {
    let tag = TAG_BYTES as u64;
    for form in [Form::Hot, Form::Cold] {
        let chunk_max = form.encoded_bytes_max() as u64;
        let blob_max: u64 = 64 << 20;
        for encrypted in [false, true] {
            let tag = if encrypted { tag } else { 0 };
            // The index itself is as long as its tag at least.
            let read = |(index, end): (IndexV2, u64)| Index::from_bytes(&index.to_bytes(), 1, end, encrypted);
            for bytes in [tag, tag + 1, chunk_max + tag - 1, chunk_max + tag] {
                read(first_chunk_of(whole(form), bytes)).unwrap();
            }
            for bytes in [tag, blob_max + tag] {
                read(last_blob_of(whole(form), bytes)).unwrap();
            }
            let beyond = [chunk_max + tag + 1, u64::from(u32::MAX)].into_iter().chain(tag.checked_sub(1));
            for bytes in beyond {
                let error = read(first_chunk_of(whole(form), bytes)).unwrap_err();
                assert!(
                    matches!(&error, IndexError::Length { what, found, max }
                        if *what == id(3).to_string() && (*found, *max) == (bytes, chunk_max + tag)),
                    "{form}, {encrypted}, {bytes}: {error:?}"
                );
            }
            for bytes in [blob_max + tag + 1, 1 << 40].into_iter().chain(tag.checked_sub(1)) {
                let error = read(last_blob_of(whole(form), bytes)).unwrap_err();
                assert!(
                    matches!(&error, IndexError::Length { what, found, max }
                        if what == "\"b\"" && (*found, *max) == (bytes, blob_max + tag)),
                    "{form}, {encrypted}, {bytes}: {error:?}"
                );
            }
        }
    }
}

/// Parts that overlap, leave a gap or wrap round are refused at the first that is not where the one before it ends.
#[test]
fn every_part_starts_where_the_one_before_it_ends() {
    type Change = fn(&mut IndexV2, &mut u64);
    let [first, second, a, b] =
        [id(3).to_string(), id(4).to_string(), String::from("\"a\""), String::from("\"b\"")];
    let changes: [(&str, Change, &str); 12] = [
        ("before the first block ends", |index, _| index.chunks[0].offset -= 1, &first),
        ("after it ends", |index, _| index.chunks[0].offset += 1, &first),
        ("in the header", |index, _| index.chunks[0].offset = 0, &first),
        ("the second chunk overlaps the first", |index, _| index.chunks[1].offset -= 1, &second),
        ("the second is the first", |index, _| index.chunks[1].offset -= 50, &second),
        ("a gap between them", |index, _| index.chunks[1].offset += 1, &second),
        (
            "a first chunk that wraps the next one round",
            |index, _| index.chunks[1].offset = u64::MAX,
            &second,
        ),
        ("a blob overlaps a chunk", |index, _| index.blobs[0].offset -= 1, &a),
        ("blobs overlap", |index, _| index.blobs[1].offset -= 60, &b),
        ("a gap between blobs", |index, _| index.blobs[1].offset += 1, &b),
        ("the index overlaps the last blob", |_, end| *end -= 1, "the index"),
        ("a gap before the index", |_, end| *end += 1, "the index"),
    ];
    for form in [Form::Hot, Form::Cold] {
        read(&whole(form)).unwrap();
        for (what, change, part) in changes {
            let (mut index, mut end) = whole(form);
            change(&mut index, &mut end);
            let error = read(&(index, end)).unwrap_err();
            assert!(matches!(&error, IndexError::Place { what, .. } if what == part), "{what}: {error:?}");
        }
    }
    // Without any part, the index starts right after the header.
    let empty = index(Form::Hot, &[]);
    read(&empty).unwrap();
    for end in [0, empty.1 - 1, empty.1 + 1] {
        let error = read(&(empty.0.clone(), end)).unwrap_err();
        assert!(
            matches!(error, IndexError::Place { expected: 4096, found, .. } if found == end),
            "{error:?}"
        );
    }
}

#[test]
fn blobs_out_of_order_or_listed_twice_are_refused() {
    for labels in [["b", "a"], ["a", "a"], ["a", ""]] {
        let (mut index, end) = whole(Form::Cold);
        index.blobs.iter_mut().zip(labels).for_each(|(blob, label)| blob.label = label.to_owned());
        let error = read(&(index, end)).unwrap_err();
        let second = format!("{:?}", labels[1]);
        assert!(matches!(&error, IndexError::Order { what } if *what == second), "{labels:?}: {error:?}");
    }
}

#[test]
fn an_index_of_another_snapshot_version_or_schema_is_refused() {
    let (index, end) = whole(Form::Hot);
    for snapshot in [0, 2, u128::MAX, 1 << 64 | 1] {
        let error = Index::from_bytes(&index.to_bytes(), snapshot, end, false).unwrap_err();
        assert!(matches!(error, IndexError::Id { found, .. } if found == index.id), "{error:?}");
    }
    let text = String::from_utf8(serde_json::to_vec(&index).unwrap()).unwrap();
    let forged = |schema: Schema, from: &str, to: &str| {
        assert!(text.contains(from), "{from}");
        Index::from_bytes(&schema.wrap(text.replacen(from, to, 1).as_bytes()), 1, end, false).unwrap_err()
    };
    for version in [0, 1, 3] {
        let error = forged(Schema { version, ..SCHEMA }, "", "");
        let found = |error: &IndexError| matches!(error, IndexError::Envelope(envelope::Error::Version { found, .. }) if *found == version);
        assert!(found(&error), "{error:?}");
    }
    let error = forged(Schema { magic: *b"CLNSNAP\0", ..SCHEMA }, "", "");
    assert!(matches!(error, IndexError::Envelope(envelope::Error::Magic { .. })), "{error:?}");
    for (from, to) in [
        (r#""form":"hot""#, r#""form":"warm""#),
        (r#""form":"hot""#, r#""form":"Hot""#),
        (r#""name":"a","#, ""),
        (r#""name":"a""#, r#""name":"a","surprise":0"#),
        (r#""label":"a""#, r#""label":"a","surprise":0"#),
        (r#""bytes":50"#, r#""bytes":-50"#),
        (r#""bytes":50"#, r#""bytes":18446744073709551616"#),
        (r#""region":0"#, r#""region":65536"#),
        (r#""priority":0"#, r#""priority":256"#),
    ] {
        let error = forged(SCHEMA, from, to);
        assert!(matches!(error, IndexError::Envelope(envelope::Error::Schema(_))), "{to}: {error:?}");
    }
}

#[test]
fn a_hot_chunk_has_the_checksum_of_its_id_and_a_cold_one_its_own() {
    let entries = [(id(0), 50, 100), (id(1), 50, 999)];
    let error = read(&index(Form::Hot, &entries)).unwrap_err();
    assert!(
        matches!(error, IndexError::Checksum { chunk, expected: 101, stored: 999 } if chunk == id(1)),
        "{error}"
    );
    assert_eq!(read(&index(Form::Cold, &entries)).unwrap().get().form, Form::Cold);
}

#[test]
fn an_id_that_is_malformed_is_named() {
    let (index, end) = index(Form::Hot, &[]);
    let text = String::from_utf8(serde_json::to_vec(&index).unwrap()).unwrap();
    let forged = text.replace(&index.id.to_string(), "0x1");
    let error = Index::from_bytes(&SCHEMA.wrap(forged.as_bytes()), 1, end, false).unwrap_err();
    assert!(crate::chain(&error).contains("\"0x1\" is not an id"), "{}", crate::chain(&error));
}

/// What the ledger counts for a record covers its entry in the index, comma and tag included, whatever numbers are in it.
#[test]
fn an_entry_takes_no_more_than_the_ledger_counts() {
    let id = ChunkId { region: u16::MAX, index: u32::MAX, checksum: u64::MAX };
    let longest = ChunkPlaceV2 { id, offset: u64::MAX, bytes: u64::MAX, checksum: u64::MAX };
    let entry = serde_json::to_vec(&longest).unwrap().len() + 1;
    assert_eq!(entry, 166);
    assert!((entry + TAG_BYTES) as u64 <= flushed_bytes(0));
}
