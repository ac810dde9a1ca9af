//! The header and the map, field by field.

use crate::hot::VerifiedChunk;

use super::*;

fn empty_chunk(pages: usize) -> Vec<u8> {
    let bytes = HEADER_BYTES + pages * MAP_ENTRY_BYTES + SLACK_BYTES;
    let mut encoded = vec![0; bytes];
    ChunkHeader::new(Form::Hot, pages, 0, bytes).write(&mut encoded);
    write_checksum(&mut encoded);
    encoded
}

#[test]
fn a_chunk_of_untouched_pages_is_header_map_and_slack() {
    for pages in [1, 2, 511, 512] {
        let encoded = empty_chunk(pages);
        let chunk = VerifiedChunk::verify(&encoded).unwrap();
        assert_eq!(chunk.page_count(), pages);
        assert!(chunk.page_indices().all(|page| chunk.kind(page) == Some(PageKind::Untouched)));
    }
}

#[test]
fn every_field_is_checked_even_when_the_checksum_fits() {
    let broken = |at: usize, value: u8| {
        let mut encoded = empty_chunk(3);
        encoded[at] = value;
        write_checksum(&mut encoded);
        VerifiedChunk::verify(&encoded).expect_err("a broken chunk was accepted")
    };
    assert!(matches!(broken(0, b'X'), FormatError::Magic { .. }));
    assert_eq!(broken(4, 1), FormatError::Version { form: Form::Hot, found: 1 });
    assert_eq!(broken(6, 0), FormatError::Field { field: "page_count", value: 0, min: 1, max: 512 });
    assert_eq!(broken(7, 3), FormatError::Field { field: "page_count", value: 771, min: 1, max: 512 });
    assert_eq!(broken(6, 4), FormatError::Length { form: Form::Hot, expected_bytes: 72, actual_bytes: 68 });
    assert_eq!(broken(16, 69), FormatError::Length { form: Form::Hot, expected_bytes: 69, actual_bytes: 68 });
    assert!(matches!(broken(16, 0), FormatError::Field { field: "encoded_bytes", value: 0, min: 68, .. }));
    assert!(matches!(broken(21, 0x20), FormatError::Field { field: "dictionary_entries", value: 8192, .. }));
    assert!(matches!(broken(20, 1), FormatError::Length { .. }));
    assert!(matches!(broken(22, 1), FormatError::Field { field: "reserved", .. }));
    assert!(matches!(broken(HEADER_BYTES + 3, 0xf0), FormatError::Kind { kind: 15, .. }));
    assert!(matches!(broken(HEADER_BYTES + 3, 0x80), FormatError::Record { kind: PageKind::Raw, .. }));
    assert!(matches!(broken(HEADER_BYTES, 1), FormatError::Record { kind: PageKind::Untouched, end: 1, .. }));
    assert_eq!(broken(67, 1), FormatError::Slack);
}

#[test]
fn a_wrong_checksum_is_named_with_both_sums() {
    let mut encoded = empty_chunk(1);
    encoded[8] ^= 1;
    assert!(
        matches!(VerifiedChunk::verify(&encoded), Err(FormatError::Checksum { stored, computed }) if stored == computed ^ 1)
    );
}
