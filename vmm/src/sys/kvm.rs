//! The KVM calls that `kvm-ioctls` leaves unsafe or leaves out.
//!
//! Source of every rule: `Documentation/virt/kvm/api.rst` of Linux, by the name of the ioctl.

#![expect(unsafe_code, reason = "ioctls with raw addresses, and unions of the KVM ABI")]

use std::ffi::c_ulong;
use std::io;
use std::mem::offset_of;
use std::os::fd::{AsRawFd, BorrowedFd};

use kvm_bindings::{
    KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, Xsave, kvm_device_attr, kvm_ioapic_state, kvm_irqchip,
    kvm_pic_state, kvm_run, kvm_xsave,
};
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use vmm_sys_util::errno;
use vmm_sys_util::ioctl::{ioctl_expr, ioctl_with_ref};

use super::mmap::{Mapping, MappingSource};
use super::page::PAGE_SIZE;

/// Size in bytes of `struct kvm_xsave` for `KVM_GET_XSAVE`; `KVM_CAP_XSAVE2` may ask for more.
pub(crate) const XSAVE_MIN_BYTES: usize = 4096;

const _: () = assert!(size_of::<kvm_xsave>() == XSAVE_MIN_BYTES);

// All three are `_IOW(KVMIO, number, struct kvm_device_attr)`; kvm-ioctls offers them for vCPUs on other machines only.
const SET_DEVICE_ATTR: c_ulong = device_attr(0xe1);
const GET_DEVICE_ATTR: c_ulong = device_attr(0xe2);
const HAS_DEVICE_ATTR: c_ulong = device_attr(0xe3);

/// The extended state (x87, SSE, AVX and beyond), as long as this VM's `KVM_CAP_XSAVE2` says.
///
/// # Errors
/// The kernel's reason for refusing `KVM_GET_XSAVE2`; `ENOMEM` if there is no memory for the state.
pub(crate) fn xsave(vm: &VmFd, vcpu: &VcpuFd) -> Result<Vec<u8>, errno::Error> {
    let len_bytes = xsave_len_bytes(vm);
    let mut xsave =
        Xsave::new((len_bytes - XSAVE_MIN_BYTES) / 4).map_err(|_| errno::Error::new(libc::ENOMEM))?;
    // SAFETY: the buffer has the size that KVM_CHECK_EXTENSION(KVM_CAP_XSAVE2) on this VM asks for.
    unsafe { vcpu.get_xsave2(&mut xsave)? };
    let head = &xsave.as_fam_struct_ref().xsave.region;
    Ok(head.iter().chain(xsave.as_slice()).flat_map(|word| word.to_le_bytes()).collect())
}

/// Sets the extended state.
///
/// # Errors
/// `EINVAL` if `bytes` does not have the size that this VM's KVM will read, because KVM is not told the length; otherwise the
/// kernel's reason for refusing `KVM_SET_XSAVE`.
pub(crate) fn set_xsave(vm: &VmFd, vcpu: &VcpuFd, bytes: &[u8]) -> Result<(), errno::Error> {
    if bytes.len() != xsave_len_bytes(vm) {
        return Err(errno::Error::new(libc::EINVAL));
    }
    let (words, _) = bytes.as_chunks::<4>();
    let mut xsave =
        Xsave::new(words.len() - XSAVE_MIN_BYTES / 4).map_err(|_| errno::Error::new(libc::ENOMEM))?;
    let (head, tail) = words.split_at(XSAVE_MIN_BYTES / 4);
    // SAFETY: the length of the flexible array is not changed, only the words before it.
    let header = unsafe { xsave.as_mut_fam_struct() };
    for (to, from) in header.xsave.region.iter_mut().zip(head) {
        *to = u32::from_le_bytes(*from);
    }
    for (to, from) in xsave.as_mut_slice().iter_mut().zip(tail) {
        *to = u32::from_le_bytes(*from);
    }
    // SAFETY: KVM reads KVM_CAP_XSAVE2 bytes, which is what was checked above.
    unsafe { vcpu.set_xsave2(&xsave) }
}

/// Bytes of extended state per vCPU of this VM.
#[must_use]
pub(crate) fn xsave_len_bytes(vm: &VmFd) -> usize {
    // Zero if the capability is unknown; then the fixed size is all there is.
    usize::try_from(vm.check_extension_int(Cap::Xsave2)).unwrap_or(0).max(XSAVE_MIN_BYTES)
}

/// The `immediate_exit` flag of a vCPU's `kvm_run` page, through a mapping of its own: the mapping that `kvm-ioctls` made belongs
/// to the thread that runs the vCPU.
#[derive(Debug)]
pub(crate) struct ImmediateExit(Mapping);

impl ImmediateExit {
    const OFFSET: usize = offset_of!(kvm_run, immediate_exit);

    /// Maps the page that has the flag.
    ///
    /// # Errors
    /// As for [`Mapping::new`].
    pub(crate) fn map(vcpu: &VcpuFd) -> io::Result<Self> {
        // SAFETY: the descriptor is open for as long as `vcpu` is borrowed, which is longer than this call.
        let fd = unsafe { BorrowedFd::borrow_raw(vcpu.as_raw_fd()) };
        Mapping::new(MappingSource::Shared(fd), PAGE_SIZE, 0).map(Self)
    }

    /// Makes the next `KVM_RUN` return EINTR before it enters the guest, or lets it enter.
    pub(crate) fn set(&self, exit: bool) {
        self.0
            .write(Self::OFFSET, &[u8::from(exit)])
            .expect("the flag lies within the first page, asserted below");
    }
}

