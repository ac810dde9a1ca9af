//! Simulated mains, which fail when they are told to.

use std::sync::{Arc, Mutex};

use crate::sync::lock;

use super::source::{Charge, Mains, PowerReading, PowerSource, SourceError};

/// The switch of a simulated source. Copies switch the same mains.
#[derive(Debug, Clone)]
pub struct SimulatedPower(Arc<Mutex<Mains>>);

impl SimulatedPower {
    /// Makes mains that are present.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Mutex::new(Mains::Present)))
    }

    /// Switches the mains on or off.
    pub fn set(&self, mains: Mains) {
        *lock(&self.0) = mains;
    }

    /// A source that reports the state of the switch. It leaves the charge to the model.
    #[must_use]
    pub fn source(&self) -> SimulatedSource {
        SimulatedSource(self.clone())
    }
}

impl Default for SimulatedPower {
    fn default() -> Self {
        Self::new()
    }
}

/// A source that reports what a [`SimulatedPower`] was set to.
#[derive(Debug)]
pub struct SimulatedSource(SimulatedPower);

impl PowerSource for SimulatedSource {
    fn read(&mut self) -> Result<PowerReading, SourceError> {
        let mains = *lock(&self.0.0);
        Ok(PowerReading { mains, charge: Charge::Unknown, low: false })
    }

    fn name(&self) -> String {
        String::from("simulation")
    }
}
