//! A model of the battery: energy in, energy out, and the number of bytes that it can save.

use std::time::Duration;

use crate::pool::{FLUSHED_FILE_BYTES, UnflushedLimit};
use crate::rate::{Rate, as_f64, seconds};

/// A new battery, and the host that it supplies.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BatterySpec {
    /// Energy of a new and full battery, in joules (3,600 J are 1 Wh). Above 0.
    pub capacity_j: f64,
    /// Power that the host draws while it flushes, in watts. Above 0.
    pub load_w: f64,
    /// Power that recharging adds, in watts. 0 or more.
    pub charge_w: f64,
    /// Share of the energy that can be taken out before the voltage collapses, above 0 to 1.
    pub usable_share: f64,
    /// Share of the capacity that is lost in a year, 0 to below 1.
    pub fade_per_year: f64,
    /// Share of the hold-up time that is held in reserve, 0 to below 1: for a load that is higher, a device that is slower or a
    /// battery that is older than at the last measurement.
    pub margin: f64,
    /// Share of a full charge below which the battery counts as low, 0 to 1.
    pub low_share: f64,
}

/// A field of the specification has a value that no battery can have.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[error("a battery's {field} is {value}: it must be {range}")]
pub struct SpecError {
    field: &'static str,
    value: f64,
    range: &'static str,
}

impl Default for BatterySpec {
    /// A supercapacitor bank of 20 kJ for a host that draws 200 W: a minute and a half.
    fn default() -> Self {
        Self {
            capacity_j: 20_000.0,
            load_w: 200.0,
            charge_w: 50.0,
            usable_share: 0.9,
            fade_per_year: 0.04,
            margin: 0.3,
            low_share: 0.2,
        }
    }
}

impl BatterySpec {
    /// Checks every range.
    ///
    /// # Errors
    /// [`SpecError`] for the first field outside its range.
    pub fn check(&self) -> Result<(), SpecError> {
        let Self { capacity_j, load_w, charge_w, usable_share, fade_per_year, margin, low_share } = *self;
        let above_zero = |value: f64| value > 0.0 && value.is_finite();
        let below_one = |value: f64| (0.0..1.0).contains(&value);
        for (field, value, holds, range) in [
            ("capacity", capacity_j, above_zero(capacity_j), "above 0 J"),
            ("load", load_w, above_zero(load_w), "above 0 W"),
            ("charging power", charge_w, charge_w >= 0.0 && charge_w.is_finite(), "0 W or more"),
            ("usable share", usable_share, above_zero(usable_share) && usable_share <= 1.0, "above 0 to 1"),
            ("fade per year", fade_per_year, below_one(fade_per_year), "0 to below 1"),
            ("margin", margin, below_one(margin), "0 to below 1"),
            ("low share", low_share, (0.0..=1.0).contains(&low_share), "0 to 1"),
        ] {
            if !holds {
                return Err(SpecError { field, value, range });
            }
        }
        Ok(())
    }

    /// Time for which a new and full battery supplies the host.
    #[must_use]
    pub fn holdup(&self) -> Duration {
        seconds(self.capacity_j * self.usable_share / self.load_w)
    }

    /// Bytes that can be made safe within `holdup`, less the margin, on a device of this rate.
    #[must_use]
    pub fn limit(&self, holdup: Duration, rate: Rate) -> UnflushedLimit {
        // Cuts off less than a byte, and turns negative values into zero.
        let bytes = |seconds: f64| {
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "saturates at both ends"
            )]
            let bytes = (seconds * rate.bytes_per_second) as u64;
            bytes
        };
        let counted = holdup.as_secs_f64() * (1.0 - self.margin);
        UnflushedLimit {
            bytes: bytes(counted),
            per_snapshot_bytes: bytes(rate.commit.as_secs_f64()).saturating_add(FLUSHED_FILE_BYTES),
        }
    }

    /// Energy in joules that a battery must have to make `bytes` bytes in `files` files safe, with the margin.
    #[must_use]
    pub fn energy_for(&self, bytes: u64, files: u32, rate: Rate) -> f64 {
        let time = as_f64(bytes) / rate.bytes_per_second + f64::from(files) * rate.commit.as_secs_f64();
        time / (1.0 - self.margin) * self.load_w / self.usable_share
    }
}

/// A battery in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Battery {
    spec: BatterySpec,
    /// Share of its capacity that age has left, 0 to 1.
    health: f64,
    charge_j: f64,
}

impl Battery {
    /// Makes a new and full battery.
    ///
    /// # Errors
    /// [`SpecError`] for the first field of `spec` outside its range.
    pub fn new(spec: BatterySpec) -> Result<Self, SpecError> {
        spec.check()?;
        Ok(Self { spec, health: 1.0, charge_j: spec.capacity_j })
    }

    /// The specification that the battery was made from.
    #[must_use]
    pub const fn spec(&self) -> &BatterySpec {
        &self.spec
    }

    /// Energy in joules that the battery has when full, at its age.
    #[must_use]
    pub fn full_j(&self) -> f64 {
        self.spec.capacity_j * self.health
    }

    /// Energy in joules that the battery has now.
    #[must_use]
    pub const fn charge_j(&self) -> f64 {
        self.charge_j
    }

    /// Energy that the battery has now, as a share of what it can have at its age.
    #[must_use]
    pub fn charge_share(&self) -> f64 {
        if self.full_j() > 0.0 { self.charge_j / self.full_j() } else { 0.0 }
    }

    /// Lets the battery grow older by `years`. Charge that it can no longer hold is lost.
    pub fn age(&mut self, years: f64) {
        self.health *= (1.0 - self.spec.fade_per_year).powf(years.max(0.0));
        self.charge_j = self.charge_j.min(self.full_j());
    }

    /// Runs the host on the battery for `time`.
    pub fn discharge(&mut self, time: Duration) {
        self.charge_j = (self.charge_j - self.spec.load_w * time.as_secs_f64()).max(0.0);
    }

    /// Charges the battery for `time`.
    pub fn recharge(&mut self, time: Duration) {
        self.charge_j = (self.charge_j + self.spec.charge_w * time.as_secs_f64()).min(self.full_j());
    }

    /// Sets the charge to a measured share. Shares outside 0 to 1 become the nearest bound, and anything that is not finite becomes
    /// 0.
    pub fn set_charge_share(&mut self, share: f64) {
        self.charge_j = self.full_j() * if share.is_finite() { share.clamp(0.0, 1.0) } else { 0.0 };
    }

    /// Time for which the battery would supply the host from now on.
    #[must_use]
    pub fn holdup(&self) -> Duration {
        let unusable = self.full_j() * (1.0 - self.spec.usable_share);
        seconds((self.charge_j - unusable).max(0.0) / self.spec.load_w)
    }

    /// Whether no more energy can be taken out of the battery.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holdup().is_zero()
    }

    /// Whether the charge is below what the specification calls low.
    #[must_use]
    pub fn is_low(&self) -> bool {
        self.charge_share() < self.spec.low_share
    }

    /// Whether the battery is practically full: at 99 % of what it can hold.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.charge_share() >= FULL_SHARE
    }

    /// The budget: bytes that can be made safe if the mains fail now.
    #[must_use]
    pub fn limit(&self, rate: Rate) -> UnflushedLimit {
        self.spec.limit(self.holdup(), rate)
    }
}

/// Share of a full charge at which the battery counts as full, because charging never quite gets to the end.
const FULL_SHARE: f64 = 0.99;
