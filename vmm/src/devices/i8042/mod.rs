//! The keyboard controller, as far as a guest without a keyboard uses it: to reset the machine.
//!
//! It has no state: status always says "nothing to read, ready for a command".

pub mod spec;

use std::ops::ControlFlow;

use crate::bus::{Ending, PortDevice};

/// The controller.
#[derive(Debug)]
pub struct I8042;

impl PortDevice for I8042 {
    fn read(&self, offset: u16, data: &mut [u8]) {
        data.fill(match offset {
            spec::DATA | spec::COMMAND => 0,
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
