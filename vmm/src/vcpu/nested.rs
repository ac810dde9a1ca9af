//! A guest that runs guests of its own.
//!
//! KVM keeps state that belongs to neither the registers nor the memory of such a guest: whether its inner guest runs right now,
//! and the control structure it was entered with. Without that state a clone would start with the inner guest's registers in place
//! of the outer guest's (Documentation/virt/kvm/api.rst, `KVM_GET_NESTED_STATE`).

use kvm_bindings::nested::KvmNestedStateBuffer;
use vmm_sys_util::errno;

use super::state::{CpuidStateV1, NestedStateV1};
use super::{Error, Vcpu, cpuid};
use crate::sys::nested;

impl Vcpu {
    /// The state of nested virtualization, if the guest is shown virtualization.
    pub(super) fn save_nested(&self, cpuid: &[CpuidStateV1]) -> Result<Option<NestedStateV1>, Error> {
        if !cpuid::shows_virtualization(cpuid) {
            return Ok(None);
        }
        let mut state = KvmNestedStateBuffer::empty();
        // The length that the call returns is in the state as well. Without control structures there still are flags.
        self.ioctl("KVM_GET_NESTED_STATE", self.fd.nested_state(&mut state))?;
        let (header, data) = nested::parts(&state);
        let (header, data) = (header.to_vec(), data.to_vec());
        Ok(Some(NestedStateV1 { flags: state.flags, format: state.format, header, data }))
    }

    pub(super) fn restore_nested(&self, state: Option<&NestedStateV1>) -> Result<(), Error> {
        let Some(NestedStateV1 { flags, format, header, data }) = state else { return Ok(()) };
        let state = nested::from_parts(*flags, *format, header, data).ok_or(errno::Error::new(libc::EINVAL));
        let set = state.and_then(|state| self.fd.set_nested_state(&state));
        self.ioctl("KVM_SET_NESTED_STATE", set)
    }
}
