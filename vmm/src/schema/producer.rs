//! The rule for a producer: name and version of the program that saved something. It ends up in messages and logs, so it is short
//! and printable.

/// Length in bytes of the longest producer; the shortest has one.
pub const MAX_BYTES: usize = 64;

/// The first character that is not printable ASCII, and its offset in bytes.
#[must_use]
pub fn first_unprintable(producer: &str) -> Option<(usize, char)> {
    producer.char_indices().find(|(_, character)| !matches!(character, ' '..='~'))
}
