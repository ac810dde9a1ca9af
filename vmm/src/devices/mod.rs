//! The devices of the machine, on one bus.

pub mod cmos;
pub mod debug_exit;
pub mod i8042;
pub mod irq;
pub mod serial;
pub mod state;

use std::sync::Arc;

use vmm_sys_util::errno;

use self::cmos::NoCmos;
use self::debug_exit::DebugExit;
use self::i8042::I8042;
use self::irq::IrqLines;
use self::serial::{ConsoleOutput, Serial};
use self::state::DeviceStates;
use crate::bus::PortBus;
use crate::memory::layout;

/// Every device of one VM.
#[derive(Debug)]
pub struct Devices {
    serial: Arc<Serial>,
    bus: PortBus,
}

impl Devices {
    /// The devices of a machine after reset.
    #[must_use]
    pub fn new(lines: Arc<dyn IrqLines>, output: ConsoleOutput) -> Self {
        Self::with(Serial::new(lines, output))
    }

    /// The devices as they were saved. They start out paused.
    ///
    /// # Errors
    /// The kernel's reason for not raising an interrupt again that was pending.
    pub fn restore(
        lines: Arc<dyn IrqLines>,
        output: ConsoleOutput,
        state: &DeviceStates,
    ) -> Result<Self, errno::Error> {
        let DeviceStates { serial } = state;
        Ok(Self::with(Serial::restore(lines, output, serial)?))
    }

    fn with(serial: Serial) -> Self {
        let serial = Arc::new(serial);
        let mut bus = PortBus::default();
        bus.insert(layout::SERIAL_PORT, serial::spec::PORTS, Arc::clone(&serial) as _);
        bus.insert(layout::I8042_PORT, i8042::spec::PORTS, Arc::new(I8042));
        bus.insert(layout::CMOS_PORT, cmos::spec::PORTS, Arc::new(NoCmos));
        bus.insert(layout::DEBUG_EXIT_PORT, 1, Arc::new(DebugExit));
        Self { serial, bus }
    }

    /// The console.
    #[must_use]
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// The bus that the devices are on.
    #[must_use]
    pub const fn bus(&self) -> &PortBus {
        &self.bus
    }

    /// Saves every device. The vCPUs must have stopped and the devices been paused.
    #[must_use]
    pub fn save(&self) -> DeviceStates {
        DeviceStates { serial: self.serial.save() }
    }

    /// Keeps the host's side, such as console input, from changing device state.
    pub fn pause(&self) {
        self.serial.pause();
    }

    /// Lets the host's side change device state again.
    pub fn resume(&self) {
        self.serial.resume();
    }
}
