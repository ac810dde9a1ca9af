//! The time stamp counter, which each kind of host keeps in its own way.
//!
//! A guest's counter is the host's, scaled where the processor can do that, plus an offset that can be read and set through KVM
//! (`KVM_VCPU_TSC_OFFSET`, Documentation/virt/kvm/devices/vcpu.rst). A clone goes on from the counter that was saved: for it, the
//! time it spent in the pool did not pass. Hosts differ:
//!
//! | host | what the guest of a clone sees |
//! |---|---|
//! | trusts its counter, same frequency (within [`TOLERANCE_PPM`]) | the counter goes on from the saved value; those of several vCPUs stay equal |
//! | another frequency, and the processor scales (`KVM_CAP_TSC_CONTROL`) | the same, at the saved frequency |
//! | another frequency, and no scaling | nothing: the state is refused ([`Error::TscFrequency`]), because KVM would only correct the counter whenever the guest is entered |
//! | distrusts its counter | KVM sets the offset anew at every load of a vCPU, so that the counter never goes back and catches up with the host's clock. The counters of several vCPUs are not equal, so all go on from the one that was ahead |
//! | page-table based | the host's own counter: KVM accepts an offset but does not keep it, since ring 3 runs natively. The counter jumps by the snapshot's age |

use kvm_ioctls::Cap;

use super::state::TscStateV1;
use super::{Error, MSR_TSC, Vcpu};
use crate::sys::kvm;

/// Frequencies that differ by no more than this, in parts per million, count as the same: calibration at boot differs by as much.
/// It is KVM's own limit (`kvm.tsc_tolerance_ppm`), below which it does not scale either.
pub const TOLERANCE_PPM: u64 = 250;

/// What was read from one vCPU about its counter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TscReading {
    /// The guest's frequency, in kHz.
    khz: u32,
    /// The counter at some instant of the reading.
    tsc: u64,
    /// Offset of the counter from the host's. `None` unless KVM keeps it constant.
    offset: Option<u64>,
}

impl Vcpu {
    /// Reads the counter. The vCPU must be parked.
    pub(crate) fn read_tsc(&self) -> Result<TscReading, Error> {
        let khz = self.ioctl("KVM_GET_TSC_KHZ", self.fd.get_tsc_khz())?;
        let offset = self.tsc_offset()?;
        let tsc = self.tsc()?;
        // A host that distrusts its counter has set the offset anew for each of these calls.
        let offset = if self.tsc_offset()? == offset { offset } else { None };
        Ok(TscReading { khz, tsc, offset })
    }

    /// The host's counter now, scaled to the guest's frequency. The guest's counter is this plus its offset.
    pub(crate) fn host_counter(&self) -> Result<u64, Error> {
        let Some(offset) = self.tsc_offset()? else { return Ok(kvm::host_tsc()) };
        Ok(self.tsc()?.wrapping_sub(offset))
    }

    /// Makes the counter run at the saved frequency. Must come before everything else that counts at it.
    pub(crate) fn restore_frequency(&self, state: &TscStateV1) -> Result<(), Error> {
        let guest_khz = state.khz;
        let host_khz = self.ioctl("KVM_GET_TSC_KHZ", self.fd.get_tsc_khz())?;
        if guest_khz == host_khz {
            return Ok(());
        }
        // Without scaling KVM accepts a higher frequency, too, and then pushes the counter forward whenever the guest is entered:
        // between two entries it runs too slowly.
        let scales = self.machine.fd().check_extension(Cap::TscControl);
        let refused = Error::TscFrequency { guest_khz, host_khz };
        if !scales && !is_same_frequency(guest_khz, host_khz) {
            return Err(refused);
        }
        self.fd.set_tsc_khz(guest_khz).map_err(|_| refused)
    }

