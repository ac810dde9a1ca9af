//! What the guest is told about its processor.

use kvm_bindings::{CpuId, kvm_cpuid_entry2};
use kvm_ioctls::Cap;

use super::state::CpuidStateV1;
use crate::host::{Host, Virtualization};

/// This host's processor cannot stand in for the one that a snapshot was taken on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// Another vendor made it: too much differs to compare single bits.
    #[error("the snapshot was taken on a processor by {snapshot}, this host's is by {host}")]
    Vendor {
        /// Vendor that the guest sees: the twelve characters of CPUID leaf 0.
        snapshot: String,
        /// Vendor of this host's processor, in the same form.
        host: String,
    },
    /// This host lacks a feature that the guest may use.
    #[error(
        "this host's processor lacks a feature the guest may use: CPUID leaf {leaf:#x}.{subleaf} {register} bit {bit}"
    )]
    Feature {
        /// CPUID function (EAX on input).
        leaf: u32,
        /// CPUID index (ECX on input).
        subleaf: u32,
        /// Output register that has the bit, such as `ECX`.
        register: &'static str,
        /// The lowest bit that is missing, 0 to 31.
        bit: u32,
    },
}

/// VMX and SMX in leaf 1, ECX.
const VT_X: u32 = 1 << 5 | 1 << 6;
const VMX: u32 = 1 << 5;
/// SVM and SKINIT in leaf `0x8000_0001`, ECX.
const SVM_AND_SKINIT: u32 = 1 << 2 | 1 << 12;
const SVM: u32 = 1 << 2;
/// The features of SVM.
const LEAF_SVM: u32 = 0x8000_000a;

/// KVM's own features (Documentation/virt/kvm/x86/cpuid.rst).
const LEAF_KVM_FEATURES: u32 = 0x4000_0001;
/// `KVM_FEATURE_ASYNC_PF`, `…_ASYNC_PF_VMEXIT` and `…_ASYNC_PF_INT` in EAX: asynchronous page faults. A guest that uses them puts a
/// task whose page is missing to sleep, and relies on an interrupt that says when the page is there. In clones whose memory arrives
/// as it is touched, that interrupt does not always come, and the task sleeps forever: seen with Debian's cloud kernel, and by
/// others (firecracker#3020, cloud-hypervisor#2277).
const ASYNC_PAGE_FAULTS: u32 = 1 << 4 | 1 << 10 | 1 << 14;

/// Feature leaves: every set bit is something the guest may rely on.
///
/// The masks take out bits that are not features: leaf 1 ECX bit 27 (OSXSAVE) and leaf 7 ECX bit 4 (OSPKE) mirror CR4, leaf 1 ECX
/// bit 31 says "hypervisor", and bit 24 (TSC deadline) is given by the in-kernel local APIC. EDX bit 28 (HTT) says that a package
/// has several processors, which this VMM decides.
const FEATURES: &[(u32, u32, [u32; 4])] = &[
    (1, 0, [0, 0, !(1 << 27 | 1 << 31 | 1 << 24), !(1 << 28)]),
    (7, 0, [0, !0, !(1 << 4), !0]),
    (7, 1, [!0, 0, 0, 0]),
    (0xd, 0, [!0, 0, 0, !0]),
    (0xd, 1, [!0, 0, 0, 0]),
    (0x8000_0001, 0, [0, 0, !0, !0]),
    (0x8000_0007, 0, [0, 0, 0, 1 << 8]),
    (LEAF_SVM, 0, [0, 0, 0, !0]),
];

const REGISTERS: [&str; 4] = ["EAX", "EBX", "ECX", "EDX"];

