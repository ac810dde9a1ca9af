//! Hot chunks that break one rule each, with the checksum mended: every rule is refused by its own error, at its own bound.

use crate::chunk::{
    DICTIONARY_MAX, ENCODED_BYTES_MAX, Form, FormatError, HEADER_BYTES, PAGE_BYTES, PageIndex, PageKind,
    SLACK_BYTES, write_checksum,
};

use super::super::*;
use super::carried::noise;

/// Byte at which the page map starts, and the records after the map of three pages.
const MAP_AT: usize = HEADER_BYTES;
const RECORDS_AT: usize = MAP_AT + 3 * 4;

/// A chunk of a FILL page, a zero one, and a RAW one.
fn chunk() -> Vec<u8> {
    let pages = [[5; PAGE_BYTES], [0; PAGE_BYTES], noise(1)].concat();
    let mut encoded = Vec::new();
    let input = ChunkInput::new(&pages, &PageSet::ALL).unwrap();
    let stats = Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut NoDedup, &mut encoded);
    assert_eq!([PageKind::Fill, PageKind::Zero, PageKind::Raw].map(|kind| stats[kind].pages), [1, 1, 1]);
    assert_eq!(encoded.len(), RECORDS_AT + 8 + PAGE_BYTES + SLACK_BYTES);
    encoded
}

/// A chunk of one page of this kind, with a record of so many zero bytes.
fn single(kind: PageKind, record_bytes: usize) -> Vec<u8> {
    let mut encoded = vec![0; HEADER_BYTES];
    encoded.extend((u32::from(kind as u8) << 28 | u32::try_from(record_bytes).unwrap()).to_le_bytes());
    encoded.resize(encoded.len() + record_bytes + SLACK_BYTES, 0);
    encoded[..4].copy_from_slice(b"BMC1");
    encoded[4..8].copy_from_slice(&[2, 0, 1, 0]);
    with_length(encoded)
}

/// The chunk with its own length in its header, and its checksum.
fn with_length(mut encoded: Vec<u8>) -> Vec<u8> {
    let bytes = u32::try_from(encoded.len()).unwrap();
    encoded[16..20].copy_from_slice(&bytes.to_le_bytes());
    write_checksum(&mut encoded);
    encoded
}

fn error(encoded: &[u8]) -> FormatError {
    VerifiedChunk::verify(encoded).map(|_| ()).expect_err("a broken chunk was accepted")
}

/// The error of the chunk with these bytes at `at`.
#[track_caller]
fn broken(at: usize, bytes: &[u8]) -> FormatError {
    let mut encoded = chunk();
    assert_ne!(&encoded[at..at + bytes.len()], bytes);
    encoded[at..at + bytes.len()].copy_from_slice(bytes);
    write_checksum(&mut encoded);
    error(&encoded)
}

#[test]
fn every_header_field_is_checked_even_when_the_checksum_fits() {
    VerifiedChunk::verify(&chunk()).unwrap();
    for at in 0..4 {
        let found = broken(at, b"?");
        assert!(
            matches!(found, FormatError::Magic { form: Form::Hot, found } if found[at] == b'?'),
            "{found:?}"
        );
    }
    assert!(matches!(broken(0, b"BMZ1"), FormatError::Magic { form: Form::Hot, found } if found == *b"BMZ1"));
    for version in [0_u16, 1, 3, 2 << 8, u16::MAX] {
        let wrong = FormatError::Version { form: Form::Hot, found: version };
        assert_eq!(broken(4, &version.to_le_bytes()), wrong);
    }
    let field = |field, value: u16, min, max| FormatError::Field { field, value: value.into(), min, max };
    for pages in [0_u16, 513, 3 << 8, u16::MAX] {
        assert_eq!(broken(6, &pages.to_le_bytes()), field("page_count", pages, 1, 512));
    }
    let entries_max = u16::try_from(DICTIONARY_MAX).unwrap();
    for entries in [entries_max + 1, u16::MAX] {
        assert_eq!(
            broken(20, &entries.to_le_bytes()),
            field("dictionary_entries", entries, 0, entries_max.into())
        );
    }
    for reserved in [1_u16, 1 << 8, u16::MAX] {
        assert_eq!(broken(22, &reserved.to_le_bytes()), field("reserved", reserved, 0, 0));
    }
    let whole = chunk().len();
    for bytes in [whole + 1, whole * 2] {
        let wrong = FormatError::Length { form: Form::Hot, expected_bytes: bytes, actual_bytes: whole };
        assert_eq!(broken(16, &u32::try_from(bytes).unwrap().to_le_bytes()), wrong);
    }
    let wrong = FormatError::Length { form: Form::Hot, expected_bytes: whole - 1, actual_bytes: whole };
    assert_eq!(broken(16, &u32::try_from(whole - 1).unwrap().to_le_bytes()), wrong);
}

/// A page or a dictionary entry more or less moves everything after it, which no longer adds up.
#[test]
fn counts_that_are_allowed_but_wrong_do_not_add_up() {
    let records_bytes = 8 + PAGE_BYTES;
    let ends = |end, records_bytes| FormatError::RecordsEnd { end, records_bytes };
    assert_eq!(broken(6, &[2, 0]), ends(8, records_bytes + 4));
    assert_eq!(broken(6, &[1, 0]), ends(8, records_bytes + 8));
    // The vector of the FILL page is read as the entry of a fourth page: BYTE_MARKED, and 0x5050505 bytes long.
    assert!(matches!(broken(6, &[4, 0]), FormatError::Record { .. } | FormatError::Kind { .. }));
    let cut = FormatError::Record {
        page: PageIndex::new(2).unwrap(),
        kind: PageKind::Raw,
        start: 8,
        end: records_bytes,
        records_bytes: records_bytes - 8,
    };
    assert_eq!(broken(20, &[1, 0]), cut);
}

