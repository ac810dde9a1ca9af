//! What this host is, and what its KVM can do.
//!
//! Two kinds of host exist. On ordinary ones the processor runs the guest (VT-x, SVM). On others KVM is *page-table
//! based* (`kvm_pvm`): ring 3 runs natively, ring 0 is emulated one instruction at a time, and the emulator lacks a few
//! instructions. Both must work, so the kind is found out here once, and code that depends on it asks.
//!
//! Machines are built on [`Host`]. The other modules each read one kind of facts about the host, for reports: they
//! need no privileges, change nothing, and leave out what a host does not tell. They do not judge whether the facts are good
//! or bad.

pub mod capabilities;
pub mod cgroup;
pub mod clock;
pub mod device;
pub mod limits;
pub mod memory;
pub mod module;
pub mod pages;
pub mod processor;
pub mod random;
pub mod security;
mod text;
pub mod user;
pub mod userfault;

use std::fmt;
use std::io;
use std::path::Path;
use std::sync::OnceLock;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES};
use kvm_ioctls::{Cap, Kvm};
use serde::{Deserialize, Serialize};
use vmm_sys_util::errno;

pub use crate::sys::fork;

use self::processor::Processor;
use crate::sys::kvm::XSAVE_MIN_BYTES;

/// What the kernel command line of a Linux guest needs on a page-table based host, and nowhere else.
///
/// Most items keep the kernel away from an instruction that the emulator lacks (XSAVE, CLAC and STAC, CMPXCHG16B) or that
/// the host does not let it rely on.
pub const PAGE_TABLE_BASED_CMDLINE: &str = "lpj=4500000 noxsave nofsgsbase rodata=off \
     clearcpuid=smap,smep,popcnt,rdrand,rdseed,cx16,erms,fsrm";

/// Path of KVM's device node.
pub const KVM_PATH: &str = "/dev/kvm";

/// Version of KVM's API: the only one that was ever stable.
pub const KVM_API_VERSION: i32 = 12;

/// Why this host cannot run a VM.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no `/dev/kvm`.
    #[error("{KVM_PATH} does not exist: is this host without virtualisation, or the kvm module not loaded?")]
    NoKvm,
    /// This process may not open `/dev/kvm`.
    #[error("no permission to open {KVM_PATH}: run as root or as a member of the group that owns it")]
    NoPermission,
    /// `/dev/kvm` cannot be opened for another reason.
    #[error("cannot open {KVM_PATH}")]
    Open(#[source] io::Error),
    /// KVM speaks another version of the API.
    #[error("{KVM_PATH} speaks API version {0}, not {KVM_API_VERSION}")]
    ApiVersion(i32),
    /// KVM lacks capabilities that are required; their names.
    #[error("this host's KVM lacks {}", .0.join(", "))]
    Missing(Vec<&'static str>),
    /// KVM does not say which CPUID leaves or which MSRs it supports.
    #[error("KVM_GET_SUPPORTED_CPUID or KVM_GET_MSR_INDEX_LIST failed")]
    Cpuid(#[source] errno::Error),
}

/// What runs the guest's ring 0. Saved states name it as serde does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Virtualization {
    /// The processor: VT-x or SVM.
    Hardware,
    /// An emulator in the kernel; ring 3 runs natively.
    PageTableBased,
}

impl Virtualization {
    /// Finds out which of the two this host's KVM is. A page-table based KVM is a module of its own and needs no virtualization
    /// feature of the processor.
    #[must_use]
    pub fn detect() -> Self {
        if Path::new("/sys/module/kvm_pvm").exists() && !Processor::read().has_virtualization() {
            Self::PageTableBased
        } else {
            Self::Hardware
        }
    }
}

impl fmt::Display for Virtualization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Hardware => "KVM on hardware",
            Self::PageTableBased => "page-table based KVM (ring 0 emulated)",
        })
    }
}

