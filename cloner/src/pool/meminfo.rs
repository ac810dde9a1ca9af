//! How much memory the host could still give.

use std::fs;
use std::io;

use super::Error;

const FILE: &str = "/proc/meminfo";

/// Bytes the host can hand out without swapping, by the kernel's own estimate (`MemAvailable`).
pub(crate) fn available_bytes() -> Result<usize, Error> {
    let text = fs::read_to_string(FILE).map_err(|source| Error::setting(FILE, source))?;
    available_in(&text).ok_or_else(|| Error::setting(FILE, io::ErrorKind::InvalidData.into()))
}

fn available_in(text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_anything_else_is_not_a_number() {
        assert_eq!(available_in("MemFree:  7 kB\nMemAvailable:    24 kB\n"), Some(24 * 1024));
        for text in ["", "MemFree: 7 kB", "MemAvailable: kB", "MemAvailable: 7", "MemAvailable: -7 kB"] {
            assert_eq!(available_in(text), None, "{text:?}");
        }
        assert!(available_bytes().unwrap() > 0);
    }
}
