//! The states of the drawing in [`super`], and the one function that goes from one to the next.

use serde::Serialize;

use super::model::Battery;
use super::source::Mains;

/// What is known about the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// There is mains power, and the battery is full.
    Mains,
    /// The mains have failed.
    OnBattery,
    /// The mains have failed, and not much energy is left.
    Low,
    /// The mains have failed, and no energy is left.
    Exhausted,
    /// The mains are back, and the battery is being charged.
    Recharging,
}

impl PowerState {
    /// The state that follows this one. `low` says that the source itself reports a low battery, which is believed even if the
    /// model says otherwise.
    #[must_use]
    pub fn next(self, mains: Mains, low: bool, battery: &Battery) -> Self {
        match (mains, self) {
            (Mains::Failed, _) if battery.is_empty() => Self::Exhausted,
            // Only the return of the mains leads out of this state.
            (Mains::Failed, Self::Exhausted) => Self::Exhausted,
            (Mains::Failed, Self::Low) => Self::Low,
            (Mains::Failed, _) if low || battery.is_low() => Self::Low,
            (Mains::Failed, _) => Self::OnBattery,
            (Mains::Present, Self::Mains) => Self::Mains,
            (Mains::Present, _) if battery.is_full() => Self::Mains,
            (Mains::Present, _) => Self::Recharging,
        }
    }

    /// Whether there is mains power.
    #[must_use]
    pub const fn has_mains(self) -> bool {
        matches!(self, Self::Mains | Self::Recharging)
    }
}

impl std::fmt::Display for PowerState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Mains => "on mains",
            Self::OnBattery => "on battery",
            Self::Low => "battery low",
            Self::Exhausted => "battery exhausted",
            Self::Recharging => "recharging",
        })
    }
}
