//! Saved state of one vCPU.

use kvm_bindings::{
    kvm_cpuid_entry2, kvm_debugregs, kvm_dtable, kvm_msr_entry, kvm_regs, kvm_segment, kvm_sregs,
    kvm_vcpu_events, kvm_xcr,
};
use serde::{Deserialize, Serialize};

use crate::schema::{hex, mirror};

mirror! {
    /// General registers.
    pub struct RegsStateV1 = kvm_regs {
        rax: u64, rbx: u64, rcx: u64, rdx: u64, rsi: u64, rdi: u64, rsp: u64, rbp: u64,
        r8: u64, r9: u64, r10: u64, r11: u64, r12: u64, r13: u64, r14: u64, r15: u64,
        rip: u64, rflags: u64,
    }
}

mirror! {
    /// A segment register with its hidden part.
    pub struct SegmentStateV1 = kvm_segment {
        base: u64, limit: u32, selector: u16, type_: u8, present: u8, dpl: u8, db: u8, s: u8, l: u8, g: u8, avl: u8,
        unusable: u8,
    }
    pad { padding }
}

mirror! {
    /// A descriptor table register.
    pub struct TableStateV1 = kvm_dtable { base: u64, limit: u16 }
    pad { padding }
}

mirror! {
    /// Debug registers.
    pub struct DebugRegsStateV1 = kvm_debugregs { db: [u64; 4], dr6: u64, dr7: u64 }
    pad { flags, reserved }
}

mirror! {
    /// An extended control register.
    pub struct XcrStateV1 = kvm_xcr { xcr: u32, value: u64 }
    pad { reserved }
}

mirror! {
    /// A model-specific register.
    pub struct MsrStateV1 = kvm_msr_entry { index: u32, data: u64 }
    pad { reserved }
}

mirror! {
    /// One leaf of the processor's description of itself.
    pub struct CpuidStateV1 = kvm_cpuid_entry2 {
        function: u32, index: u32, flags: u32, eax: u32, ebx: u32, ecx: u32, edx: u32,
    }
    pad { padding }
}

/// Segment, table and control registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "named and defined by the KVM ABI")]
pub struct SregsStateV1 {
    pub cs: SegmentStateV1,
    pub ds: SegmentStateV1,
    pub es: SegmentStateV1,
    pub fs: SegmentStateV1,
    pub gs: SegmentStateV1,
    pub ss: SegmentStateV1,
    pub tr: SegmentStateV1,
    pub ldt: SegmentStateV1,
    pub gdt: TableStateV1,
    pub idt: TableStateV1,
    pub cr0: u64,
    pub cr2: u64,
    pub cr3: u64,
    pub cr4: u64,
    pub cr8: u64,
    pub efer: u64,
    pub apic_base: u64,
    pub interrupt_bitmap: [u64; 4],
}

impl From<&kvm_sregs> for SregsStateV1 {
    fn from(sregs: &kvm_sregs) -> Self {
        let kvm_sregs { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, .. } = sregs;
        let kvm_sregs { cr0, cr2, cr3, cr4, cr8, efer, apic_base, interrupt_bitmap, .. } = *sregs;
        Self {
            cs: cs.into(),
            ds: ds.into(),
            es: es.into(),
            fs: fs.into(),
            gs: gs.into(),
            ss: ss.into(),
            tr: tr.into(),
            ldt: ldt.into(),
            gdt: gdt.into(),
            idt: idt.into(),
            cr0,
            cr2,
            cr3,
            cr4,
            cr8,
            efer,
            apic_base,
            interrupt_bitmap,
        }
    }
}

impl From<&SregsStateV1> for kvm_sregs {
    fn from(state: &SregsStateV1) -> Self {
        let SregsStateV1 { cs, ds, es, fs, gs, ss, tr, ldt, gdt, idt, cr0, cr2, cr3, cr4, cr8, .. } = state;
        let SregsStateV1 { efer, apic_base, interrupt_bitmap, .. } = *state;
        Self {
            cs: cs.into(),
            ds: ds.into(),
            es: es.into(),
            fs: fs.into(),
            gs: gs.into(),
            ss: ss.into(),
            tr: tr.into(),
            ldt: ldt.into(),
            gdt: gdt.into(),
            idt: idt.into(),
            cr0: *cr0,
            cr2: *cr2,
            cr3: *cr3,
            cr4: *cr4,
            cr8: *cr8,
            efer,
            apic_base,
            interrupt_bitmap,
        }
    }
}

/// Exceptions, interrupts and NMIs that are pending or being delivered to the vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "named and defined by the KVM ABI")]
pub struct EventsStateV1 {
    pub exception_injected: u8,
    pub exception_nr: u8,
    pub exception_has_error_code: u8,
    pub exception_pending: u8,
    pub exception_error_code: u32,
    pub exception_has_payload: u8,
    pub exception_payload: u64,
    pub interrupt_injected: u8,
    pub interrupt_nr: u8,
    pub interrupt_soft: u8,
    pub interrupt_shadow: u8,
    pub nmi_injected: u8,
    pub nmi_pending: u8,
    pub nmi_masked: u8,
    pub sipi_vector: u32,
    pub smi_smm: u8,
    pub smi_pending: u8,
    pub smi_smm_inside_nmi: u8,
    pub smi_latched_init: u8,
    pub triple_fault_pending: u8,
    pub flags: u32,
}

