//! A KVM virtual machine and the memory it runs in, tied together.

#![expect(unsafe_code, reason = "KVM keeps the host addresses of memory slots")]

use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vmm_sys_util::errno;

use crate::memory::GuestMemory;

/// A VM descriptor that cannot outlive its guest memory.
///
/// A vCPU descriptor keeps the kernel's VM alive as well: whoever creates one through [`Machine::fd`] keeps this value
/// beside it (see [`crate::vcpu::Vcpu`]).
#[derive(Debug)]
pub struct Machine {
    // Before `memory`: fields are dropped in this order.
    fd: VmFd,
    memory: GuestMemory,
}

impl Machine {
    /// Makes `memory` the guest memory of `fd`, one slot per region, numbered from zero.
    ///
    /// # Errors
    /// The kernel's.
    pub fn new(fd: VmFd, memory: GuestMemory) -> Result<Self, errno::Error> {
        let machine = Self { fd, memory };
        for (slot, region) in (0..).zip(machine.memory.regions()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags: 0,
                guest_phys_addr: region.range().start,
                memory_size: region.mapping().len_bytes() as u64,
                userspace_addr: region.mapping().host_address(),
            };
            // SAFETY: the slot is exactly a live mapping. The mapping is part of `machine`, which drops it after the
            // VM descriptor and hands out shared references only, and is kept by every vCPU.
            unsafe { machine.fd.set_user_memory_region(slot)? };
        }
        Ok(machine)
    }

    /// The VM descriptor.
    #[must_use]
    pub const fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// The guest memory.
    #[must_use]
    pub const fn memory(&self) -> &GuestMemory {
        &self.memory
    }
}
