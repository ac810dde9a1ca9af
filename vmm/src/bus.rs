//! I/O ports: which device answers where.

use std::ops::ControlFlow;
use std::sync::Arc;

/// How a guest ended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ending {
    /// The guest asked for a reset (keyboard controller), which this VMM answers by ending it.
    #[error("the guest asked for a reset")]
    Reset,
    /// The guest ended itself through the debug exit port.
    #[error("the guest shut down with code {code}")]
    Shutdown {
        /// The byte that it wrote to the port.
        code: u8,
    },
    /// An exception while delivering a double fault: the processor gave up.
    #[error("vCPU {vcpu} took a triple fault at RIP {rip:#x} (bytes there: {bytes})")]
    TripleFault {
        /// Index of the vCPU.
        vcpu: u8,
        /// The vCPU's instruction pointer, as far as KVM still knows it (SVM resets it).
        rip: u64,
        /// The code at that address in hexadecimal, or why it cannot be read.
        bytes: String,
    },
    /// KVM's emulator met an instruction that it does not know, and this VMM does not know it either.
    #[error("vCPU {vcpu} at RIP {rip:#x}: this host's KVM cannot emulate the instruction {bytes}")]
    EmulationFailure {
        /// Index of the vCPU.
        vcpu: u8,
        /// Guest-virtual address of the instruction.
        rip: u64,
        /// The instruction's bytes in hexadecimal, or why they cannot be read.
        bytes: String,
    },
    /// The guest was a lazy clone, and memory that it still needed will never arrive.
    #[error("the memory of a lazy clone is lost: {what}")]
    MemoryLost {
        /// The reason and what led to it, in one line.
        what: String,
    },
    /// Anything else that stopped a vCPU.
    #[error("vCPU {vcpu} at RIP {rip:#x} stopped: {what}")]
    Failed {
        /// Index of the vCPU.
        vcpu: u8,
        /// The vCPU's instruction pointer; zero if it cannot be read.
        rip: u64,
        /// What happened, in one line.
        what: String,
    },
}

impl Ending {
    /// Whether the guest meant to end.
    #[must_use]
    pub const fn is_orderly(&self) -> bool {
        matches!(self, Self::Reset | Self::Shutdown { .. })
    }
}

/// A device reached through I/O ports, from any vCPU thread.
///
/// KVM reports a repeated string instruction as one access, so `data` can be any number of one-byte accesses to
/// the same port. Wider accesses, which no device here defines, arrive in the same form.
pub trait PortDevice: Send + Sync + std::fmt::Debug {
    /// Fills `data` with what the guest reads at the port `offset` from the device's first.
    fn read(&self, offset: u16, data: &mut [u8]);

    /// Takes what the guest writes to the port `offset` from the device's first. [`ControlFlow::Break`] ends the guest.
    fn write(&self, offset: u16, data: &[u8]) -> ControlFlow<Ending>;
}

/// All devices by port.
#[derive(Debug, Default)]
pub struct PortBus {
    devices: Vec<(u16, u16, Arc<dyn PortDevice>)>,
}

impl PortBus {
    /// Lets `device` answer for `ports` ports from `first` on.
    ///
    /// # Panics
    /// If another device is there already, or the range goes beyond the 64 Ki ports. Both are up to this crate, not to its callers.
    pub fn insert(&mut self, first: u16, ports: u16, device: Arc<dyn PortDevice>) {
        let end = first.checked_add(ports).expect("within the ports");
        let overlaps = self.devices.iter().any(|(start, count, _)| first < start + count && *start < end);
        assert!(!overlaps, "two devices at port {first:#x}");
        self.devices.push((first, ports, device));
    }

    /// Answers a guest's read. Ports without a device read as all ones, like an empty bus.
    pub fn read(&self, port: u16, data: &mut [u8]) {
        match self.find(port) {
            Some((device, offset)) => device.read(offset, data),
            None => data.fill(0xff),
        }
    }

    /// Carries out a guest's write. Ports without a device ignore it.
    pub fn write(&self, port: u16, data: &[u8]) -> ControlFlow<Ending> {
        match self.find(port) {
            Some((device, offset)) => device.write(offset, data),
            None => ControlFlow::Continue(()),
        }
    }

    fn find(&self, port: u16) -> Option<(&dyn PortDevice, u16)> {
        self.devices.iter().find_map(|(first, ports, device)| {
            let offset = port.checked_sub(*first)?;
            (offset < *ports).then_some((device.as_ref(), offset))
        })
    }
}
