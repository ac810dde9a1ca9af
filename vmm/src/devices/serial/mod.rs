//! The console: a 16550 at the first serial port, for input and output.

pub mod spec;
pub mod state;

use std::collections::VecDeque;
use std::io::Write;
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vm_superio::serial::{NoEvents, SerialState};
use vm_superio::{Serial as Uart, Trigger};
use vmm_sys_util::errno;

use self::state::SerialStateV1;
use super::irq::IrqLines;
use crate::bus::{Ending, PortDevice};
use crate::memory::layout;

/// Where the guest's console output goes, byte by byte as the guest writes it.
pub type ConsoleOutput = Box<dyn Write + Send>;

/// The console device.
#[derive(Debug)]
pub struct Serial(Mutex<Inner>);

#[derive(Debug)]
struct Inner {
    uart: Uart<IrqLine, NoEvents, OutputFile>,
    /// Input that did not fit into the FIFO, or that came while the VM was paused.
    queued: VecDeque<u8>,
    paused: bool,
}

/// Wraps a `dyn Write`, which has no `Debug` of its own.
struct OutputFile(ConsoleOutput);

impl std::fmt::Debug for OutputFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ConsoleOutput")
    }
}

impl Write for OutputFile {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// The UART's interrupt line.
#[derive(Debug)]
struct IrqLine(Arc<dyn IrqLines>);

impl Trigger for IrqLine {
    type E = errno::Error;

    fn trigger(&self) -> Result<(), errno::Error> {
        // An edge, as on an ISA interrupt line.
        self.0.set(layout::SERIAL_IRQ, true)?;
        self.0.set(layout::SERIAL_IRQ, false)
    }
}

impl Serial {
    /// A 16550 after reset.
    #[must_use]
    pub fn new(lines: Arc<dyn IrqLines>, output: ConsoleOutput) -> Self {
        Self::with_state(lines, output, &SerialState::default())
            .expect("the default state has an empty FIFO and no pending interrupt")
    }

    /// A 16550 as it was saved. It starts out paused; a pending interrupt is raised again.
    ///
    /// # Errors
    /// The kernel's reason for not raising that interrupt.
    ///
    /// # Panics
    /// If the FIFO is overfull, which validated state excludes.
    pub fn restore(
        lines: Arc<dyn IrqLines>,
        output: ConsoleOutput,
        state: &SerialStateV1,
    ) -> Result<Self, errno::Error> {
        Self::with_state(lines, output, &state.into())
    }

    fn with_state(
        lines: Arc<dyn IrqLines>,
        output: ConsoleOutput,
        state: &SerialState,
    ) -> Result<Self, errno::Error> {
        let uart = Uart::from_state(state, IrqLine(lines), NoEvents, OutputFile(output)).map_err(
            |error| match error {
                vm_superio::serial::Error::Trigger(error) => error,
                other => unreachable!("a validated FIFO fits: {other}"),
            },
        )?;
        Ok(Self(Mutex::new(Inner { uart, queued: VecDeque::new(), paused: true })))
    }

    /// Saves the registers. The VM must be paused.
    #[must_use]
    pub fn save(&self) -> SerialStateV1 {
        self.lock().uart.state().into()
    }

    /// Queues input on the host's side from now on, so that the registers stay as they are.
    pub fn pause(&self) {
        self.lock().paused = true;
    }

    /// Passes queued input to the guest again.
    pub fn resume(&self) {
        let mut inner = self.lock();
        inner.paused = false;
        inner.fill_fifo();
        // Raise the interrupt once more, whatever the registers say: an edge between the last instruction and the pause must not
        // be lost, and a driver that finds nothing to do just returns. It also wakes a guest that halted, which then looks at
        // its timers.
        if inner.uart.state().interrupt_enable != 0
            && let Err(error) = inner.uart.interrupt_evt().trigger()
        {
            tracing::warn!(%error, "cannot raise the console's interrupt");
        }
    }

    /// Types `bytes` on the guest's console. Those that do not fit into its FIFO wait until the guest reads.
    pub fn input(&self, bytes: &[u8]) {
        let mut inner = self.lock();
        inner.queued.extend(bytes);
        inner.fill_fifo();
    }

    /// Poisoning is ignored: registers are valid whatever they hold, also after a panic while the lock was held.
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn fill_fifo(&mut self) {
        if self.paused {
            return;
        }
        while !self.queued.is_empty() && self.uart.fifo_capacity() > 0 {
            let room = self.uart.fifo_capacity().min(self.queued.len());
            let bytes: Vec<u8> = self.queued.iter().copied().take(room).collect();
            match self.uart.enqueue_raw_bytes(&bytes) {
                Ok(0) => return, // In loopback mode a UART takes no input.
                Ok(taken) => drop(self.queued.drain(..taken)),
                Err(error) => {
                    tracing::warn!(%error, "cannot pass console input to the guest");
                    return;
                }
            }
        }
    }
}

impl PortDevice for Serial {
    fn read(&self, offset: u16, data: &mut [u8]) {
        let mut inner = self.lock();
        let register = register(offset);
        for byte in data {
            *byte = inner.uart.read(register);
        }
        inner.fill_fifo();
    }

    fn write(&self, offset: u16, data: &[u8]) -> ControlFlow<Ending> {
        let mut inner = self.lock();
        for byte in data {
            if let Err(error) = inner.uart.write(register(offset), *byte) {
                // This is not the guest's fault, and it cannot do anything about it: a closed terminal must not end the machine.
                tracing::warn!(%error, "cannot write console output");
            }
        }
        ControlFlow::Continue(())
    }
}

fn register(offset: u16) -> u8 {
    u8::try_from(offset).expect("the device is registered for eight ports")
}
