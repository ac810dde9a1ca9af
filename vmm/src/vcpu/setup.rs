//! The registers a vCPU starts with.

use kvm_bindings::{
    KVM_MP_STATE_RUNNABLE, kvm_dtable, kvm_mp_state, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
    kvm_xcr, kvm_xcrs,
};

use super::tables;
use super::{Error, Vcpu};
use crate::memory::{Layout, layout};

/// `IA32_MISC_ENABLE`. Its bit for fast string operations is one that firmware would have set.
const MSR_MISC_ENABLE: u32 = 0x1a0;
const FAST_STRINGS: u64 = 1;

const CR0_PE: u64 = 1;
const CR0_MP: u64 = 1 << 1;
const CR0_ET: u64 = 1 << 4;
const CR0_NE: u64 = 1 << 5;
const CR0_WP: u64 = 1 << 16;
const CR0_PG: u64 = 1 << 31;
const CR4_PAE: u64 = 1 << 5;
const CR4_OSFXSR: u64 = 1 << 9;
const CR4_OSXMMEXCPT: u64 = 1 << 10;
const CR4_FSGSBASE: u64 = 1 << 16;
const CR4_OSXSAVE: u64 = 1 << 18;
const EFER_SCE: u64 = 1;
const EFER_LME: u64 = 1 << 8;
const EFER_LMA: u64 = 1 << 10;
const EFER_NX: u64 = 1 << 11;
/// Bit 1 of RFLAGS is always set; everything else is off, interrupts included.
const RFLAGS: u64 = 2;

/// XCR0 components given to flat images: x87, SSE, AVX.
const XCR0_FLAT: u64 = 0b111;
const XCR0_X87: u64 = 0b001;

/// How the guest is entered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Entry {
    /// The 64-bit entry point of the Linux boot protocol: only vCPU 0 starts; the others wait for INIT and SIPI.
    Linux {
        /// Guest-physical address of the first instruction.
        address: u64,
    },
    /// The flat protocol ([`crate::boot`]): every vCPU starts.
    Flat,
}

impl Vcpu {
    /// Sets the registers that the vCPU starts with.
    pub(crate) fn set_up(&self, entry: Entry, memory: Layout, vcpus: u8) -> Result<(), Error> {
        let misc = kvm_msr_entry { index: MSR_MISC_ENABLE, data: FAST_STRINGS, ..kvm_msr_entry::default() };
        self.set_msrs(&[misc])?;
        match entry {
            Entry::Linux { .. } if self.index > 0 => Ok(()),
            Entry::Linux { address } => {
                let sregs = self.long_mode_sregs()?;
                let regs = kvm_regs {
                    rip: address,
                    rsi: layout::ZERO_PAGE_ADDRESS,
                    rsp: layout::BOOT_STACK_ADDRESS,
                    rbp: layout::BOOT_STACK_ADDRESS,
                    rflags: RFLAGS,
                    ..kvm_regs::default()
                };
                self.ioctl("KVM_SET_SREGS", self.fd.set_sregs(&sregs))?;
                self.ioctl("KVM_SET_REGS", self.fd.set_regs(&regs))
            }
            Entry::Flat => self.set_up_flat(memory, vcpus),
        }
    }

    fn set_up_flat(&self, memory: Layout, vcpus: u8) -> Result<(), Error> {
        let features = Features::of(self)?;
        let mut sregs = self.long_mode_sregs()?;
        sregs.cr0 |= CR0_MP | CR0_NE | CR0_WP;
        sregs.cr4 |= CR4_OSFXSR | CR4_OSXMMEXCPT;
        sregs.efer |= EFER_SCE | EFER_NX;
        if features.fsgsbase {
            sregs.cr4 |= CR4_FSGSBASE;
        }
        if features.xcr0 & XCR0_FLAT != 0 {
            sregs.cr4 |= CR4_OSXSAVE;
        }
        self.ioctl("KVM_SET_SREGS", self.fd.set_sregs(&sregs))?;
        if features.xcr0 & XCR0_FLAT != 0 {
            let mut xcrs = kvm_xcrs { nr_xcrs: 1, ..kvm_xcrs::default() };
            let value = features.xcr0 & XCR0_FLAT | XCR0_X87;
            xcrs.xcrs[0] = kvm_xcr { xcr: 0, value, ..kvm_xcr::default() };
            self.ioctl("KVM_SET_XCRS", self.fd.set_xcrs(&xcrs))?;
        }
        let regs = kvm_regs {
            rip: layout::FLAT_IMAGE_ADDRESS,
            rdi: u64::from(self.index),
            rsi: u64::from(vcpus),
            rdx: memory.low_bytes(),
            rcx: memory.high_bytes(),
            rflags: RFLAGS,
            ..kvm_regs::default()
        };
        self.ioctl("KVM_SET_REGS", self.fd.set_regs(&regs))?;
        let runnable = kvm_mp_state { mp_state: KVM_MP_STATE_RUNNABLE };
        self.ioctl("KVM_SET_MP_STATE", self.fd.set_mp_state(runnable))
    }

    /// 64-bit mode, ring 0, flat segments, paging through the boot tables.
    fn long_mode_sregs(&self) -> Result<kvm_sregs, Error> {
        let code = kvm_segment {
            limit: u32::MAX,
            selector: tables::CODE_SELECTOR,
            type_: 0b1011,
            present: 1,
            s: 1,
            l: 1,
            g: 1,
            ..kvm_segment::default()
        };
        let data = kvm_segment { selector: tables::DATA_SELECTOR, type_: 0b0011, l: 0, db: 1, ..code };
        let sregs = self.ioctl("KVM_GET_SREGS", self.fd.get_sregs())?;
        Ok(kvm_sregs {
            cs: code,
            ds: data,
            es: data,
            fs: data,
            gs: data,
            ss: data,
            gdt: kvm_dtable { base: layout::GDT_ADDRESS, limit: tables::GDT_LIMIT, ..kvm_dtable::default() },
            idt: kvm_dtable { base: layout::IDT_ADDRESS, limit: 0, ..kvm_dtable::default() },
            cr0: CR0_PE | CR0_ET | CR0_PG,
            cr3: layout::PAGE_TABLE_ADDRESS,
            cr4: CR4_PAE,
            efer: EFER_LME | EFER_LMA,
            ..sregs
        })
    }
}

/// Features that are turned on for a flat image if the vCPU has them.
struct Features {
    fsgsbase: bool,
    xcr0: u64,
}

impl Features {
    fn of(vcpu: &Vcpu) -> Result<Self, Error> {
        let cpuid = vcpu.fd.get_cpuid2(kvm_bindings::KVM_MAX_CPUID_ENTRIES);
        let cpuid = vcpu.ioctl("KVM_GET_CPUID2", cpuid)?;
        let leaf = |function, index| {
            cpuid.as_slice().iter().find(|leaf| leaf.function == function && leaf.index == index)
        };
        Ok(Self {
            fsgsbase: leaf(7, 0).is_some_and(|leaf| leaf.ebx & 1 != 0),
            xcr0: leaf(0xd, 0).map_or(0, |leaf| u64::from(leaf.eax) | u64::from(leaf.edx) << 32),
        })
    }
}
