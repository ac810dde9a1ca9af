//! The interrupt lines that devices raise.

use vmm_sys_util::errno;

use crate::memory::Machine;

/// The inputs of the machine's interrupt controllers.
pub trait IrqLines: std::fmt::Debug + Send + Sync {
    /// Sets the level of the line with this number. When this returns, the interrupt has reached the controller.
    ///
    /// # Errors
    /// The kernel's reason for not setting it.
    fn set(&self, line: u32, active: bool) -> Result<(), errno::Error>;
}

/// Uses `KVM_IRQ_LINE` rather than an irqfd, which a kernel worker delivers at a time of its own: state that is saved after the call
/// contains the interrupt.
impl IrqLines for Machine {
    fn set(&self, line: u32, active: bool) -> Result<(), errno::Error> {
        self.fd().set_irq_line(line, active)
    }
}
