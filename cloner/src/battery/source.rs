//! Sources that report whether there is mains power.

use std::fmt::Debug;
use std::io;

use super::NutError;

/// Whether there is mains power.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mains {
    /// There is mains power.
    Present,
    /// There is no mains power, or it is not known whether there is.
    Failed,
}

/// What a source says about the charge.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Charge {
    /// The source has measured the battery's charge: a share from 0 to 1.
    Share(f64),
    /// The source cannot measure it. The model then counts time instead.
    Unknown,
}

/// What a source reports at one moment.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PowerReading {
    /// Whether there is mains power.
    pub mains: Mains,
    /// Charge of the battery, if the source measures it.
    pub charge: Charge,
    /// Whether the source itself calls the battery low.
    pub low: bool,
}

/// Why a source could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The UPS server gave no usable answer.
    #[error("cannot read the state of the UPS")]
    Nut(#[from] NutError),
    /// The kernel refused a signal handler.
    #[error("cannot catch SIGPWR")]
    Signal(#[source] io::Error),
}

/// Reports whether there is mains power. One thread reads it at intervals.
pub trait PowerSource: Debug + Send {
    /// Reads the source. Must return within a few seconds, because a mains failure is noticed no sooner.
    ///
    /// # Errors
    /// [`SourceError`]: nothing is known, and the caller must assume that the mains have failed.
    fn read(&mut self) -> Result<PowerReading, SourceError>;

    /// Name of the source, for messages.
    fn name(&self) -> String;
}
