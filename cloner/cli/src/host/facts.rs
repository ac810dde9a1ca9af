//! All facts that the checks judge, read and tried once.

use cloner_codec::hot::Backend;
use serde::Serialize;
use vmm::host::capabilities::Capabilities;
use vmm::host::cgroup::Cgroups;
use vmm::host::clock::{Clocksource, GuestTsc};
use vmm::host::device::DeviceNode;
use vmm::host::limits::ProcessLimits;
use vmm::host::memory::HostMemory;
use vmm::host::module::HostKernel;
use vmm::host::pages::{HugePagePool, TransparentHugePages};
use vmm::host::processor::Processor;
use vmm::host::security::Security;
use vmm::host::user::{Group, User};
use vmm::host::userfault::UserfaultAccess;
use vmm::host::{KVM_PATH, Virtualization};

use super::trial::Trial;
use super::ups::{Address, Ups};
use cloner::chain;

/// This host as this process sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct HostFacts {
    pub(super) kernel: HostKernel,
    pub(super) processor: Processor,
    pub(super) user: User,
    pub(super) virtualization: Virtualization,
    pub(super) kvm_device: DeviceNode,
    /// The group called `kvm`, whether or not it owns the device.
    pub(super) kvm_group: Option<Group>,
    /// What can be found out only with an open device; `None` if it does not open.
    pub(super) kvm: Option<KvmFacts>,
    pub(super) clocksource: Clocksource,
    pub(super) memory: HostMemory,
    pub(super) cgroups: Cgroups,
    pub(super) huge_pages: Vec<HugePagePool>,
    pub(super) transparent_huge_pages: TransparentHugePages,
    pub(super) userfaultfd: UserfaultAccess,
    pub(super) limits: ProcessLimits,
    pub(super) security: Security,
    /// Name of the instruction set that the coder uses.
    pub(super) coder: &'static str,
    /// The UPS's answer; `None` unless the user named a UPS.
    pub(super) ups: Option<Ups>,
}

/// What KVM offers, and how it behaves.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct KvmFacts {
    pub(super) capabilities: Capabilities,
    pub(super) guest_tsc: Option<GuestTsc>,
    /// Why the guest's time stamp counter could not be examined.
    pub(super) guest_tsc_error: Option<String>,
    pub(super) trial: Trial,
}

impl HostFacts {
    /// Reads and tries everything. Facts that this host does not reveal are absent.
    pub(super) fn gather(ups: Option<&Address>) -> Self {
        // This comes first: it makes a child, and the trial makes threads.
        let security = Security::read();
        Self {
            kernel: HostKernel::read(),
            processor: Processor::read(),
            user: User::current(),
            virtualization: Virtualization::detect(),
            kvm_device: DeviceNode::at(KVM_PATH),
            kvm_group: Group::named("kvm"),
            kvm: KvmFacts::gather(),
            clocksource: Clocksource::read(),
            memory: HostMemory::read(),
            cgroups: Cgroups::read(),
            huge_pages: HugePagePool::all(),
            transparent_huge_pages: TransparentHugePages::read(),
            userfaultfd: UserfaultAccess::read(),
            limits: ProcessLimits::read(),
            security,
            coder: Backend::detect().name(),
            ups: ups.map(Ups::ask),
        }
    }
}

impl KvmFacts {
    fn gather() -> Option<Self> {
        let capabilities = Capabilities::read()?;
        let (guest_tsc, guest_tsc_error) = match GuestTsc::probe() {
            Ok(tsc) => (Some(tsc), None),
            Err(error) => (None, Some(chain(&error))),
        };
        Some(Self { capabilities, guest_tsc, guest_tsc_error, trial: Trial::run() })
    }
}
