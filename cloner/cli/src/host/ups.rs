//! Queries one UPS, once.

use std::str::FromStr;

use serde::Serialize;

use cloner::battery::{Charge, Mains, NUT_PORT, NutSource, PowerSource};
use cloner::chain;

/// The address of a UPS: its name and its server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    ups: String,
    server: String,
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (ups, host) = text
            .split_once('@')
            .filter(|(ups, host)| !ups.is_empty() && !host.is_empty())
            .ok_or_else(|| format!("{text:?} is not of the form NAME@HOST or NAME@HOST:PORT"))?;
        // An IPv6 address contains colons; one with a port stands in brackets.
        let has_port =
            host.rsplit_once(':').is_some_and(|(host, _)| !host.contains(':') || host.ends_with(']'));
        let server = match (has_port, host.contains(':') && !host.starts_with('[')) {
            (true, _) => host.to_owned(),
            (false, true) => format!("[{host}]:{NUT_PORT}"),
            (false, false) => format!("{host}:{NUT_PORT}"),
        };
        Ok(Self { ups: ups.to_owned(), server })
    }
}

/// The UPS's answer.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(super) struct Ups {
    pub(super) name: String,
    /// `None` if the UPS did not answer.
    pub(super) mains_present: Option<bool>,
    /// Charge of the battery, 0 to 1. `None` if the UPS does not measure it.
    pub(super) charge_share: Option<f64>,
    pub(super) is_low: bool,
    pub(super) error: Option<String>,
}

impl Ups {
    pub(super) fn ask(address: &Address) -> Self {
        let mut source = NutSource::new(&address.ups, &address.server);
        let name = source.name();
        match source.read() {
            Ok(reading) => Self {
                name,
                mains_present: Some(reading.mains == Mains::Present),
                charge_share: match reading.charge {
                    Charge::Share(share) => Some(share),
                    Charge::Unknown => None,
                },
                is_low: reading.low,
                error: None,
            },
            Err(error) => Self { name, error: Some(chain(&error)), ..Self::default() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_have_the_port_of_nut_unless_they_say_so() {
        let server = |text: &str| text.parse::<Address>().unwrap().server;
        assert_eq!(server("ups@localhost"), "localhost:3493");
        assert_eq!(server("ups@localhost:1"), "localhost:1");
        assert_eq!(server("ups@::1"), "[::1]:3493");
        assert_eq!(server("ups@[::1]"), "[::1]:3493");
        assert_eq!(server("ups@[::1]:7"), "[::1]:7");
        for text in ["", "ups", "@host", "ups@"] {
            assert!(text.parse::<Address>().is_err(), "{text:?}");
        }
    }
}
