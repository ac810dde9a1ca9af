//! Made-up memory of a guest.

use cloner::image::Image;
use cloner_codec::chunk::PAGE_BYTES;

/// An image of this many pages. The remainder of a page's number divided by 6 decides its content: zero, fill, pointers, text,
/// noise, or the same as in all other pages with this remainder.
#[must_use]
pub fn image(pages: usize) -> Image {
    let mut bytes = vec![0; pages * PAGE_BYTES];
    let mut random = 1_u64;
    for (number, page) in bytes.chunks_mut(PAGE_BYTES).enumerate() {
        let mut next = || {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            random >> 33
        };
        match number % 6 {
            0 => {}
            1 => page.fill(7),
            2 => {
                for vector in page.chunks_mut(8) {
                    let pointer = if next() % 3 == 0 { 0 } else { 0xffff_8881_0000_0000 + next() % 512 * 64 };
                    vector.copy_from_slice(&pointer.to_le_bytes());
                }
            }
            3 => {
                const WORDS: [&[u8]; 5] = [b"vector ", b"marker ", b"pool, ", b"snapshot of ", b"chunk; "];
                let text =
                    std::iter::repeat_with(|| WORDS[usize::from(next().to_le_bytes()[0]) % WORDS.len()])
                        .flatten();
                page.iter_mut().zip(text).for_each(|(byte, letter)| *byte = *letter);
            }
            4 => page.iter_mut().for_each(|byte| *byte = next().to_le_bytes()[0]),
            _ => page.iter_mut().enumerate().for_each(|(i, byte)| *byte = (i * i / 3).to_le_bytes()[0]),
        }
    }
    Image::from_bytes(bytes).expect("whole pages")
}
