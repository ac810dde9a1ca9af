//! What the tests share: machines to run, a console to read, a pool to clone through.

pub(crate) mod alone;
pub(crate) mod console;
pub(crate) mod elf;
pub(crate) mod folder;
pub(crate) mod guest;
pub(crate) mod host;
pub(crate) mod json;
pub(crate) mod linux;
pub(crate) mod modes;
pub(crate) mod own_dev;
pub(crate) mod process;
pub(crate) mod program;
pub(crate) mod room;
pub(crate) mod stock;
pub(crate) mod studio;
pub(crate) mod terminal;

pub(crate) use alone::alone;
pub(crate) use cloner::chain;
pub(crate) use guest::Guest;
pub(crate) use room::{can_restore_lazily, can_restore_lazily_too, huge_pages, room_for, room_for_ring_0};
pub(crate) use studio::Studio;

use std::error::Error;
use std::fmt;
use std::io::Write;

/// Writes to standard error, past the capture of the test harness: figures, and notes about skipped tests.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Asserts that the chain of an error contains all of `parts`.
#[track_caller]
pub(crate) fn assert_names(error: &dyn Error, parts: &[&str]) {
    let text = chain(error);
    for part in parts {
        assert!(text.contains(part), "{part:?} is missing in: {text}");
    }
}

/// The number in `radix` that follows `key=` in a line from a guest.
#[track_caller]
pub(crate) fn value(line: &str, key: &str, radix: u32) -> u64 {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .and_then(|digits| u64::from_str_radix(digits, radix).ok())
        .unwrap_or_else(|| panic!("no {key}= in {line:?}"))
}
