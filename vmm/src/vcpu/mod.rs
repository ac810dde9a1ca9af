//! One virtual processor: its descriptor, which of its state is saved, and in which order that is restored.
//!
//! The order of restoring is the one that Firecracker documents; each line of [`Vcpu::restore`] that depends on an earlier
//! one says why.

mod assist;
pub mod cpuid;
mod exit;
mod nested;
pub(crate) mod setup;
pub mod state;
pub mod tables;
pub(crate) mod thread;
pub mod tsc;

use std::sync::Arc;

use kvm_bindings::{CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_mp_state, kvm_msr_entry, kvm_xcr, kvm_xcrs};
use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

use self::state::{TscStateV1, VcpuStateV1};
use crate::memory::Machine;
use crate::sys::kvm;

/// `IA32_TSC`, handled apart from the other MSRs: see [`TscStateV1`].
pub(crate) const MSR_TSC: u32 = 0x10;
/// `IA32_TSC_DEADLINE`, restored after all others.
pub(crate) const MSR_TSC_DEADLINE: u32 = 0x6e0;
/// `IA32_XSS`, which exists but is not in KVM's list.
const MSR_XSS: u32 = 0xda0;
/// KVM's paravirtual MSRs (`MSR_KVM_WALL_CLOCK_NEW` and on). KVM's list has only some of them.
const MSRS_KVM: std::ops::RangeInclusive<u32> = 0x4b56_4d00..=0x4b56_4d08;
/// Hyper-V's MSRs, which KVM lists although no guest of this VMM is shown Hyper-V. Some count by themselves
/// (`HV_X64_MSR_VP_RUNTIME`, `HV_X64_MSR_TIME_REF_COUNT`), and one is another name for a switch that KVM's own MSRs have as well
/// (`HV_X64_MSR_VP_ASSIST_PAGE`, PV EOI).
const MSRS_HYPER_V: std::ops::RangeInclusive<u32> = 0x4000_0000..=0x4000_01ff;
/// Most MSRs that one call takes (`MSRS_MAX` of KVM).
const MSRS_PER_CALL: usize = 256;

/// A call to KVM that failed, or that did less than it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// KVM refused the call.
    #[error("vCPU {vcpu}: {name} failed")]
    Ioctl {
        /// Index of the vCPU.
        vcpu: u8,
        /// Name of the ioctl.
        name: &'static str,
        /// The kernel's reason.
        source: errno::Error,
    },
    /// `KVM_SET_MSRS` took fewer MSRs than it was given; it answers with a count, not with an error.
    #[error("vCPU {vcpu}: KVM took {taken} of {wanted} MSRs and refused {index:#x} = {value:#x}")]
    Msrs {
        /// Index of the vCPU.
        vcpu: u8,
        /// How many MSRs KVM took.
        taken: usize,
        /// How many it was given.
        wanted: usize,
        /// Index of the first MSR that it refused.
        index: u32,
        /// The value that was to be set.
        value: u64,
    },
    /// The guest's time stamp counter has another frequency than this host's, and KVM cannot scale.
    #[error(
        "the guest's TSC ticks at {guest_khz} kHz, this host's at {host_khz} kHz, and its KVM cannot scale it"
    )]
    TscFrequency {
        /// Frequency of the guest's counter in the saved state, in kHz.
        guest_khz: u32,
        /// Frequency of this host's counter, in kHz.
        host_khz: u32,
    },
}

/// A vCPU. Its thread owns it while it runs, and the thread that pauses the VM in between.
#[derive(Debug)]
pub struct Vcpu {
    index: u8,
    // Before `machine`: a vCPU descriptor keeps the kernel's VM alive, and with it the addresses of guest memory.
    fd: VcpuFd,
    machine: Arc<Machine>,
    /// Indices of the MSRs that this vCPU has, found out when it was made.
    msr_indices: Vec<u32>,
}

impl Vcpu {
    /// Creates the vCPU with index and APIC id `index`. Its registers are still to be set.
    pub(crate) fn new(machine: Arc<Machine>, index: u8) -> Result<Self, Error> {
        let fd = machine.fd().create_vcpu(u64::from(index)).map_err(|source| Error::Ioctl {
            vcpu: index,
            name: "KVM_CREATE_VCPU",
            source,
        })?;
        Ok(Self { index, fd, machine, msr_indices: Vec::new() })
    }

    /// The vCPU's index, which is its APIC id as well.
    pub(crate) const fn index(&self) -> u8 {
        self.index
    }

    /// Sets how the processor is described to the guest.
    pub(crate) fn set_cpuid(&self, cpuid: &CpuId) -> Result<(), Error> {
        self.ioctl("KVM_SET_CPUID2", self.fd.set_cpuid2(cpuid))
    }

