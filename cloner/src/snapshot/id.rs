//! The ids of snapshots.

use std::fmt;
use std::io;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use vmm::host::random;

/// Names a snapshot forever: a number of 128 bits, drawn at random. As text it has 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SnapshotId(u128);

/// Number of characters of a malformed id that its error keeps: the text may be of any length.
const SHOWN_CHARACTERS: usize = 64;

/// A text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id: an id has 32 characters, each 0 to 9 or a to f")]
pub struct MalformedId {
    /// The first 64 characters of the text.
    pub text: String,
}

impl SnapshotId {
    /// Draws a new id from the kernel's random numbers, so that forks of one process get different ids.
    ///
    /// # Errors
    /// The kernel's reason for not giving random numbers.
    pub fn random() -> io::Result<Self> {
        Ok(Self(u128::from_le_bytes(random::bytes()?)))
    }

    /// The id as a number.
    #[must_use]
    pub const fn number(self) -> u128 {
        self.0
    }

    /// The id that has this number.
    #[must_use]
    pub const fn from_number(number: u128) -> Self {
        Self(number)
    }
}

/// The number that 32 hexadecimal digits stand for. Only lower case is accepted, so that each number has exactly one text.
pub(crate) fn parse_id(text: &str) -> Result<u128, MalformedId> {
    let digit = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    let is_id = text.len() == 32 && text.bytes().all(digit);
    let number = if is_id { u128::from_str_radix(text, 16).ok() } else { None };
    number.ok_or_else(|| MalformedId { text: text.chars().take(SHOWN_CHARACTERS).collect() })
}

impl FromStr for SnapshotId {
    type Err = MalformedId;

    fn from_str(text: &str) -> Result<Self, MalformedId> {
        parse_id(text).map(Self)
    }
}

impl TryFrom<String> for SnapshotId {
    type Error = MalformedId;

    fn try_from(text: String) -> Result<Self, MalformedId> {
        text.parse()
    }
}

impl From<SnapshotId> for String {
    fn from(id: SnapshotId) -> Self {
        id.to_string()
    }
}

impl fmt::Display for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{:032x}", self.0))
    }
}

impl fmt::Debug for SnapshotId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SnapshotId({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_id_has_exactly_one_text() {
        for number in [0, 1, u128::MAX, 0xa << 124] {
            let id = SnapshotId::from_number(number);
            assert_eq!((id.number(), id.to_string().len()), (number, 32));
            assert_eq!(id.to_string().parse(), Ok(id));
            let json = serde_json::to_string(&id).unwrap();
            assert_eq!(json, format!("\"{id}\""));
            assert_eq!(serde_json::from_str::<SnapshotId>(&json).unwrap(), id);
        }
        assert_eq!(format!("{:>34}", SnapshotId::from_number(1)), format!("  {}1", "0".repeat(31)));
    }

    #[test]
    fn a_malformed_id_is_named_with_its_text() {
        let digits = "0".repeat(32);
        let capital = "A".repeat(32);
        let signed = format!("+{}", "0".repeat(31));
        for text in ["", "0", &digits[1..], &capital, &signed, &format!("{digits}0"), &"ä".repeat(16)] {
            let error = text.parse::<SnapshotId>().unwrap_err();
            assert_eq!(error.text, text);
            assert!(error.to_string().contains(&format!("{text:?} is not an id")), "{error}");
            let in_json = serde_json::from_str::<SnapshotId>(&format!("\"{text}\"")).unwrap_err();
            assert!(in_json.to_string().starts_with(&error.to_string()), "{in_json}");
        }
        let long = "ä".repeat(1000).parse::<SnapshotId>().unwrap_err();
        assert_eq!(long.text.chars().count(), 64);
    }

    /// The characters on both sides of each range of digits, at every place.
    #[test]
    fn every_character_of_an_id_is_a_digit() {
        let id = "0123456789abcdef0123456789abcdef";
        for at in 0..id.len() {
            for wrong in ["/", ":", "`", "g", "A", "F", " ", "+", "-", "_", "\0"] {
                let mut text = id.to_owned();
                text.replace_range(at..=at, wrong);
                assert_eq!(text.parse::<SnapshotId>(), Err(MalformedId { text }), "{wrong:?} at {at}");
            }
            for digit in ["0", "9", "a", "f"] {
                let mut text = id.to_owned();
                text.replace_range(at..=at, digit);
                assert_eq!(text.parse::<SnapshotId>().unwrap().to_string(), text);
            }
        }
        for len in [0, 1, 31, 33, 64] {
            assert!("0".repeat(len).parse::<SnapshotId>().is_err(), "{len} digits");
        }
    }
}
