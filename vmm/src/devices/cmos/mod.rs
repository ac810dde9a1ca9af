//! The ports of the battery-backed clock, which this machine does not have.
//!
//! An empty bus reads as all ones, and that looks like a clock that is just being updated: guests wait for the update to end. Linux
//! waits a second, with tens of thousands of port accesses, before it says "rtc\_cmos: broken or not accessible". Zeros look like a
//! clock in 12-hour mode that is not being updated, which Linux refuses at once ("only 24-hr supported"). Guests get their
//! wall clock from kvmclock.
//!
//! The device has no state: every register reads as zero, and writes are ignored.

pub mod spec;

use std::ops::ControlFlow;

use crate::bus::{Ending, PortDevice};

/// The device at the ports where a clock would be.
#[derive(Debug)]
pub struct NoCmos;

impl PortDevice for NoCmos {
    fn read(&self, offset: u16, data: &mut [u8]) {
        // The number of the chosen register cannot be read back, just as on real machines.
        data.fill(if offset == spec::DATA { 0 } else { 0xff });
    }

    fn write(&self, _offset: u16, _data: &[u8]) -> ControlFlow<Ending> {
        ControlFlow::Continue(())
    }
}
