//! From the cold form back to the hot one.

use crate::chunk::{CHUNK_BYTES, CHUNK_PAGES, CodecError, PAGE_BYTES};
use crate::hot::{ChunkInput, ChunkStats, Encoder, KeptRecord, NoDedup, PageSet};

use super::chunk::Marker;
use super::{ColdDecoder, VerifiedColdChunk};

/// Appends the hot form of a chunk to `out`: the same markers, and the unique pages marked by `encoder`.
///
/// References are copied, so nothing has to be resolved. If `encoder` is the one that made the chunk, the result is the original
/// chunk, byte for byte. Nothing is allocated after the first chunk if `out` has room for
/// [`ENCODED_BYTES_MAX`](crate::chunk::ENCODED_BYTES_MAX) more bytes.
///
/// # Errors
/// If a group does not decompress; `out` is then unchanged.
pub fn transcode_to_hot(
    cold: &VerifiedColdChunk<'_>,
    decoder: &mut ColdDecoder,
    encoder: &mut Encoder,
    out: &mut Vec<u8>,
) -> Result<ChunkStats, CodecError> {
    let ColdDecoder { groups, chunk } = decoder;
    chunk.resize(CHUNK_BYTES, 0);
    let pages = &mut chunk[..cold.page_count() * PAGE_BYTES];
    groups.decode_chunk(cold, pages.as_chunks_mut().0)?;
    let kept = kept(cold);
    let input = ChunkInput::new(pages, &PageSet::ALL)?.with_kept(&kept);
    Ok(encoder.encode_chunk(&input, &mut NoDedup, out))
}

/// The marker of every page that is not kept in a group.
fn kept<'a>(cold: &VerifiedColdChunk<'a>) -> [Option<KeptRecord<'a>>; CHUNK_PAGES] {
    let mut kept = [None; CHUNK_PAGES];
    for ((_, marker), kept) in cold.markers().zip(&mut kept) {
        if !matches!(marker, Marker::Unique { .. }) {
            *kept = Some(KeptRecord { kind: marker.kind(), record: marker.record() });
        }
    }
    kept
}
