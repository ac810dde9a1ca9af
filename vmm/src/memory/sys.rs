//! A KVM virtual machine and the memory it runs in, tied together.

#![expect(unsafe_code, reason = "KVM keeps the host addresses of memory slots")]

use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, kvm_userspace_memory_region};
use kvm_ioctls::VmFd;
use vmm_sys_util::errno;

use super::GuestMemory;

/// A VM descriptor that cannot outlive its guest memory.
///
/// A vCPU descriptor keeps the kernel's VM alive as well: code that creates one through [`Machine::fd`] must keep this value
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
    /// The kernel's reason for refusing `KVM_SET_USER_MEMORY_REGION`.
    pub fn new(fd: VmFd, memory: GuestMemory) -> Result<Self, errno::Error> {
        let machine = Self { fd, memory };
        machine.set_slots(0)?;
        Ok(machine)
    }

    /// Makes KVM log which pages the guest changes from now on, starting with an empty log, or makes it stop. The vCPUs must be
    /// paused.
    ///
    /// # Errors
    /// The kernel's reason for refusing `KVM_SET_USER_MEMORY_REGION`.
    pub fn log_dirty(&self, wanted: bool) -> Result<(), errno::Error> {
        self.set_slots(if wanted { KVM_MEM_LOG_DIRTY_PAGES } else { 0 })
    }

    /// What was logged for a region's slot since the log was last read; reading it empties it. Bit `j` of word `i` is page
    /// `64 * i + j`.
    ///
    /// # Errors
    /// `ENOENT` unless [`Machine::log_dirty`] was called; otherwise the kernel's reason for refusing `KVM_GET_DIRTY_LOG`.
    ///
    /// # Panics
    /// If there is no such region.
    pub fn dirty_log(&self, region: usize) -> Result<Vec<u64>, errno::Error> {
        let len_bytes = self.memory.regions()[region].mapping().len_bytes();
        let slot = u32::try_from(region).expect("one or two regions");
        self.fd.get_dirty_log(slot, len_bytes)
    }

    /// Sets all slots, or changes their flags only: address and size are the same every time.
    fn set_slots(&self, flags: u32) -> Result<(), errno::Error> {
        for (slot, region) in (0..).zip(self.memory.regions()) {
            let slot = kvm_userspace_memory_region {
                slot,
                flags,
                guest_phys_addr: region.range().start,
                memory_size: region.mapping().len_bytes() as u64,
                userspace_addr: region.mapping().host_address(),
            };
            // SAFETY: the slot is exactly a live mapping. The mapping is part of `self`, which drops it after the
            // VM descriptor and hands out shared references only, and is kept by every vCPU.
            unsafe { self.fd.set_user_memory_region(slot)? };
        }
        Ok(())
    }

    /// The VM descriptor.
    #[must_use]
    pub const fn fd(&self) -> &VmFd {
        &self.fd
    }

    /// The memory alone, once the machine is gone.
    #[must_use]
    pub fn into_memory(self) -> GuestMemory {
        let Self { fd, memory } = self;
        // The descriptor goes first, as when both are dropped.
        drop(fd);
        memory
    }

    /// The guest memory.
    #[must_use]
    pub const fn memory(&self) -> &GuestMemory {
        &self.memory
    }
}
