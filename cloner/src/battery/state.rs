//! The states of the drawing in [`super`], and the one function that leads from one to the next.

use serde::Serialize;

use super::model::Battery;
use super::source::Mains;

/// What is known of the power.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum PowerState {
    /// On mains, and the battery is full.
    Mains,
    /// The mains have failed.
    OnBattery,
    /// The mains have failed, and there is not much left.
    Low,
    /// There is nothing left.
    Exhausted,
    /// The mains are back, and the battery is being charged.
    Recharging,
}

impl PowerState {
    /// The state that follows. `low` is a source's own word for it, which is believed before the model's.
    #[must_use]
    pub fn next(self, mains: Mains, low: bool, battery: &Battery) -> Self {
        match (mains, self) {
            (Mains::Failed, _) if battery.is_empty() => Self::Exhausted,
            // From an empty battery nothing leads back but the mains.
            (Mains::Failed, Self::Exhausted) => Self::Exhausted,
            (Mains::Failed, Self::Low) => Self::Low,
            (Mains::Failed, _) if low || battery.is_low() => Self::Low,
            (Mains::Failed, _) => Self::OnBattery,
            (Mains::Present, Self::Mains) => Self::Mains,
            (Mains::Present, _) if battery.is_full() => Self::Mains,
            (Mains::Present, _) => Self::Recharging,
        }
    }

    /// Whether the mains are there.
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
