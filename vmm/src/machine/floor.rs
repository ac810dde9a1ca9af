//! The least that restoring a VM can cost: the same KVM calls, in a straight line.
//!
//! Benches measure [`Vm::restore`](crate::Vm::restore) against this. There are no threads, no devices and no console here, and
//! what is built is thrown away.

use kvm_ioctls::VcpuExit;
use vmm_sys_util::errno;

use super::{Error, build, restore_vcpus};
use crate::host::Host;
use crate::interrupt;
use crate::memory::GuestMemory;
use crate::memory::layout::SERIAL_PORT;
use crate::state::VmState;

/// Builds a VM from `state`, runs its first vCPU on this thread until it writes to the console, and calls `at_output` at that
/// moment. The call comes before the VM is freed, because closing a VM takes the kernel longer than everything else here.
///
/// # Errors
/// The same as for [`Vm::restore`](crate::Vm::restore), and [`Error::Ioctl`] if the vCPU does anything but write to ports.
pub fn run_to_first_output(
    state: &VmState,
    memory: GuestMemory,
    at_output: impl FnOnce(),
) -> Result<(), Error> {
    let host = Host::get()?;
    let state = state.get();
    let count = u8::try_from(state.vcpus.len()).expect("validated state has at most MAX_VCPUS");
    let (machine, mut vcpus) = build(host, memory, count)?;
    restore_vcpus(&mut vcpus, &state.vcpus)?;
    interrupt::restore(machine.fd(), &state.interrupts)?;
    interrupt::start_timer(machine.fd(), &state.interrupts.pit)?;
    loop {
        match vcpus[0].run_once()? {
            VcpuExit::IoOut(SERIAL_PORT, _) => break,
            VcpuExit::IoOut(..) => {}
            exit => {
                tracing::warn!(?exit, "a guest for this bench may only write to ports");
                return Err(Error::Ioctl { name: "KVM_RUN", source: errno::Error::new(libc::ENOTSUP) });
            }
        }
    }
    at_output();
    Ok(())
}
