//! What this host's KVM offers.

use kvm_ioctls::{Cap, Kvm};
use serde::Serialize;

/// The capabilities that this VMM cannot do without, and their names.
pub const REQUIRED: &[(Cap, &str)] = &[
    (Cap::Irqchip, "KVM_CAP_IRQCHIP"),
    (Cap::UserMemory, "KVM_CAP_USER_MEMORY"),
    (Cap::SetTssAddr, "KVM_CAP_SET_TSS_ADDR"),
    (Cap::ExtCpuid, "KVM_CAP_EXT_CPUID"),
    (Cap::MpState, "KVM_CAP_MP_STATE"),
    (Cap::Pit2, "KVM_CAP_PIT2"),
    (Cap::PitState2, "KVM_CAP_PIT_STATE2"),
    (Cap::AdjustClock, "KVM_CAP_ADJUST_CLOCK"),
    (Cap::VcpuEvents, "KVM_CAP_VCPU_EVENTS"),
    (Cap::Debugregs, "KVM_CAP_DEBUGREGS"),
    (Cap::Xsave, "KVM_CAP_XSAVE"),
    (Cap::Xcrs, "KVM_CAP_XCRS"),
    (Cap::ImmediateExit, "KVM_CAP_IMMEDIATE_EXIT"),
];

/// The names of required capabilities that this KVM lacks.
#[must_use]
pub fn missing(kvm: &Kvm) -> Vec<&'static str> {
    REQUIRED
        .iter()
        .filter(|(capability, _)| !kvm.check_extension(*capability))
        .map(|(_, name)| *name)
        .collect()
}

/// The capabilities of this host's KVM that matter to this VMM.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Capabilities {
    /// Version of KVM's API.
    pub api_version: i32,
    /// Names of the required capabilities that this KVM lacks.
    pub missing: Vec<&'static str>,
    /// Most vCPUs that one guest can have.
    pub max_vcpus: usize,
    /// Size of a vCPU's extended state in bytes (`KVM_CAP_XSAVE2`); zero if only the fixed 4 KiB can be saved.
    pub xsave2_bytes: u64,
    /// `KVM_CAP_TSC_DEADLINE_TIMER`: the local APIC's timer has its TSC deadline mode.
    pub tsc_deadline: bool,
    /// `KVM_CAP_TSC_CONTROL`: a guest's time stamp counter may run at another frequency than the host's.
    pub tsc_scaling: bool,
    /// Size of the state of nested guests in bytes (`KVM_CAP_NESTED_STATE`); zero if it cannot be saved.
    pub nested_state_bytes: u64,
}

impl Capabilities {
    /// Asks KVM for them. `None` if it cannot be opened.
    #[must_use]
    pub fn read() -> Option<Self> {
        let kvm = Kvm::new().ok()?;
        // A negative number is an error: the capability is unknown.
        let size = |capability| u64::try_from(kvm.check_extension_int(capability)).unwrap_or(0);
        Some(Self {
            api_version: kvm.get_api_version(),
            missing: missing(&kvm),
            max_vcpus: kvm.get_max_vcpus(),
            xsave2_bytes: size(Cap::Xsave2),
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            tsc_scaling: kvm.check_extension(Cap::TscControl),
            nested_state_bytes: size(Cap::NestedState),
        })
    }
}