    /// Finds out which MSRs this vCPU has, out of `candidates` and those that are missing from KVM's list.
    ///
    /// The test is whether KVM takes back what it gave: some hosts answer reads of MSRs that they refuse to set.
    pub(crate) fn probe_msrs(&mut self, candidates: &[u32]) -> Result<(), Error> {
        let mut indices: Vec<u32> = candidates.iter().copied().chain(MSRS_KVM).chain([MSR_XSS]).collect();
        indices.sort_unstable();
        indices.dedup();
        indices.retain(|index| *index != MSR_TSC && !MSRS_HYPER_V.contains(index));
        let readable = accepted(&indices, |batch| self.get_msrs(batch))?;
        let readable: Vec<kvm_msr_entry> = readable.into_iter().flatten().collect();
        let settable = accepted(&readable, |batch| {
            let taken = self.try_set_msrs(batch)?;
            Ok(batch[..taken].to_vec())
        })?;
        self.msr_indices = settable.into_iter().flatten().map(|msr| msr.index).collect();
        Ok(())
    }

    /// Saves everything. The vCPU must have returned from `KVM_RUN` with EINTR, because that is what completes pending I/O:
    /// a vCPU saved inside an `IN` instruction would resume after it without the value.
    ///
    /// `tsc` is this vCPU's counter at the instant for which all were read; see [`tsc::at_one_instant`].
    pub(crate) fn save(&self, tsc: TscStateV1) -> Result<VcpuStateV1, Error> {
        // First: getting the MP state makes KVM act on pending INITs and SIPIs, which changes the rest.
        let mp_state = self.ioctl("KVM_GET_MP_STATE", self.fd.get_mp_state())?.mp_state;
        let regs = self.ioctl("KVM_GET_REGS", self.fd.get_regs())?;
        let sregs = self.ioctl("KVM_GET_SREGS", self.fd.get_sregs())?;
        let xsave = self.ioctl("KVM_GET_XSAVE2", kvm::xsave(self.machine.fd(), &self.fd))?;
        let xcrs = self.ioctl("KVM_GET_XCRS", self.fd.get_xcrs())?;
        let debug_regs = self.ioctl("KVM_GET_DEBUGREGS", self.fd.get_debug_regs())?;
        let lapic = self.ioctl("KVM_GET_LAPIC", self.fd.get_lapic())?;
        let msrs = self.save_msrs()?;
        let events = self.ioctl("KVM_GET_VCPU_EVENTS", self.fd.get_vcpu_events())?;
        // Read back at every save: KVM changes leaves on its own (OSXSAVE, and what a page-table based host forces
        // on), and a copy kept from boot broke the second generation of clones elsewhere (Firecracker#1942).
        let cpuid = self.ioctl("KVM_GET_CPUID2", self.fd.get_cpuid2(KVM_MAX_CPUID_ENTRIES))?;
        let cpuid: Vec<_> = cpuid.as_slice().iter().map(Into::into).collect();
        let nested = self.save_nested(&cpuid)?;
        let used_xcrs = usize::try_from(xcrs.nr_xcrs).unwrap_or(usize::MAX).min(xcrs.xcrs.len());
        Ok(VcpuStateV1 {
            mp_state,
            regs: (&regs).into(),
            sregs: (&sregs).into(),
            xsave,
            xcrs: xcrs.xcrs[..used_xcrs].iter().map(Into::into).collect(),
            debug_regs: (&debug_regs).into(),
            lapic: lapic.regs.iter().map(|byte| byte.cast_unsigned()).collect(),
            msrs,
            events: (&events).into(),
            cpuid,
            tsc,
            nested,
        })
    }