impl From<&kvm_vcpu_events> for EventsStateV1 {
    fn from(events: &kvm_vcpu_events) -> Self {
        let kvm_vcpu_events {
            exception,
            interrupt,
            nmi,
            sipi_vector,
            flags,
            smi,
            triple_fault,
            reserved: _,
            exception_has_payload,
            exception_payload,
        } = *events;
        Self {
            exception_injected: exception.injected,
            exception_nr: exception.nr,
            exception_has_error_code: exception.has_error_code,
            // Without KVM_CAP_EXCEPTION_PAYLOAD, which this VMM does not enable, KVM reports a pending exception as injected,
            // too, and on setting accepts only the latter (KVM api.rst, KVM_SET_VCPU_EVENTS).
            exception_pending: exception.pending & !exception.injected,
            exception_error_code: exception.error_code,
            exception_has_payload,
            exception_payload,
            interrupt_injected: interrupt.injected,
            interrupt_nr: interrupt.nr,
            interrupt_soft: interrupt.soft,
            interrupt_shadow: interrupt.shadow,
            nmi_injected: nmi.injected,
            nmi_pending: nmi.pending,
            nmi_masked: nmi.masked,
            sipi_vector,
            smi_smm: smi.smm,
            smi_pending: smi.pending,
            smi_smm_inside_nmi: smi.smm_inside_nmi,
            smi_latched_init: smi.latched_init,
            triple_fault_pending: triple_fault.pending,
            flags,
        }
    }
}

impl From<&EventsStateV1> for kvm_vcpu_events {
    fn from(state: &EventsStateV1) -> Self {
        let mut events = Self {
            sipi_vector: state.sipi_vector,
            flags: state.flags,
            exception_has_payload: state.exception_has_payload,
            exception_payload: state.exception_payload,
            ..Self::default()
        };
        events.exception.injected = state.exception_injected;
        events.exception.nr = state.exception_nr;
        events.exception.has_error_code = state.exception_has_error_code;
        events.exception.pending = state.exception_pending;
        events.exception.error_code = state.exception_error_code;
        events.interrupt.injected = state.interrupt_injected;
        events.interrupt.nr = state.interrupt_nr;
        events.interrupt.soft = state.interrupt_soft;
        events.interrupt.shadow = state.interrupt_shadow;
        events.nmi.injected = state.nmi_injected;
        events.nmi.pending = state.nmi_pending;
        events.nmi.masked = state.nmi_masked;
        events.smi.smm = state.smi_smm;
        events.smi.pending = state.smi_pending;
        events.smi.smm_inside_nmi = state.smi_smm_inside_nmi;
        events.smi.latched_init = state.smi_latched_init;
        events.triple_fault.pending = state.triple_fault_pending;
        events
    }
}

/// The time stamp counter, in a form that lets several vCPUs keep their relation to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TscStateV1 {
    /// The guest's frequency, in kHz.
    pub khz: u32,
    /// The guest's counter at the instant of the save. All vCPUs are read against one reading of the host's counter.
    pub guest_tsc: u64,
}

/// A guest's own use of VT-x or SVM, and the guest it runs at the moment, as `KVM_GET_NESTED_STATE` gives it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NestedStateV1 {
    /// `KVM_STATE_NESTED_…`: the inner guest runs, is about to, interrupts are held back.
    pub flags: u16,
    /// Which vendor's format header and data have: 0 is VT-x, 1 is SVM.
    pub format: u16,
    /// 120 bytes of the vendor's header: where the guest keeps its control structures.
    #[serde(with = "hex")]
    pub header: Vec<u8>,
    /// The control structures that KVM keeps copies of: none, one or two, each 4 KiB.
    #[serde(with = "hex")]
    pub data: Vec<u8>,
}

/// Everything that is saved of one vCPU.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VcpuStateV1 {
    /// `KVM_MP_STATE_…`: running, halted, waiting to be started.
    pub mp_state: u32,
    /// General registers.
    pub regs: RegsStateV1,
    /// Segment, table and control registers.
    pub sregs: SregsStateV1,
    /// x87, SSE, AVX and beyond, in the processor's XSAVE layout.
    #[serde(with = "hex")]
    pub xsave: Vec<u8>,
    /// Extended control registers.
    pub xcrs: Vec<XcrStateV1>,
    /// Debug registers.
    pub debug_regs: DebugRegsStateV1,
    /// The local APIC's register page (1 KiB of it).
    #[serde(with = "hex")]
    pub lapic: Vec<u8>,
    /// Every MSR that the host's KVM lists, and those it omits; without the TSC.
    pub msrs: Vec<MsrStateV1>,
    /// Exceptions and interrupts that are pending or being delivered.
    pub events: EventsStateV1,
    /// The leaves that KVM says the guest sees, not those it was asked to show.
    pub cpuid: Vec<CpuidStateV1>,
    /// The time stamp counter and its frequency.
    pub tsc: TscStateV1,
    /// State of nested virtualization. Left out if the guest is not shown virtualization.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nested: Option<NestedStateV1>,
}
