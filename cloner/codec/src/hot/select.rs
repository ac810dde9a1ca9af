//! Extracts the pages of one kind from an encoded chunk.

use crate::chunk::{
    ChunkHeader, Form, HEADER_BYTES, MAP_ENTRY_BYTES, MapEntry, PageKind, SLACK_BYTES, write_checksum,
};

use super::VerifiedChunk;

/// The same chunk with only its pages of one kind, or `None` if it has none. Their records and the dictionary stay the same.
///
/// This measures how small pages of a kind are, and how fast they decode, in their own chunk: encoded anew without their
/// neighbours they would get another dictionary.
///
/// # Panics
/// If the chunk was [reopened](VerifiedChunk::reopen) and its map is damaged.
#[must_use]
pub fn only_kind(chunk: &VerifiedChunk<'_>, kind: PageKind) -> Option<Vec<u8>> {
    let selected = || chunk.page_indices().filter(|&page| chunk.kind(page) == Some(kind));
    let pages = selected().count();
    if pages == 0 {
        return None;
    }
    let dictionary = if kind == PageKind::WordMarked { chunk.dictionary() } else { &[] };
    let front = ChunkHeader::new(Form::Hot, pages, dictionary.len(), 0);
    let mut out = vec![0; front.table_at()];
    out.extend(dictionary.iter().flatten());
    for (page, entry) in selected().zip((HEADER_BYTES..).step_by(MAP_ENTRY_BYTES)) {
        let (_, record) = chunk.record(page).expect("the chunk was verified");
        out.extend_from_slice(record.bytes());
        let end = u32::try_from(out.len() - front.records_at()).expect("a chunk is small");
        out[entry..entry + MAP_ENTRY_BYTES].copy_from_slice(&MapEntry { kind, end }.to_bytes());
    }
    out.extend([0; SLACK_BYTES]);
    ChunkHeader::new(Form::Hot, pages, dictionary.len(), out.len()).write(&mut out);
    write_checksum(&mut out);
    Some(out)
}
