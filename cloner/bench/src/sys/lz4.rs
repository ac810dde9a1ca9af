//! The C library lz4, block format: the yardstick of the coder's own benchmark.

#![expect(unsafe_code, reason = "calls into C")]

use std::ffi::c_int;

/// Most bytes that `len_bytes` can be compressed to.
pub(crate) const fn compress_bound(len_bytes: usize) -> usize {
    // LZ4_COMPRESSBOUND of lz4.h.
    len_bytes + len_bytes / 255 + 16
}

/// Compresses a block with `LZ4_compress_default`. `None` if it does not fit into `out`, or a length does not fit into an `int`.
pub(crate) fn compress(block: &[u8], out: &mut [u8]) -> Option<usize> {
    let (len, room) = (c_int::try_from(block.len()).ok()?, c_int::try_from(out.len()).ok()?);
    // SAFETY: lz4 reads `len` bytes of `block` and writes at most `room` bytes to `out`: the lengths of the two slices,
    // which cannot overlap.
    let written =
        unsafe { lz4_sys::LZ4_compress_default(block.as_ptr().cast(), out.as_mut_ptr().cast(), len, room) };
    usize::try_from(written).ok().filter(|&written| written > 0)
}

/// Decompresses a block with `LZ4_decompress_safe` and returns how many bytes it had. `None` if it is not an lz4 block or does
/// not fit into `out`.
pub(crate) fn decompress(compressed: &[u8], out: &mut [u8]) -> Option<usize> {
    let (len, room) = (c_int::try_from(compressed.len()).ok()?, c_int::try_from(out.len()).ok()?);
    // SAFETY: lz4 reads `len` bytes of `compressed` and writes at most `room` bytes to `out`: the lengths of the two slices,
    // which cannot overlap. `_safe` is lz4's promise to stay within them on any input.
    let written = unsafe {
        lz4_sys::LZ4_decompress_safe(compressed.as_ptr().cast(), out.as_mut_ptr().cast(), len, room)
    };
    usize::try_from(written).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_survive_and_rubbish_is_refused() {
        let block: Vec<u8> = (0..4096_u32).map(|i| (i / 7 % 50) as u8).collect();
        let mut compressed = vec![0; compress_bound(block.len())];
        let len = compress(&block, &mut compressed).unwrap();
        assert!(len < 1024, "{len}");
        let mut out = vec![0; 4096];
        assert_eq!(decompress(&compressed[..len], &mut out), Some(4096));
        assert_eq!(out, block);
        assert_eq!(compress(&block, &mut compressed[..8]), None);
        assert_eq!(decompress(&[0xff; 100], &mut out), None);
    }
}