    /// Restores everything, in an order that KVM depends on, except the frequency of the counter, which must come earlier
    /// ([`Vcpu::restore_frequency`]). The state is validated: lengths are in bounds.
    pub(crate) fn restore(&mut self, state: &VcpuStateV1, host_counter: u64) -> Result<(), Error> {
        let VcpuStateV1 {
            mp_state,
            regs,
            sregs,
            xsave,
            xcrs,
            debug_regs,
            lapic,
            msrs,
            events,
            cpuid,
            tsc,
            nested,
        } = state;
        // The features before the registers that only exist with them.
        let leaves: Vec<_> = cpuid.iter().map(Into::into).collect();
        let cpuid =
            CpuId::from_entries(&leaves).expect("validated state has at most KVM_MAX_CPUID_ENTRIES leaves");
        self.set_cpuid(&cpuid)?;
        // As saved: forcing it to RUNNABLE would start processors that wait for their SIPI.
        let mp_state = kvm_mp_state { mp_state: *mp_state };
        self.ioctl("KVM_SET_MP_STATE", self.fd.set_mp_state(mp_state))?;
        self.ioctl("KVM_SET_REGS", self.fd.set_regs(&regs.into()))?;
        // Before the LAPIC: it sets the APIC base, which enables it.
        self.ioctl("KVM_SET_SREGS", self.fd.set_sregs(&sregs.into()))?;
        self.ioctl("KVM_SET_XSAVE", kvm::set_xsave(self.machine.fd(), &self.fd, xsave))?;
        let mut raw =
            kvm_xcrs { nr_xcrs: u32::try_from(xcrs.len()).unwrap_or(u32::MAX), ..kvm_xcrs::default() };
        for (to, from) in raw.xcrs.iter_mut().zip(xcrs) {
            *to = kvm_xcr::from(from);
        }
        self.ioctl("KVM_SET_XCRS", self.fd.set_xcrs(&raw))?;
        self.ioctl("KVM_SET_DEBUGREGS", self.fd.set_debug_regs(&debug_regs.into()))?;
        let mut page = kvm_bindings::kvm_lapic_state { regs: [0; 1024] };
        for (to, from) in page.regs.iter_mut().zip(lapic) {
            *to = from.cast_signed();
        }
        // Before the MSRs: a deadline is silently ignored while the LAPIC's timer is not in deadline mode.
        self.ioctl("KVM_SET_LAPIC", self.fd.set_lapic(&page))?;
        self.restore_tsc(tsc, host_counter)?;
        self.restore_msrs(msrs, tsc)?;
        // After the MSRs, because some of them say what nested virtualization can do, and KVM refuses to change those while it is
        // on. After the registers, because they are the inner guest's if that one runs, and KVM moves them there. Before the
        // events, which are the inner guest's as well.
        self.restore_nested(nested.as_ref())?;
        self.ioctl("KVM_SET_VCPU_EVENTS", self.fd.set_vcpu_events(&events.into()))?;
        self.msr_indices = msrs.iter().map(|msr| msr.index).collect();
        // So that the guest's watchdogs do not take the time it was away for a hang. EINVAL: the guest does not use kvmclock.
        match self.fd.kvmclock_ctrl() {
            Err(error) if error.errno() != libc::EINVAL => self.ioctl("KVM_KVMCLOCK_CTRL", Err(error)),
            _ => Ok(()),
        }
    }

    /// The flag that keeps the vCPU out of the guest, for other threads to set.
    pub(crate) fn immediate_exit(&self) -> std::io::Result<kvm::ImmediateExit> {
        kvm::ImmediateExit::map(&self.fd)
    }

    /// The instruction pointer, for reports; zero if even that cannot be read.
    pub(crate) fn rip(&self) -> u64 {
        self.fd.get_regs().map_or(0, |regs| regs.rip)
    }

    fn get_msrs(&self, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
        let wanted: Vec<_> =
            indices.iter().map(|index| kvm_msr_entry { index: *index, ..kvm_msr_entry::default() }).collect();
        let mut msrs = Msrs::from_entries(&wanted).expect("callers ask for at most MSRS_PER_CALL");
        let answered = self.ioctl("KVM_GET_MSRS", self.fd.get_msrs(&mut msrs))?;
        Ok(msrs.as_slice()[..answered.min(wanted.len())].to_vec())
    }

    fn save_msrs(&self) -> Result<Vec<state::MsrStateV1>, Error> {
        let mut saved = Vec::with_capacity(self.msr_indices.len());
        for batch in self.msr_indices.chunks(MSRS_PER_CALL) {
            saved.extend(self.get_all_msrs(batch)?.iter().map(Into::into));
        }
        Ok(saved)
    }

    /// Reads MSRs that are all known to exist. It is an error if KVM answers with fewer than were asked for.
    fn get_all_msrs(&self, indices: &[u32]) -> Result<Vec<kvm_msr_entry>, Error> {
        all_answered(self.index, indices, self.get_msrs(indices)?)
    }

    fn restore_msrs(&self, msrs: &[state::MsrStateV1], tsc: &TscStateV1) -> Result<(), Error> {
        let (deadline, others): (Vec<kvm_msr_entry>, Vec<kvm_msr_entry>) =
            msrs.iter().map(kvm_msr_entry::from).partition(|msr| msr.index == MSR_TSC_DEADLINE);
        for batch in others.chunks(MSRS_PER_CALL) {
            self.set_msrs(batch)?;
        }
        // Last, and after the TSC itself. Zero means "not armed", but also "expired, and the interrupt not delivered
        // when the vCPU stopped"; nothing in the state tells the two apart. Firing at once is right for the second, and for the
        // first it is a spurious timer interrupt, which guests ignore.
        let deadline: Vec<_> = deadline
            .into_iter()
            .map(|msr| if msr.data == 0 { kvm_msr_entry { data: tsc.guest_tsc, ..msr } } else { msr })
            .collect();
        self.set_msrs(&deadline)
    }