    /// Lets the counter go on from the saved value. `host_counter` is one reading of [`Vcpu::host_counter`] for all vCPUs, so that
    /// counters that were equal stay equal.
    pub(super) fn restore_tsc(&self, state: &TscStateV1, host_counter: u64) -> Result<(), Error> {
        if self.tsc_offset()?.is_none() {
            let msr =
                kvm_bindings::kvm_msr_entry { index: MSR_TSC, data: state.guest_tsc, ..Default::default() };
            return self.set_msrs(&[msr]);
        }
        // Not by writing the MSR of one vCPU after the other: each would start counting a little later.
        let offset = state.guest_tsc.wrapping_sub(host_counter);
        self.ioctl("KVM_SET_DEVICE_ATTR (TSC offset)", kvm::set_tsc_offset(&self.fd, offset))
    }

    fn tsc(&self) -> Result<u64, Error> {
        // KVM answers with how many MSRs it read. If it read none, that must be an error: zero would be a wrong counter.
        self.get_all_msrs(&[MSR_TSC]).map(|msrs| msrs[0].data)
    }

    fn tsc_offset(&self) -> Result<Option<u64>, Error> {
        self.ioctl("KVM_GET_DEVICE_ATTR (TSC offset)", kvm::tsc_offset(&self.fd))
    }
}

/// The counters of all vCPUs at one instant.
///
/// Where KVM keeps offsets, they give the difference between counters to the cycle, no matter how much time passed between the
/// readings. Otherwise each counter was read a little later than the one before, and counters that were equal no longer look it:
/// all get the furthest value, so that none goes back.
pub(crate) fn at_one_instant(readings: &[TscReading]) -> Vec<TscStateV1> {
    let furthest = readings.iter().map(|reading| reading.tsc).max().unwrap_or(0);
    let first = readings.first().and_then(|first| Some(first.tsc.wrapping_sub(first.offset?)));
    let all_kept = readings.iter().all(|reading| reading.offset.is_some());
    let counter = |reading: &TscReading| match (first, reading.offset) {
        (Some(host_counter), Some(offset)) if all_kept => host_counter.wrapping_add(offset),
        _ => furthest,
    };
    readings.iter().map(|reading| TscStateV1 { khz: reading.khz, guest_tsc: counter(reading) }).collect()
}

fn is_same_frequency(guest_khz: u32, host_khz: u32) -> bool {
    u64::from(guest_khz.abs_diff(host_khz)) * 1_000_000 <= u64::from(host_khz) * TOLERANCE_PPM
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counters(readings: &[TscReading]) -> Vec<u64> {
        at_one_instant(readings).iter().map(|state| state.guest_tsc).collect()
    }

    fn reading(tsc: u64, offset: Option<u64>) -> TscReading {
        TscReading { khz: 1, tsc, offset }
    }

    #[test]
    fn offsets_tell_counters_apart_and_without_them_none_goes_back() {
        let minus = |cycles: u64| Some(0_u64.wrapping_sub(cycles));
        // Equal offsets: equal counters, although the second was read later. Another offset: so much ahead.
        assert_eq!(counters(&[reading(900, minus(100)), reading(950, minus(100))]), [900, 900]);
        assert_eq!(counters(&[reading(900, minus(100)), reading(960, minus(90))]), [900, 910]);
        // If one offset does not stay the same, all go on from the furthest.
        assert_eq!(counters(&[reading(900, minus(100)), reading(960, None)]), [960, 960]);
        assert_eq!(counters(&[reading(970, None), reading(960, None)]), [970, 970]);
        assert!(counters(&[]).is_empty());
    }

    #[test]
    fn a_calibration_error_is_not_another_frequency() {
        for (guest, host, same) in [
            (2_000_000, 2_000_000, true),
            (2_000_500, 2_000_000, true),
            (1_999_500, 2_000_000, true),
            (2_000_501, 2_000_000, false),
            (1_999_499, 2_000_000, false),
            (1, u32::MAX, false),
            (u32::MAX, 1, false),
        ] {
            assert_eq!(is_same_frequency(guest, host), same, "{guest} on {host}");
        }
    }
}
