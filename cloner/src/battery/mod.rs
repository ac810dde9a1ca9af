//! x
mod clock;
pub use clock::{Clock, RealClock, SimulatedClock};