/// An open `/dev/kvm` and what was found out about it.
#[derive(Debug)]
pub struct Host {
    kvm: Kvm,
    virtualization: Virtualization,
    cpuid: CpuId,
    msr_indices: Vec<u32>,
    tsc_deadline: bool,
}

impl Host {
    /// The host this process runs on, opened on first use and kept.
    ///
    /// # Errors
    /// [`Error`] says what to change on the host, or which call to KVM failed. A failure is not remembered: a later call tries
    /// again.
    pub fn get() -> Result<&'static Self, Error> {
        static HOST: OnceLock<Host> = OnceLock::new();
        if let Some(host) = HOST.get() {
            return Ok(host);
        }
        let host = Self::open()?;
        Ok(HOST.get_or_init(|| host))
    }

    fn open() -> Result<Self, Error> {
        let kvm = Kvm::new().map_err(|error| match error.errno() {
            libc::ENOENT | libc::ENODEV | libc::ENXIO => Error::NoKvm,
            libc::EACCES | libc::EPERM => Error::NoPermission,
            _ => Error::Open(error.into()),
        })?;
        let version = kvm.get_api_version();
        if version != KVM_API_VERSION {
            return Err(Error::ApiVersion(version));
        }
        let missing = capabilities::missing(&kvm);
        if !missing.is_empty() {
            return Err(Error::Missing(missing));
        }
        let cpuid = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).map_err(Error::Cpuid)?;
        let msrs = kvm.get_msr_index_list().map_err(Error::Cpuid)?;
        let host = Self {
            virtualization: Virtualization::detect(),
            cpuid,
            msr_indices: msrs.as_slice().to_vec(),
            tsc_deadline: kvm.check_extension(Cap::TscDeadlineTimer),
            kvm,
        };
        tracing::debug!(virtualization = ?host.virtualization, "opened {KVM_PATH}");
        Ok(host)
    }

    /// The descriptor of `/dev/kvm`.
    #[must_use]
    pub const fn kvm(&self) -> &Kvm {
        &self.kvm
    }

    /// What runs the guest's ring 0.
    #[must_use]
    pub const fn virtualization(&self) -> Virtualization {
        self.virtualization
    }

    /// The processor features that KVM can give a guest (`KVM_GET_SUPPORTED_CPUID`).
    #[must_use]
    pub const fn supported_cpuid(&self) -> &CpuId {
        &self.cpuid
    }

    /// Indices of the MSRs that KVM says it can save and restore (`KVM_GET_MSR_INDEX_LIST`).
    #[must_use]
    pub fn msr_indices(&self) -> &[u32] {
        &self.msr_indices
    }

    /// Whether the local APIC timer has its TSC deadline mode.
    #[must_use]
    pub const fn tsc_deadline(&self) -> bool {
        self.tsc_deadline
    }

    /// Whether the processor scales the time stamp counter, so that a guest can keep a frequency other than the host's.
    #[must_use]
    pub fn scales_tsc(&self) -> bool {
        self.kvm.check_extension(Cap::TscControl)
    }

    /// Whether the time stamp counter of a clone goes on from where it was saved. Otherwise its guest sees the host's own counter,
    /// which jumps by the snapshot's age.
    #[must_use]
    pub const fn keeps_guest_tsc(&self) -> bool {
        matches!(self.virtualization, Virtualization::Hardware)
    }

    /// Bytes of extended state (x87, SSE, AVX and beyond) per vCPU on this host.
    #[must_use]
    pub fn xsave_len_bytes(&self) -> usize {
        // Zero where the capability is unknown; then the fixed size is all there is.
        usize::try_from(self.kvm.check_extension_int(Cap::Xsave2)).unwrap_or(0).max(XSAVE_MIN_BYTES)
    }

    /// What to append to the command line of a Linux guest on this host; empty on ordinary ones.
    #[must_use]
    pub const fn cmdline_additions(&self) -> &'static str {
        match self.virtualization {
            Virtualization::Hardware => "",
            Virtualization::PageTableBased => PAGE_TABLE_BASED_CMDLINE,
        }
    }
}