/// The leaves for vCPU `index` of `count`: what KVM supports, with the topology of one socket of single-threaded cores.
/// Virtualization is shown only if `nested` is set: it has state that must be saved, and most guests have no use for it.
#[must_use]
pub fn for_vcpu(host: &Host, index: u8, count: u8, nested: bool) -> CpuId {
    let mut cpuid = host.supported_cpuid().clone();
    let (index, count) = (u32::from(index), u32::from(count));
    for leaf in cpuid.as_mut_slice() {
        match leaf.function {
            // Initial APIC id, number of logical processors, and the bit that says there is a hypervisor.
            1 => {
                leaf.ebx = leaf.ebx & 0x0000_ffff | count << 16 | index << 24;
                leaf.ecx |= 1 << 31;
                if !nested {
                    leaf.ecx &= !VT_X;
                }
                if host.tsc_deadline() {
                    leaf.ecx |= 1 << 24;
                }
                // HTT: the count above is valid.
                if count > 1 {
                    leaf.edx |= 1 << 28;
                } else {
                    leaf.edx &= !(1 << 28);
                }
            }
            // Cores per package (Intel). Each cache belongs to one core.
            4 => leaf.eax = leaf.eax & 0x0000_3fff | (count - 1) << 26,
            // Extended topology: one thread per core, `count` cores.
            0xb | 0x1f => {
                let (shift, processors, level) = match leaf.index {
                    0 => (0, 1, 1),
                    1 => (count.next_power_of_two().trailing_zeros(), count, 2),
                    _ => (0, 0, 0),
                };
                leaf.eax = shift;
                leaf.ebx = processors;
                leaf.ecx = level << 8 | leaf.index;
                leaf.edx = index;
            }
            LEAF_KVM_FEATURES => leaf.eax &= !ASYNC_PAGE_FAULTS,
            0x8000_0001 if !nested => leaf.ecx &= !SVM_AND_SKINIT,
            LEAF_SVM if !nested => (leaf.eax, leaf.ebx, leaf.ecx, leaf.edx) = (0, 0, 0, 0),
            // Cores of the package (AMD), and their APIC id width.
            0x8000_0008 => {
                let width = count.next_power_of_two().trailing_zeros();
                leaf.ecx = (count - 1) | width << 12;
            }
            // Extended APIC id, core id, node id (AMD).
            0x8000_001e => {
                leaf.eax = index;
                leaf.ebx = index;
                leaf.ecx = 0;
            }
            _ => {}
        }
    }
    cpuid
}

/// Checks that this host has every feature a saved vCPU may use.
///
/// # Errors
/// [`Mismatch::Vendor`] for a processor by another vendor, otherwise [`Mismatch::Feature`] with the first bit that is missing.
pub fn check(host: &Host, saved: &[CpuidStateV1]) -> Result<(), Mismatch> {
    let supported = host.supported_cpuid().as_slice();
    let (snapshot, own) = (vendor_of(saved), vendor(find(supported, 0, 0)));
    if snapshot != own {
        return Err(Mismatch::Vendor { snapshot, host: own });
    }
    for &(leaf, subleaf, masks) in FEATURES {
        let wanted = saved.iter().find(|entry| entry.function == leaf && entry.index == subleaf);
        let wanted = wanted.map_or([0; 4], |entry| [entry.eax, entry.ebx, entry.ecx, entry.edx]);
        let offered = find(supported, leaf, subleaf);
        let native = native(host, leaf, subleaf);
        for (i, register) in REGISTERS.into_iter().enumerate() {
            let missing = wanted[i] & masks[i] & !(offered[i] | native[i]);
            if missing != 0 {
                return Err(Mismatch::Feature { leaf, subleaf, register, bit: missing.trailing_zeros() });
            }
        }
    }
    Ok(())
}

/// Features that a guest has beyond those that KVM says it supports: a page-table based KVM forces all of the processor's features
/// on, since ring 3 runs natively.
fn native(host: &Host, leaf: u32, subleaf: u32) -> [u32; 4] {
    match host.virtualization() {
        Virtualization::Hardware => [0; 4],
        Virtualization::PageTableBased => {
            let native = core::arch::x86_64::__cpuid_count(leaf, subleaf);
            [native.eax, native.ebx, native.ecx, native.edx]
        }
    }
}

/// Whether a guest that sees these leaves may run guests of its own.
#[must_use]
pub fn shows_virtualization(leaves: &[CpuidStateV1]) -> bool {
    leaves.iter().any(|leaf| is_virtualization(leaf.function, leaf.ecx))
}

/// Whether this host's KVM can show virtualization to a guest and save its state.
#[must_use]
pub fn offers_virtualization(host: &Host) -> bool {
    let leaves = host.supported_cpuid().as_slice();
    host.kvm().check_extension(Cap::NestedState)
        && leaves.iter().any(|leaf| is_virtualization(leaf.function, leaf.ecx))
}

const fn is_virtualization(function: u32, ecx: u32) -> bool {
    match function {
        1 => ecx & VMX != 0,
        0x8000_0001 => ecx & SVM != 0,
        _ => false,
    }
}

fn find(leaves: &[kvm_cpuid_entry2], function: u32, index: u32) -> [u32; 4] {
    leaves
        .iter()
        .find(|leaf| leaf.function == function && leaf.index == index)
        .map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx])
}

fn vendor_of(saved: &[CpuidStateV1]) -> String {
    let leaf = saved.iter().find(|leaf| leaf.function == 0);
    vendor(leaf.map_or([0; 4], |leaf| [leaf.eax, leaf.ebx, leaf.ecx, leaf.edx]))
}

/// The twelve characters of leaf 0, which come in the order EBX, EDX, ECX.
fn vendor([_, ebx, ecx, edx]: [u32; 4]) -> String {
    let bytes: Vec<u8> = [ebx, edx, ecx].iter().flat_map(|word| word.to_le_bytes()).collect();
    String::from_utf8_lossy(&bytes).escape_default().to_string()
}
