//! The energy that protects the pool: how long it lasts, and how many bytes can be saved in that time.
//!
//! The pool is durable only as far as the battery reaches. [`Battery`] models its energy; with the flush device's measured
//! [`Rate`](crate::rate::Rate) it gives the *budget*: the bytes that can be made safe before it is empty. A [`PowerSource`] says
//! how it stands with the mains; [`PowerState`] is what that means.
//!
//! ```text
//!                    mains fail                 charge below low           empty
//!   ┌───────┐ ─────────────────► ┌────────────┐ ──────────► ┌─────┐ ──────────► ┌───────────┐
//!   │ Mains │                    │ On battery │             │ Low │             │ Exhausted │
//!   └───────┘ ◄──┐    ┌────────► └────────────┘             └─────┘             └───────────┘
//!        charged │    │ mains fail      │ mains back           │ mains back           │ mains back
//!            ┌───┴────┴─────┐           │                      │                      │
//!            │  Recharging  │ ◄─────────┴──────────────────────┴──────────────────────┘
//!            └──────────────┘
//! ```
//!
//! * **Mains, Recharging**: puts are admitted up to the budget that the *present* charge gives.
//! * **On battery, Low**: nothing is admitted, and unflushed snapshots are written. Low makes no difference to that: a host that
//!   waited for it would waste energy.
//! * **Exhausted**: by the model there is no energy left. If the host still runs, it may stop at any moment.
//!
//! A source that can no longer be read counts as failed mains: power that is not known to be there is not relied on.

mod clock;
mod model;
mod nut;
mod nut_error;
mod sigpwr;
mod simulation;
mod source;
mod state;

pub use clock::{Clock, RealClock, SimulatedClock};
pub use model::{Battery, BatterySpec, SpecError};
pub use nut::{NUT_PORT, NutSource};
pub use nut_error::NutError;
pub use sigpwr::{STATUS_FILES, SigpwrSource};
pub use simulation::{SimulatedPower, SimulatedSource};
pub use source::{Charge, Mains, PowerReading, PowerSource, SourceError};
pub use state::PowerState;

#[cfg(test)]
mod tests;
