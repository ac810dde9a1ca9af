//! The low bits of wider numbers, for places where dropping the rest is intended.
#![expect(clippy::cast_possible_truncation, reason = "that is what these are for")]

pub(super) const fn low_u8(number: u64) -> u8 {
    number as u8
}

pub(super) const fn low_u16(number: u64) -> u16 {
    number as u16
}

pub(super) const fn low_u32(number: u64) -> u32 {
    number as u32
}
