//! Reading the small files in which the kernel states facts. A file that is missing or makes no sense is an absent fact, never an
//! error.

use std::fs;
use std::path::Path;
use std::str::FromStr;

/// The content of a file, without white space around it.
pub(super) fn of(path: impl AsRef<Path>) -> Option<String> {
    fs::read_to_string(path).ok().map(|text| text.trim().to_owned())
}

/// The number that a file holds.
pub(super) fn number<T: FromStr>(path: impl AsRef<Path>) -> Option<T> {
    of(path)?.parse().ok()
}

/// The text after `name:` on the first line that begins with it.
pub(super) fn field<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        (key.trim_end() == name).then(|| value.trim())
    })
}

/// The value, in bytes, of a field that the file gives in KiB, such as those of `/proc/meminfo`.
pub(super) fn kib_field(text: &str, name: &str) -> Option<u64> {
    let kib: u64 = field(text, name)?.strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

/// The word in brackets. That is how the kernel marks which of several settings is on.
pub(super) fn chosen(text: &str) -> Option<&str> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let text = "MemFree:   7 kB\nSwap: 9\nMemFreeBeside: 8 kB\nmodel\t\t: 1\n";
        assert_eq!(kib_field(text, "MemFree"), Some(7 << 10));
        assert_eq!(field(text, "model"), Some("1"));
        assert_eq!(field(text, "Mem"), None);
        assert_eq!(kib_field(text, "Swap"), None, "no unit");
        assert_eq!(kib_field("A: 18446744073709551615 kB", "A"), None, "too large");
    }

    #[test]
    fn the_setting_in_brackets_is_the_one_that_is_on() {
        assert_eq!(chosen("always [madvise] never"), Some("madvise"));
        assert_eq!(chosen("always madvise"), None);
        assert_eq!(chosen("]["), None);
    }

    #[test]
    fn files_that_are_not_there_are_absent_facts() {
        assert_eq!(of("/nowhere/at/all"), None);
        assert_eq!(number::<u64>("/proc/self/comm"), None);
        assert!(number::<u64>("/proc/sys/kernel/pid_max").is_some_and(|max| max > 0));
    }
}
