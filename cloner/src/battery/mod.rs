//! The energy that protects the pool: how long it lasts, and how many bytes can be saved in that time.
//!
//! The pool is durable only as far as the battery reaches. [`Battery`] models its energy; together with the flush device's measured
//! [`Rate`](crate::flush::Rate) that gives the *budget*: the bytes that can be made safe before the battery is empty. A
//! [`PowerSource`] reports whether there is mains power, and [`PowerState`] is the state that follows from the reports.
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
mod sigpwr;
mod simulation;
mod source;
mod state;

pub use clock::{Clock, RealClock, SimulatedClock};
pub use model::{Battery, BatterySpec, SpecError};
pub use nut::{NUT_PORT, NutError, NutSource};
pub use sigpwr::{STATUS_FILES, SigpwrSource};
pub use simulation::{SimulatedPower, SimulatedSource};
pub use source::{Charge, Mains, PowerSource, Reading, SourceError};
pub use state::PowerState;

#[cfg(test)]
mod tests;
