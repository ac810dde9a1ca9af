//! The cold form as it was when version 2 was fixed. If a build can no longer read it, the format has changed.

use crate::chunk::PAGE_BYTES;
use crate::reader::read_chunk;

use super::hostile::{decode, small};
use super::*;

const GOLDEN: &[u8] = include_bytes!("golden/v2-every-kind.chunk");

/// The golden chunk's pages, with references that count them.
fn golden() -> Case {
    small().counted()
}

#[test]
fn the_golden_chunk_of_version_2_decodes_and_gets_hot_again() {
    let case = golden();
    let chunk = VerifiedColdChunk::verify(GOLDEN).unwrap();
    assert_eq!((chunk.page_count(), chunk.groups()), (case.expected().len() / PAGE_BYTES, 3));
    assert!(decode(GOLDEN, &case) == Some(case.expected()));
    assert!(to_hot(GOLDEN) == case.hot());
}

/// FORMAT.md is complete: a reader in another language that was written from it alone decodes the same pages.
#[test]
fn a_reader_written_from_the_description_alone_reads_the_golden_chunk() {
    let case = golden();
    assert!(
        read_chunk(GOLDEN, case.parent(), &case.expected()) == case.expected(),
        "the Python reader decodes other pages"
    );
}

#[test]
#[ignore = "writes the golden chunk: only for a new version of the format"]
fn write_the_golden_chunk() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/cold/tests/golden/v2-every-kind.chunk");
    std::fs::write(path, to_cold(&golden().hot(), &mut encoder()).0).unwrap();
}