#[test]
fn a_chunk_is_as_long_as_its_parts() {
    // No page has a record: the shortest chunk there is.
    let shortest = single(PageKind::Zero, 0);
    VerifiedChunk::verify(&shortest).unwrap();
    let least = shortest.len();
    let mut less = shortest.clone();
    less[16..20].copy_from_slice(&u32::try_from(least - 1).unwrap().to_le_bytes());
    write_checksum(&mut less);
    let (min, max) = (u32::try_from(least).unwrap(), u32::try_from(ENCODED_BYTES_MAX).unwrap());
    assert_eq!(error(&less), FormatError::Field { field: "encoded_bytes", value: min - 1, min, max });
    let cut = with_length(shortest[..least - 1].to_vec());
    let wrong = FormatError::Length { form: Form::Hot, expected_bytes: least, actual_bytes: least - 1 };
    assert_eq!(error(&cut), wrong);
    // A byte more or less than the records have.
    let longer = with_length([&chunk()[..], &[0]].concat());
    let records_bytes = 8 + PAGE_BYTES;
    assert_eq!(
        error(&longer),
        FormatError::RecordsEnd { end: records_bytes, records_bytes: records_bytes + 1 }
    );
    let shorter = with_length(chunk()[..chunk().len() - 1].to_vec());
    assert!(matches!(error(&shorter), FormatError::Record { kind: PageKind::Raw, .. }));

    // The greatest length is refused for what is in it, and one more for the length.
    let of = |bytes: usize| {
        let mut encoded = chunk();
        encoded.resize(bytes, 0);
        error(&with_length(encoded))
    };
    assert!(matches!(of(ENCODED_BYTES_MAX), FormatError::RecordsEnd { .. }));
    let wrong = of(ENCODED_BYTES_MAX + 1);
    assert!(
        matches!(wrong, FormatError::Field { field: "encoded_bytes", value, max: m, .. } if value == max + 1 && m == max)
    );
}

#[test]
fn each_kind_has_records_of_its_lengths_only() {
    let (none, vector, page) = (0..=0, 8..=8, PAGE_BYTES..=PAGE_BYTES);
    let lengths = [
        (PageKind::Untouched, none.clone()),
        (PageKind::Zero, none.clone()),
        (PageKind::Fill, vector.clone()),
        (PageKind::Dup, vector),
        (PageKind::Parent, none),
        (PageKind::Patch, 1..=PAGE_BYTES - 1),
        (PageKind::WordMarked, 1..=PAGE_BYTES - 1),
        (PageKind::ByteMarked, 1..=PAGE_BYTES - 1),
        (PageKind::Raw, page),
    ];
    for (kind, allowed) in lengths {
        for bytes in [0, 1, 7, 8, 9, 4095, 4096, 4097] {
            let encoded = single(kind, bytes);
            let result = VerifiedChunk::verify(&encoded).map(|chunk| chunk.kind(PageIndex::new(0).unwrap()));
            let wrong = FormatError::Record {
                page: PageIndex::new(0).unwrap(),
                kind,
                start: 0,
                end: bytes,
                records_bytes: bytes,
            };
            assert_eq!(
                result,
                if allowed.contains(&bytes) { Ok(Some(kind)) } else { Err(wrong) },
                "{kind}, {bytes}"
            );
        }
    }
}

#[test]
fn every_map_entry_is_checked_even_when_the_checksum_fits() {
    let last = PageIndex::new(2).unwrap();
    for kind in 9..16_u8 {
        let found = broken(MAP_AT + 2 * 4 + 3, &[kind << 4]);
        assert_eq!(found, FormatError::Kind { page: last, kind });
    }
    // A record that ends before it starts, that covers the next one, and that ends after the last byte.
    let records_bytes = 8 + PAGE_BYTES;
    let record = |page, kind, start, end| FormatError::Record {
        page: PageIndex::new(page).unwrap(),
        kind,
        start,
        end,
        records_bytes,
    };
    assert_eq!(broken(MAP_AT + 4, &[7]), record(1, PageKind::Zero, 8, 7));
    assert_eq!(broken(MAP_AT + 4, &[9]), record(1, PageKind::Zero, 8, 9));
    assert_eq!(broken(MAP_AT, &[9]), record(0, PageKind::Fill, 0, 9));
    let end = |end: usize| (8 << 28 | u32::try_from(end).unwrap()).to_le_bytes();
    for wrong in [0, 7, records_bytes - 1, records_bytes + 1, (1 << 28) - 1] {
        assert_eq!(broken(MAP_AT + 8, &end(wrong)), record(2, PageKind::Raw, 8, wrong));
    }
}

#[test]
fn each_byte_of_the_slack_is_zero() {
    let len = chunk().len();
    for at in len - SLACK_BYTES..len {
        for byte in [1, 0x80] {
            assert_eq!(broken(at, &[byte]), FormatError::Slack, "byte {at}");
        }
    }
    // The byte before it belongs to the last record.
    let mut other = chunk();
    other[len - SLACK_BYTES - 1] ^= 1;
    write_checksum(&mut other);
    VerifiedChunk::verify(&other).unwrap();
}