const _: () = assert!(ImmediateExit::OFFSET < PAGE_SIZE);

/// The bytes that KVM's emulator failed on: those of the instruction at RIP, as far as it fetched them.
///
/// Empty if the last exit was not an emulation failure or carries no bytes.
pub(crate) fn emulation_failure_bytes(vcpu: &mut VcpuFd) -> Vec<u8> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != kvm_bindings::KVM_EXIT_INTERNAL_ERROR {
        return Vec::new();
    }
    // SAFETY: `emulation_failure` is the view of the union for exit reason INTERNAL_ERROR; it consists of integers, so
    // every bit pattern is a value.
    let failure = unsafe { run.__bindgen_anon_1.emulation_failure };
    let has_bytes = failure.suberror == kvm_bindings::KVM_INTERNAL_ERROR_EMULATION
        && failure.ndata >= 3
        && failure.flags & u64::from(kvm_bindings::KVM_INTERNAL_ERROR_EMULATION_FLAG_INSTRUCTION_BYTES) != 0;
    if !has_bytes {
        return Vec::new();
    }
    // SAFETY: integers again, valid by the flag just checked.
    let instruction = unsafe { failure.__bindgen_anon_1.__bindgen_anon_1 };
    let len = usize::from(instruction.insn_size).min(instruction.insn_bytes.len());
    instruction.insn_bytes[..len].to_vec()
}

/// Suberror of the last exit, if that was `KVM_EXIT_INTERNAL_ERROR`.
pub(crate) fn internal_suberror(vcpu: &mut VcpuFd) -> Option<u32> {
    let run = vcpu.get_kvm_run();
    if run.exit_reason != kvm_bindings::KVM_EXIT_INTERNAL_ERROR {
        return None;
    }
    // SAFETY: `internal` is the view of the union for this exit reason, and consists of integers.
    Some(unsafe { run.__bindgen_anon_1.internal.suberror })
}

/// Offset of the guest's TSC from the host's (`KVM_VCPU_TSC_OFFSET`). `None` if this KVM does not have that attribute.
///
/// # Errors
/// The kernel's reason for refusing `KVM_GET_DEVICE_ATTR`.
pub(crate) fn tsc_offset(vcpu: &VcpuFd) -> Result<Option<u64>, errno::Error> {
    let mut offset = 0_u64;
    let attribute = tsc_offset_attribute(&raw mut offset);
    // SAFETY: HAS_DEVICE_ATTR reads the attribute's numbers only.
    if unsafe { ioctl_with_ref(vcpu, HAS_DEVICE_ATTR, &attribute) } != 0 {
        return Ok(None);
    }
    // SAFETY: KVM writes one u64 to `addr`, which points at `offset`.
    if unsafe { ioctl_with_ref(vcpu, GET_DEVICE_ATTR, &attribute) } != 0 {
        return Err(errno::Error::last());
    }
    Ok(Some(offset))
}

/// Sets the offset of the guest's TSC from the host's.
///
/// # Errors
/// The kernel's reason for refusing `KVM_SET_DEVICE_ATTR`: `ENXIO` if the attribute does not exist.
pub(crate) fn set_tsc_offset(vcpu: &VcpuFd, mut offset: u64) -> Result<(), errno::Error> {
    let attribute = tsc_offset_attribute(&raw mut offset);
    // SAFETY: KVM reads one u64 from `addr`, which points at `offset`.
    let result = unsafe { ioctl_with_ref(vcpu, SET_DEVICE_ATTR, &attribute) };
    if result == 0 { Ok(()) } else { Err(errno::Error::last()) }
}

/// The host's time stamp counter.
#[must_use]
pub(crate) fn host_tsc() -> u64 {
    // SAFETY: RDTSC exists on every x86-64 processor and has no memory operand.
    unsafe { core::arch::x86_64::_rdtsc() }
}

/// The 8259 of a `KVM_GET_IRQCHIP` answer for chip id `PIC_MASTER` or `PIC_SLAVE`.
#[must_use]
pub(crate) fn pic(irqchip: &kvm_irqchip) -> kvm_pic_state {
    // SAFETY: the structure consists of integers and lies within the union, so every bit pattern is a value.
    unsafe { irqchip.chip.pic }
}

/// The I/O APIC of a `KVM_GET_IRQCHIP` answer for chip id `IOAPIC`, and its redirection table as words.
#[must_use]
pub(crate) fn io_apic(irqchip: &kvm_irqchip) -> (kvm_ioapic_state, [u64; 24]) {
    // SAFETY: as in `pic`.
    let ioapic = unsafe { irqchip.chip.ioapic };
    // SAFETY: `bits` covers the whole of each entry, and every pattern is a u64.
    let redirections = ioapic.redirtbl.map(|entry| unsafe { entry.bits });
    (ioapic, redirections)
}

const fn device_attr(number: u32) -> c_ulong {
    const SIZE_BYTES: u32 = 24;
    const _: () = assert!(size_of::<kvm_device_attr>() == SIZE_BYTES as usize);
    ioctl_expr(vmm_sys_util::ioctl::_IOC_WRITE, kvm_bindings::KVMIO, number, SIZE_BYTES)
}

fn tsc_offset_attribute(offset: *mut u64) -> kvm_device_attr {
    kvm_device_attr {
        flags: 0,
        group: KVM_VCPU_TSC_CTRL,
        attr: u64::from(KVM_VCPU_TSC_OFFSET),
        addr: offset.expose_provenance() as u64,
    }
}
