//! Why a UPS server gives no reading.

use std::io;

/// Why the server gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum NutError {
    /// No connection, or it broke.
    #[error("cannot {step} {server}")]
    Connection {
        /// The server's address.
        server: String,
        /// What was tried.
        step: &'static str,
        /// What the operating system said.
        source: io::Error,
    },
    /// The server refused: an unknown UPS, a driver that lost its device.
    #[error("{server} answers {answer:?} when asked for {variable} of {ups:?}")]
    Refused {
        /// The server's address.
        server: String,
        /// The UPS.
        ups: String,
        /// The variable asked for.
        variable: &'static str,
        /// What it said.
        answer: String,
    },
    /// The server said something that is not in the protocol.
    #[error("{server} does not speak the protocol: {answer:?}")]
    Protocol {
        /// The server's address.
        server: String,
        /// What it said.
        answer: String,
    },
}
