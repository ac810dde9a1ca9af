//! The keyboard controller, as far as a guest without a keyboard uses it: to reset the machine.
//!
//! It has no state. Its status always says "a byte to read, ready for a command": a guest that looks for a controller empties it
//! first, soon gives up because there is always one more byte, and concludes that there is none (Linux: "i8042: No controller
//! found"). If there were nothing to read, the guest would send commands and wait half a second for each answer. A guest that
//! resets the machine only waits until the controller is ready for a command.

pub mod spec;

use std::ops::ControlFlow;

use crate::bus::{Ending, PortDevice};

/// The controller: a reset command ends the guest, and other writes are ignored.
#[derive(Debug)]
pub struct I8042;

impl PortDevice for I8042 {
    fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(match offset {
            spec::DATA => 0,
            spec::COMMAND => spec::OUTPUT_FULL,
            _ => 0xff,
        });
    }

    fn write(&self, offset: u16, data: &[u8]) -> ControlFlow<Ending> {
        if offset == spec::COMMAND && data.contains(&spec::RESET) {
            return ControlFlow::Break(Ending::Reset);
        }
        ControlFlow::Continue(())
    }
}
