//! The state of a VM, apart from its memory, as it outlives the process.
//!
//! [`VmStateV1`] is the schema: plain numbers, nothing guaranteed. [`VmState`] is one that was checked, which is what a
//! VM can be restored from; the only way there is `TryFrom`. In bytes it is text in an [`envelope`](crate::schema::envelope).

mod bytes;
mod validate;

use serde::{Deserialize, Serialize};

pub use bytes::DecodeError;

use crate::devices::DeviceStateV1;
use crate::host::Host;
use crate::interrupt::state::InterruptStateV1;
use crate::memory::Layout;
use crate::vcpu::cpuid;
use crate::vcpu::state::VcpuStateV1;

/// Why a state is not one, or not one for here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number is outside its range.
    #[error("{field} is {value}, allowed is {allowed}")]
    OutOfRange {
        /// Where it stands.
        field: String,
        /// What it is.
        value: u64,
        /// What it may be.
        allowed: String,
    },
    /// Something is listed twice.
    #[error("{field} lists {value:#x} twice")]
    Duplicate {
        /// Where.
        field: String,
        /// What.
        value: u64,
    },
    /// A guest that is shown virtualization has state of it, and no other guest.
    #[error(
        "{field}: {}",
        if *shown { "the guest's CPUID shows virtualization, but there is no state of it" }
        else { "there is state of nested virtualization, but the guest's CPUID shows none" }
    )]
    Nested {
        /// Where it stands.
        field: String,
        /// Whether the guest is shown virtualization.
        shown: bool,
    },
    /// vCPUs whose time stamp counters run at different frequencies.
    #[error("vcpus[{vcpu}].tsc.khz is {khz}, that of vcpus[0] is {first_khz}")]
    Frequencies {
        /// Which vCPU.
        vcpu: usize,
        /// Its frequency.
        khz: u32,
        /// The first one's.
        first_khz: u32,
    },
    /// The guest runs guests of its own, whose state this host cannot restore.
    #[error("the guest is shown virtualization, and this host's KVM offers none (KVM_CAP_NESTED_STATE)")]
    NoNested,
    /// The memory that came with the state has another size.
    #[error(
        "the state is of a guest with {state_bytes} bytes of memory, the memory given has {memory_bytes}"
    )]
    MemorySize {
        /// The state's.
        state_bytes: u64,
        /// The memory's.
        memory_bytes: u64,
    },
    /// It was saved on a processor this host cannot stand in for.
    #[error("foreign processor")]
    Cpu(#[from] cpuid::Mismatch),
}

/// Schema, version 1.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmStateV1 {
    /// Bytes of guest memory; the layout follows from it.
    pub memory_bytes: u64,
    /// How many times it was cloned. Left out for a machine that never was, and so in states from before this was counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub generation: u64,
    /// Every vCPU, by index.
    pub vcpus: Vec<VcpuStateV1>,
    /// Interrupt controllers, timer, clock.
    pub interrupts: InterruptStateV1,
    /// Devices.
    pub devices: DeviceStateV1,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes references")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// A state whose every field was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmState(VmStateV1);

impl TryFrom<VmStateV1> for VmState {
    type Error = Error;

    fn try_from(state: VmStateV1) -> Result<Self, Error> {
        validate::validate(&state)?;
        Ok(Self(state))
    }
}

impl VmState {
    /// The numbers.
    #[must_use]
    pub const fn get(&self) -> &VmStateV1 {
        &self.0
    }

    /// The layout of the memory that belongs to it.
    ///
    /// # Panics
    /// Never: the size was validated.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(self.0.memory_bytes).expect("validated")
    }

    /// Checks that it can be restored on this host into memory of this layout.
    ///
    /// # Errors
    /// What does not fit.
    pub(crate) fn check(&self, host: &Host, memory: Layout) -> Result<(), Error> {
        if memory != self.layout() {
            return Err(Error::MemorySize {
                state_bytes: self.0.memory_bytes,
                memory_bytes: memory.size_bytes(),
            });
        }
        let allowed = host.xsave_len_bytes();
        for (i, vcpu) in self.0.vcpus.iter().enumerate() {
            cpuid::check(host, &vcpu.cpuid)?;
            if vcpu.nested.is_some() && !cpuid::offers_virtualization(host) {
                return Err(Error::NoNested);
            }
            if vcpu.xsave.len() != allowed {
                return Err(Error::OutOfRange {
                    field: format!("vcpus[{i}].xsave length"),
                    value: vcpu.xsave.len() as u64,
                    allowed: format!("{allowed}, as this host's KVM_CAP_XSAVE2 says"),
                });
            }
        }
        Ok(())
    }
}
