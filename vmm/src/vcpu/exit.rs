//! Running the guest and answering its exits.

use std::ops::ControlFlow;

use kvm_ioctls::VcpuExit;

use super::{Error, Vcpu, assist};
use crate::bus::{Ending, PortBus};
use crate::sys::kvm;

/// Number of bytes of code shown for a guest that crashed.
const CODE_BYTES: usize = 8;

/// An exit that is not answered on the spot.
enum UnansweredExit {
    InternalError,
    TripleFault,
    Unexpected(String),
}

impl Vcpu {
    /// Runs the guest until its first exit.
    pub(crate) fn run_once(&mut self) -> Result<VcpuExit<'_>, Error> {
        let vcpu = self.index;
        self.fd.run().map_err(|source| Error::Ioctl { vcpu, name: "KVM_RUN", source })
    }

    /// Runs the guest until its thread is kicked ([`ControlFlow::Continue`]) or the guest ends ([`ControlFlow::Break`]).
    ///
    /// When it returns because of a kick, `KVM_RUN` has returned EINTR: pending port I/O and MMIO is complete, and the
    /// vCPU can be saved.
    pub(super) fn run(&mut self, bus: &PortBus) -> ControlFlow<Ending> {
        loop {
            let exit = match self.fd.run() {
                Ok(VcpuExit::IoOut(port, data)) => {
                    bus.write(port, data)?;
                    continue;
                }
                Ok(VcpuExit::IoIn(port, data)) => {
                    bus.read(port, data);
                    continue;
                }
                // This VMM has no device in the MMIO gap: reads give all ones, as on an empty bus.
                Ok(VcpuExit::MmioRead(_, data)) => {
                    data.fill(0xff);
                    continue;
                }
                Ok(VcpuExit::MmioWrite(..)) => continue,
                Ok(VcpuExit::Intr) => return ControlFlow::Continue(()),
                Err(error) if error.errno() == libc::EINTR => return ControlFlow::Continue(()),
                Err(error) if error.errno() == libc::EAGAIN => continue,
                Ok(VcpuExit::InternalError) => UnansweredExit::InternalError,
                Ok(VcpuExit::Shutdown) => UnansweredExit::TripleFault,
                Ok(VcpuExit::FailEntry(reason, cpu)) => UnansweredExit::Unexpected(format!(
                    "the processor refused to enter the guest (hardware reason {reason:#x} on CPU {cpu})"
                )),
                Ok(VcpuExit::MemoryFault { gpa, size, .. }) => {
                    UnansweredExit::Unexpected(format!("no memory at guest-physical {gpa:#x} ({size} bytes)"))
                }
                Ok(other) => UnansweredExit::Unexpected(format!("unexpected exit {other:?}")),
                Err(error) => UnansweredExit::Unexpected(format!("KVM_RUN: {error}")),
            };
            self.after(exit)?;
        }
    }

    fn after(&mut self, exit: UnansweredExit) -> ControlFlow<Ending> {
        match exit {
            UnansweredExit::InternalError => self.internal_error(),
            UnansweredExit::TripleFault => {
                let rip = self.rip();
                ControlFlow::Break(Ending::TripleFault { vcpu: self.index, rip, bytes: self.code_at(rip) })
            }
            UnansweredExit::Unexpected(what) => {
                ControlFlow::Break(Ending::Failed { vcpu: self.index, rip: self.rip(), what })
            }
        }
    }

    fn internal_error(&mut self) -> ControlFlow<Ending> {
        let (vcpu, rip) = (self.index, self.rip());
        let suberror = kvm::internal_suberror(&mut self.fd);
        if suberror != Some(kvm_bindings::KVM_INTERNAL_ERROR_EMULATION) {
            let what = format!("internal error of KVM, suberror {suberror:?}");
            return ControlFlow::Break(Ending::Failed { vcpu, rip, what });
        }
        let bytes = kvm::emulation_failure_bytes(&mut self.fd);
        match assist::emulate(&self.fd, &bytes) {
            Ok(true) => ControlFlow::Continue(()),
            Ok(false) if bytes.is_empty() => {
                ControlFlow::Break(Ending::EmulationFailure { vcpu, rip, bytes: self.code_at(rip) })
            }
            Ok(false) => ControlFlow::Break(Ending::EmulationFailure { vcpu, rip, bytes: hex(&bytes) }),
            Err(error) => {
                let what = format!("emulating {}: {error}", hex(&bytes));
                ControlFlow::Break(Ending::Failed { vcpu, rip, what })
            }
        }
    }

    /// The code at a guest-virtual address in hexadecimal, or why it cannot be read, for reports.
    fn code_at(&self, rip: u64) -> String {
        let physical = match self.fd.translate_gva(rip) {
            Ok(translation) if translation.valid != 0 => translation.physical_address,
            _ => return String::from("not mapped"),
        };
        let mut code = [0; CODE_BYTES];
        match self.machine.memory().read(physical, &mut code) {
            Ok(()) => hex(&code),
            Err(error) => error.to_string(),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ")
}
