//! The host's clocks: the clock source that its kernel uses, and how KVM treats the time stamp counter of guests.

use kvm_bindings::{KVM_CLOCK_TSC_STABLE, kvm_clock_data};
use kvm_ioctls::Kvm;
use serde::Serialize;
use vmm_sys_util::errno;

use super::text;
use crate::sys::kvm;

const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0";

/// The clock source that the kernel counts time with.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Clocksource {
    /// Name of the one in use, such as `tsc`.
    pub current: Option<String>,
    /// Names of all that the kernel could use.
    pub available: Vec<String>,
}

impl Clocksource {
    /// Reads the kernel's settings from `/sys`.
    #[must_use]
    pub fn read() -> Self {
        let available = text::of(format!("{CLOCKSOURCE}/available_clocksource")).unwrap_or_default();
        Self {
            current: text::of(format!("{CLOCKSOURCE}/current_clocksource")),
            available: available.split_ascii_whitespace().map(str::to_owned).collect(),
        }
    }
}

/// The time stamp counter of a guest, as a virtual machine with one vCPU that never ran showed it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct GuestTsc {
    /// Frequency of the counter, in kHz.
    pub khz: u32,
    /// Whether KVM keeps the offset from the host's counter that it was given. `None` if it has no such setting.
    pub offset_kept: Option<bool>,
    /// Whether KVM trusts the host's counter (`KVM_CLOCK_TSC_STABLE`).
    pub is_stable: bool,
}

/// A call that failed while the counter was probed.
#[derive(Debug, thiserror::Error)]
#[error("{name} failed")]
pub struct ProbeError {
    /// Name of the call.
    name: &'static str,
    /// The kernel's reason.
    source: errno::Error,
}

impl GuestTsc {
    /// Opens KVM, makes a virtual machine with one vCPU, reads its counter, and drops it.
    ///
    /// # Errors
    /// [`ProbeError`] names the call that failed; its source is the kernel's reason.
    pub fn probe() -> Result<Self, ProbeError> {
        let failed = |name| move |source| ProbeError { name, source };
        let kvm = Kvm::new().map_err(failed("opening /dev/kvm"))?;
        let vm = kvm.create_vm().map_err(failed("KVM_CREATE_VM"))?;
        let vcpu = vm.create_vcpu(0).map_err(failed("KVM_CREATE_VCPU"))?;
        let khz = vcpu.get_tsc_khz().map_err(failed("KVM_GET_TSC_KHZ"))?;
        let offset_kept = match kvm::tsc_offset(&vcpu).map_err(failed("KVM_GET_DEVICE_ATTR"))? {
            Some(before) => {
                // An hour or so back, as it would be for a clone.
                let wanted = before.wrapping_sub(1 << 43);
                kvm::set_tsc_offset(&vcpu, wanted).map_err(failed("KVM_SET_DEVICE_ATTR"))?;
                Some(kvm::tsc_offset(&vcpu).map_err(failed("KVM_GET_DEVICE_ATTR"))? == Some(wanted))
            }
            None => None,
        };
        // KVM decides whether it trusts the counter when a vCPU first runs, or when the clock is set.
        let clock = kvm_clock_data { clock: 1, ..kvm_clock_data::default() };
        vm.set_clock(&clock).map_err(failed("KVM_SET_CLOCK"))?;
        let clock = vm.get_clock().map_err(failed("KVM_GET_CLOCK"))?;
        Ok(Self { khz, offset_kept, is_stable: clock.flags & KVM_CLOCK_TSC_STABLE != 0 })
    }
}
