//! The boot protocol of flat images: memory, page tables, registers.

#![expect(unsafe_code, reason = "memory is handed to KVM by address")]

use guest_images::pulse::layout;
use kvm_bindings::{KVM_MP_STATE_RUNNABLE, kvm_mp_state, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{VcpuFd, VmFd};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

use super::{Features, Shape};

const PML4: u64 = 0x1000;
const PDPT: u64 = 0x2000;
const DIRECTORIES: u64 = 0x3000;
const GDT: u64 = 0x500;

pub(super) fn memory(vm: &VmFd, shape: Shape) -> GuestMemoryMmap {
    let mut ranges = vec![(GuestAddress(0), usize::try_from(shape.low_bytes).unwrap())];
    if shape.high_bytes > 0 {
        ranges.push((GuestAddress(layout::HIGH_START), usize::try_from(shape.high_bytes).unwrap()));
    }
    let memory = GuestMemoryMmap::from_ranges(&ranges).unwrap();
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: memory.get_host_address(region.start_addr()).unwrap() as u64,
        };
        // SAFETY: the range is a mapping owned by `memory`, which `Machine` keeps until its vCPU threads are joined.
        unsafe { vm.set_user_memory_region(region) }.unwrap();
    }
    memory
}

/// An identity map of the first 16 GiB in 2 MiB pages, open to ring 3, and the VMM's descriptor table.
pub(super) fn write_tables(memory: &GuestMemoryMmap) {
    const GIBS: u64 = 16;
    let put = |address: u64, value: u64| memory.write_obj(value, GuestAddress(address)).unwrap();
    put(PML4, PDPT | 7);
    for gib in 0..GIBS {
        put(PDPT + gib * 8, (DIRECTORIES + gib * 0x1000) | 7);
        for page in 0..512 {
            put(DIRECTORIES + gib * 0x1000 + page * 8, gib << 30 | page << 21 | 0x87);
        }
    }
    for (selector, descriptor) in [
        (0x10, 0x00af_9b00_0000_ffff),
        (0x18, 0x00cf_9300_0000_ffff),
        (0x28, 0x00cf_f300_0000_ffff),
        (0x30, 0x00af_fb00_0000_ffff),
    ] {
        put(GDT + selector, descriptor);
    }
}

pub(super) fn start_state(vcpu: &VcpuFd, index: u64, shape: Shape) {
    let flat = kvm_segment {
        limit: u32::MAX,
        present: 1,
        s: 1,
        g: 1,
        type_: 3,
        db: 1,
        selector: 0x18,
        ..Default::default()
    };
    let mut sregs = vcpu.get_sregs().unwrap();
    sregs.cs = kvm_segment { selector: 0x10, type_: 11, db: 0, l: 1, ..flat };
    for segment in [&mut sregs.ds, &mut sregs.es, &mut sregs.fs, &mut sregs.gs, &mut sregs.ss] {
        *segment = flat;
    }
    sregs.gdt.base = GDT;
    sregs.gdt.limit = 0x37;
    sregs.cr3 = PML4;
    sregs.cr0 = 0x8001_0033;
    // PAE, OSFXSR, OSXMMEXCPT
    sregs.cr4 = 0x620;
    if shape.features == Features::All {
        // FSGSBASE, OSXSAVE
        sregs.cr4 |= 0x5_0000;
    }
    sregs.efer = 0xd01;
    vcpu.set_sregs(&sregs).unwrap();
    if shape.features == Features::All {
        let mut xcrs = vcpu.get_xcrs().unwrap();
        xcrs.nr_xcrs = 1;
        xcrs.xcrs[0].value = 7;
        vcpu.set_xcrs(&xcrs).unwrap();
    }
    // All vCPUs start at once; KVM lets only the first.
    vcpu.set_mp_state(kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE }).unwrap();
    let regs = kvm_regs {
        rip: layout::LOAD_ADDRESS,
        rflags: 2,
        rdi: index,
        rsi: shape.cpus,
        rdx: shape.low_bytes,
        rcx: shape.high_bytes,
        ..Default::default()
    };
    vcpu.set_regs(&regs).unwrap();
}
