//! The state of a VM, apart from its memory, as it outlives the process.
//!
//! [`VmStateV2`] is the schema: plain numbers, nothing guaranteed. [`VmState`] is one that was checked, and a VM can be restored
//! only from that; the only way to get one is `TryFrom`. In bytes it is text in an [`envelope`](crate::schema::envelope).

mod bytes;
mod validate;

use serde::{Deserialize, Serialize};

pub use bytes::DecodeError;

use crate::devices::state::DeviceStates;
use crate::host::{Host, Virtualization};
use crate::interrupt::state::InterruptStateV1;
use crate::memory::Layout;
use crate::vcpu::cpuid;
use crate::vcpu::state::VcpuStateV1;

/// Why a state is not valid, or does not fit this host or the memory it is to be restored with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A number is outside its range.
    #[error("{field} is {value}, allowed is {allowed}")]
    OutOfRange {
        /// Path of the field, such as `vcpus[0].sregs.cr8`.
        field: String,
        /// The number found there.
        value: u64,
        /// The allowed numbers, in words.
        allowed: String,
    },
    /// A text has a character that is not printable ASCII.
    #[error("{field} has {character:?} at byte {at}, allowed is printable ASCII")]
    Unprintable {
        /// Path of the field.
        field: String,
        /// Offset of the first such character, in bytes.
        at: usize,
        /// The character found there.
        character: char,
    },
    /// A list has an entry twice.
    #[error("{field} lists {value:#x} twice")]
    Duplicate {
        /// Path of the list.
        field: String,
        /// The entry, such as the index of an MSR.
        value: u64,
    },
    /// State of nested virtualization and what the guest's CPUID shows contradict each other: there must be either both or neither.
    #[error(
        "{field}: {}",
        if *shown { "the guest's CPUID shows virtualization, but there is no state of nested virtualization" }
        else { "there is state of nested virtualization, but the guest's CPUID shows no virtualization" }
    )]
    Nested {
        /// Path of the vCPU.
        field: String,
        /// Whether the guest's CPUID shows virtualization.
        shown: bool,
    },
    /// The time stamp counters of the vCPUs run at different frequencies.
    #[error("vcpus[{vcpu}].tsc.khz is {khz}, that of vcpus[0] is {first_khz}")]
    Frequencies {
        /// Index of the first vCPU that differs.
        vcpu: usize,
        /// The frequency of its counter, in kHz.
        khz: u32,
        /// The frequency of vCPU 0's counter, in kHz.
        first_khz: u32,
    },
    /// The guest ran under the other kind of virtualization. It has adapted to that: to the features it was shown, and to how its
    /// clock goes.
    #[error("the state was saved with {saved}, this host has {host}")]
    Virtualization {
        /// What ran the guest's ring 0 when it was saved.
        saved: Virtualization,
        /// What would run it here.
        host: Virtualization,
    },
    /// The guest may run guests of its own, and this host cannot restore their state.
    #[error(
        "the guest is shown virtualization, but this host's KVM does not offer it (KVM_CAP_NESTED_STATE)"
    )]
    NoNested,
    /// The memory that came with the state has another size.
    #[error(
        "the state is of a guest with {state_bytes} bytes of memory, the memory given has {memory_bytes}"
    )]
    MemorySize {
        /// Size of memory that the state names, in bytes.
        state_bytes: u64,
        /// Size of the memory given, in bytes.
        memory_bytes: u64,
    },
    /// The state was saved on a processor that this host's cannot stand in for.
    #[error("the state was saved on a different kind of processor")]
    Cpu(#[from] cpuid::Mismatch),
}

/// The program that writes states, and its version.
pub(crate) const PRODUCER: &str = concat!(env!("CARGO_PKG_NAME"), " ", env!("CARGO_PKG_VERSION"));

/// Version 2 of the schema.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmStateV2 {
    /// Name and version of the program that saved the state: 1 to 64 printable ASCII characters. For people who look into it;
    /// nothing depends on it.
    pub producer: String,
    /// What ran the guest's ring 0. Under the other kind of virtualization the guest cannot go on.
    pub virtualization: Virtualization,
    /// Bytes of guest memory; the layout follows from it.
    pub memory_bytes: u64,
    /// How many times the machine was cloned: 0 for one that was booted.
    pub generation: u64,
    /// Every vCPU, by index.
    pub vcpus: Vec<VcpuStateV1>,
    /// Interrupt controllers, timer, clock.
    pub interrupts: InterruptStateV1,
    /// Every emulated device that has state, by its id.
    pub devices: DeviceStates,
}

/// A state whose every field was checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmState(VmStateV2);

impl TryFrom<VmStateV2> for VmState {
    type Error = Error;

    fn try_from(state: VmStateV2) -> Result<Self, Error> {
        validate::validate(&state)?;
        Ok(Self(state))
    }
}

impl VmState {
    /// The checked fields.
    #[must_use]
    pub const fn get(&self) -> &VmStateV2 {
        &self.0
    }

    /// The layout of the memory that belongs to the state.
    ///
    /// # Panics
    /// Never: the size was validated.
    #[must_use]
    pub fn layout(&self) -> Layout {
        Layout::new(self.0.memory_bytes).expect("the size was validated")
    }

    /// Checks that the state can be restored on this host, with memory of this layout.
    ///
    /// # Errors
    /// The first thing that does not fit, in this order: [`Error::Virtualization`]; [`Error::MemorySize`]; of each vCPU
    /// [`Error::Cpu`], [`Error::NoNested`], or [`Error::OutOfRange`] for an XSAVE area of another length than this host's.
    pub(crate) fn check(&self, host: &Host, memory: Layout) -> Result<(), Error> {
        let (saved, own) = (self.0.virtualization, host.virtualization());
        if saved != own {
            return Err(Error::Virtualization { saved, host: own });
        }
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
