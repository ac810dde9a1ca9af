//! Sizes, in the form that people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes, written like `256M`, `1GiB` or `4096`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Size(pub u64);

/// Why a text is not a size.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("{0:?} is not a size: write a number and K, M, G or T, such as 256M")]
    /// The text is not a number with an optional unit.
    Syntax(String),
    #[error("{0:?} is more than fits into 64 bits")]
    /// The number of bytes needs more than 64 bits.
    TooLarge(String),
}

impl FromStr for Size {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim_start().to_ascii_lowercase().as_str() {
            "" | "b" => 0,
            "k" | "kib" => 10,
            "m" | "mib" => 20,
            "g" | "gib" => 30,
            "t" | "tib" => 40,
            _ => return Err(Error::Syntax(text.to_owned())),
        };
        if number.is_empty() {
            return Err(Error::Syntax(text.to_owned()));
        }
        let number: u64 = number.parse().map_err(|_| Error::TooLarge(text.to_owned()))?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(|| Error::TooLarge(text.to_owned()))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let unit = usize::try_from(self.0.max(1).ilog2() / 10).unwrap_or(0).min(UNITS.len() - 1);
        let (one, name) = (1_u64 << (10 * unit), UNITS[unit]);
        if self.0.is_multiple_of(one) {
            write!(f, "{} {name}", self.0 / one)
        } else {
            #[expect(clippy::cast_precision_loss, reason = "one decimal, for people")]
            let value = self.0 as f64 / one as f64;
            write!(f, "{value:.1} {name}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_written() {
        for (text, bytes) in
            [("0", 0), ("4096", 4096), ("1K", 1024), ("256M", 256 << 20), ("1 GiB", 1 << 30), ("2t", 2 << 40)]
        {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "M", "1.5G", "-1", "1X", "1GG", "99999999999999999999", "99999999T"] {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert_eq!(Size(1 << 30).to_string(), "1 GiB");
        assert_eq!(Size(1536 << 10).to_string(), "1.5 MiB");
        assert_eq!(Size(0).to_string(), "0 B");
    }
}
