//! The keyboard controller, as far as a guest without a keyboard uses it: to reset the machine.
//!
//! It has no state. Its status always says "a byte to read, ready for a command": a guest that looks for a controller empties it
//! first, gives up soon, as there is always one more byte, and finds none (Linux: "i8042: No controller found"). If there were nothing to
//! read, it would send commands and wait half a second for each answer. A guest that resets the machine waits
//! until the controller is ready for a command, and no more.

pub mod spec;

use std::ops::ControlFlow;

use crate::bus::{Ending, PortDevice};

/// The controller.
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
