//! Instructions that a page-table based KVM cannot emulate and this VMM can.
//!
//! On such hosts ring 0 runs in the kernel's emulator, which knows neither INT3 nor FWAIT; Linux uses both. The kernel command
//! line that [`Host::cmdline_additions`](crate::host::Host::cmdline_additions) gives avoids everything else that the emulator
//! lacks (XSAVE, CLAC, STAC, CMPXCHG16B).

use kvm_ioctls::VcpuFd;
use vmm_sys_util::errno;

const INT3: u8 = 0xcc;
const FWAIT: u8 = 0x9b;
/// Vector of the breakpoint exception.
const BREAKPOINT: u8 = 3;

/// Carries out the instruction that `bytes` begins with, at the vCPU's RIP. `Ok(false)` if it is not one of the two.
///
/// # Errors
/// The kernel's reason for not giving or not taking the vCPU's registers or events.
pub(super) fn emulate(vcpu: &VcpuFd, bytes: &[u8]) -> Result<bool, errno::Error> {
    match bytes.first() {
        Some(&INT3) => {
            skip(vcpu, 1)?;
            // A trap: it is delivered with RIP after the instruction, where `skip` has put it.
            let mut events = vcpu.get_vcpu_events()?;
            events.exception.injected = 1;
            events.exception.nr = BREAKPOINT;
            events.exception.has_error_code = 0;
            events.flags = 0;
            vcpu.set_vcpu_events(&events)?;
            Ok(true)
        }
        // Waits for pending x87 exceptions. None can be pending: the emulated ring 0 does no x87 arithmetic.
        Some(&FWAIT) => skip(vcpu, 1).map(|()| true),
        _ => Ok(false),
    }
}

fn skip(vcpu: &VcpuFd, len_bytes: u64) -> Result<(), errno::Error> {
    let mut regs = vcpu.get_regs()?;
    regs.rip = regs.rip.wrapping_add(len_bytes);
    vcpu.set_regs(&regs)
}
