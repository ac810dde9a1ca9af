//! Notes that are printed even if the test passes.

use std::env;
use std::fmt;
use std::io::Write;
use std::thread;

/// Set to 1 where KVM must be available, such as in CI: tests that would be skipped then fail.
const REQUIRE_KVM: &str = "CLONER_REQUIRE_KVM";

/// Writes to standard error, past the capture of the test harness: figures, and notes about skipped tests.
pub fn note(text: fmt::Arguments<'_>) {
    std::io::stderr().write_all(format!("{text}\n").as_bytes()).unwrap();
}

/// Notes that the test is skipped, and why.
///
/// # Panics
/// If the environment says that no test may be skipped.
pub fn skip(why: &str) {
    let test = thread::current().name().unwrap_or("a test").to_owned();
    assert!(
        env::var_os(REQUIRE_KVM).is_none_or(|value| value != "1"),
        "{REQUIRE_KVM}=1, but would skip this: {why}"
    );
    note(format_args!("\nSKIPPED: {test}: {why}\n"));
}
