//! How clones are told who they are.

use std::time::Duration;

use guest_images::pulse;
use vmm::Announce;

/// How `pulse` is told who it is.
pub(super) const PULSE: Announce = Announce::InMemory { address: pulse::Status::IDENTITY };

/// Longest wait for a guest to confirm that it knows.
pub(super) const CONFIRM_LIMIT: Duration = Duration::from_secs(60);

/// Parses the value of `--announce`: `console`, or an address in decimal or hexadecimal digits.
pub(super) fn parse(text: &str) -> Result<Announce, String> {
    if text == "console" {
        return Ok(Announce::OnConsole);
    }
    let address = match text.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => text.parse(),
    };
    address
        .map(|address| Announce::InMemory { address })
        .map_err(|_| String::from("expected `console` or a guest-physical address"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_console_or_an_address() {
        assert_eq!(parse("console"), Ok(Announce::OnConsole));
        assert_eq!(parse("0x8008"), Ok(Announce::InMemory { address: 0x8008 }));
        assert_eq!(parse("4096"), Ok(Announce::InMemory { address: 4096 }));
        for text in ["", "consoles", "-1", "0x", "8008h", "0x10000000000000000"] {
            assert!(parse(text).is_err(), "{text:?}");
        }
    }
}
