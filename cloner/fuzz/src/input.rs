//! How a fuzzer's bytes are divided into parts, and put together again for seeds.

/// What is left of an input. Every input can be read: what is missing is empty or zero.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

/// Which corrections an input goes without: a seed goes without none.
#[derive(Debug, Clone, Copy)]
pub struct Uncorrected(u8);

impl Uncorrected {
    /// Whether the correction with this number, from 0 to 7, is to be made.
    #[must_use]
    pub const fn corrects(self, number: u8) -> bool {
        self.0 >> number & 1 == 0
    }
}

impl<'a> Input<'a> {
    /// The next byte.
    pub fn byte(&mut self) -> u8 {
        self.split(1).first().copied().unwrap_or(0)
    }

    /// The next byte as a set of corrections to go without.
    pub fn uncorrected(&mut self) -> Uncorrected {
        Uncorrected(self.byte())
    }

    /// The next part: its length in two bytes, little-endian, and then that many bytes, or as many as there are.
    pub fn part(&mut self) -> &'a [u8] {
        let len = u16::from_le_bytes([self.byte(), self.byte()]);
        self.split(usize::from(len))
    }

    /// The next part as text, without what is not UTF-8.
    pub fn text(&mut self) -> String {
        String::from_utf8_lossy(self.part()).into_owned()
    }

    /// The next `len` bytes, or as many as there are.
    pub fn split(&mut self, len: usize) -> &'a [u8] {
        let (first, rest) = self.0.split_at(len.min(self.0.len()));
        self.0 = rest;
        first
    }
}

/// The input that [`Input`] divides into a first byte of zero and these parts.
///
/// # Panics
/// If a part has more than 65,535 bytes.
#[must_use]
pub fn seed(parts: &[&[u8]]) -> Vec<u8> {
    let mut bytes = vec![0];
    for part in parts {
        bytes.extend(u16::try_from(part.len()).expect("a short part").to_le_bytes());
        bytes.extend(*part);
    }
    bytes
}
