//! `pulse` on a real KVM: what it says, what it writes, what it notices, how it ends.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

mod console;
mod crash;
mod figures;
mod machine;
mod memory;
mod registers;

const MIB: u64 = 1 << 20;

/// The hexadecimal or decimal value after `key=` in a line of the guest.
fn value(line: &str, key: &str, radix: u32) -> u64 {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .and_then(|digits| u64::from_str_radix(digits, radix).ok())
        .unwrap_or_else(|| panic!("no {key}= in {line:?}"))
}