    /// Sets MSRs until KVM refuses one, and returns how many it took.
    fn try_set_msrs(&self, msrs: &[kvm_msr_entry]) -> Result<usize, Error> {
        if msrs.is_empty() {
            return Ok(0);
        }
        let raw = Msrs::from_entries(msrs).expect("callers pass at most MSRS_PER_CALL");
        self.ioctl("KVM_SET_MSRS", self.fd.set_msrs(&raw))
    }

    fn set_msrs(&self, msrs: &[kvm_msr_entry]) -> Result<(), Error> {
        all_taken(self.index, msrs, self.try_set_msrs(msrs)?)
    }

    fn ioctl<T>(&self, name: &'static str, result: Result<T, errno::Error>) -> Result<T, Error> {
        result.map_err(|source| Error::Ioctl { vcpu: self.index, name, source })
    }
}

/// What KVM answered, unless it left out some of the MSRs that it was asked for.
fn all_answered(
    vcpu: u8,
    indices: &[u32],
    answered: Vec<kvm_msr_entry>,
) -> Result<Vec<kvm_msr_entry>, Error> {
    let Some(missing) = indices.get(answered.len()) else { return Ok(answered) };
    tracing::error!(
        index = format!("{missing:#x}"),
        "an MSR that could be read before can no longer be read"
    );
    Err(Error::Ioctl { vcpu, name: "KVM_GET_MSRS", source: errno::Error::new(libc::EIO) })
}

/// Fails unless KVM took all of these MSRs.
fn all_taken(vcpu: u8, msrs: &[kvm_msr_entry], taken: usize) -> Result<(), Error> {
    let Some(refused) = msrs.get(taken) else { return Ok(()) };
    let (index, value) = (refused.index, refused.data);
    Err(Error::Msrs { vcpu, taken, wanted: msrs.len(), index, value })
}

/// Offers `items` in batches to a call that stops at the first item it does not know. Skips that item and goes on with the next.
fn accepted<T, R>(
    items: &[T],
    mut call: impl FnMut(&[T]) -> Result<Vec<R>, Error>,
) -> Result<Vec<Vec<R>>, Error> {
    let mut results = Vec::new();
    let mut rest = items;
    while !rest.is_empty() {
        let batch = &rest[..rest.len().min(MSRS_PER_CALL)];
        let answers = call(batch)?;
        let done = if answers.len() < batch.len() { answers.len() + 1 } else { batch.len() };
        results.push(answers);
        rest = &rest[done..];
    }
    Ok(results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_msr_that_kvm_knows_is_found_wherever_its_answers_stop() {
        let unknown: [&[u32]; 7] =
            [&[], &[0], &[0, 1, 2], &[599], &[255, 256, 257], &[254, 511, 512], &[100, 300, 301, 500, 599]];
        for (unknown, count) in
            unknown.into_iter().flat_map(|u| [0, 1, 255, 256, 257, 512, 513, 600].map(|c| (u, c)))
        {
            let items: Vec<u32> = (0..count).collect();
            let mut calls = 0;
            let results = accepted(&items, |batch| {
                calls += 1;
                assert!(
                    (1..=MSRS_PER_CALL).contains(&batch.len()) && calls <= items.len(),
                    "{}",
                    batch.len()
                );
                Ok(batch.iter().copied().take_while(|item| !unknown.contains(item)).collect())
            });
            let known = items.iter().copied().filter(|item| !unknown.contains(item));
            assert!(results.unwrap().into_iter().flatten().eq(known), "{unknown:?} of {count}");
        }
        let failed = || Error::TscFrequency { guest_khz: 1, host_khz: 2 };
        assert!(accepted::<u32, u32>(&[1], |_| Err(failed())).is_err());
    }

    #[test]
    fn a_count_that_is_smaller_than_asked_is_an_error_that_names_the_first_left_out() {
        let msrs: Vec<kvm_msr_entry> = (0..4_u32)
            .map(|i| kvm_msr_entry { index: 0x10 + i, data: 100 + u64::from(i), ..Default::default() })
            .collect();
        let indices: Vec<u32> = msrs.iter().map(|msr| msr.index).collect();
        for taken in 0..4 {
            let error = all_taken(3, &msrs, taken).unwrap_err().to_string();
            let wanted = format!(
                "vCPU 3: KVM took {taken} of 4 MSRs and refused {:#x} = {:#x}",
                0x10 + taken,
                100 + taken
            );
            assert_eq!(error, wanted);
            let error = all_answered(3, &indices, msrs[..taken].to_vec()).unwrap_err();
            assert!(matches!(error, Error::Ioctl { vcpu: 3, name: "KVM_GET_MSRS", .. }), "{error}");
        }
        all_taken(3, &msrs, 4).unwrap();
        assert_eq!(all_answered(3, &indices, msrs.clone()).unwrap().len(), 4);
        all_taken(3, &[], 0).unwrap();
    }
}
