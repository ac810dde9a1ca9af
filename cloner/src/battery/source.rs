//! Where it can be learned how it stands with the mains.

use std::fmt::Debug;
use std::io;

use super::NutError;

/// Whether there is mains power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mains {
    /// Yes.
    Present,
    /// No.
    Failed,
}

/// What a source says of the charge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Charge {
    /// It has measured the battery's charge: a share of 0 to 1.
    Share(f64),
    /// It cannot tell: the model counts time instead.
    Unknown,
}

/// One look at a source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Reading {
    /// The mains.
    pub mains: Mains,
    /// The charge.
    pub charge: Charge,
    /// Whether the source itself calls the battery low.
    pub low: bool,
}

/// Why a source could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The UPS server.
    #[error("the UPS cannot be asked")]
    Nut(#[from] NutError),
    /// The kernel refused a signal handler.
    #[error("SIGPWR cannot be caught")]
    Signal(#[source] io::Error),
}

/// Says how it stands with the mains. Asked by one thread, every so often.
pub trait PowerSource: Debug + Send {
    /// Looks. Must return within a few seconds: a mains failure is noticed no sooner.
    ///
    /// # Errors
    /// [`SourceError`]: nothing is known, which whoever asks has to take for failed mains.
    fn read(&mut self) -> Result<Reading, SourceError>;

    /// What it is, for messages.
    fn name(&self) -> String;
}
