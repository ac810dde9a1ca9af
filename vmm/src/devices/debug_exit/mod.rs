//! A port through which a guest ends itself with an exit code, like QEMU's `isa-debug-exit`. It has no state.

use std::ops::ControlFlow;

use crate::bus::{Ending, PortDevice};

/// The device behind the port: a byte written to it ends the guest with that code.
#[derive(Debug)]
pub struct DebugExit;

impl PortDevice for DebugExit {
    fn read(&self, _offset: u16, data: &mut [u8]) {
        data.fill(0xff);
    }

    fn write(&self, _offset: u16, data: &[u8]) -> ControlFlow<Ending> {
        match data.first() {
            Some(code) => ControlFlow::Break(Ending::Shutdown { code: *code }),
            None => ControlFlow::Continue(()),
        }
    }
}
