//! The ports of the battery-backed clock, which this machine does not have.
//!
//! An empty bus reads as all ones, and that looks like a clock that is just being updated: guests wait for the end of it. Linux waits a
//! second, with tens of thousands of port accesses, before it says "rtc\_cmos: broken or not accessible". Zeros look like a
//! clock in 12-hour mode that is not being updated, which Linux refuses at once ("only 24-hr supported"). Guests get their
//! wall clock from kvmclock.
//!
//! It has no state: every register reads as zero, and writes are swallowed.

pub mod spec;

use std::ops::ControlFlow;

use crate::bus::{Ending, PortDevice};

/// Where a clock would be.
#[derive(Debug)]
pub struct NoCmos;

impl PortDevice for NoCmos {
    fn read(&self, offset: u16, data: &mut [u8]) {
        // The register that was chosen cannot be read back, on real machines either.
        data.fill(if offset == spec::DATA { 0 } else { 0xff });
    }

    fn write(&self, _offset: u16, _data: &[u8]) -> ControlFlow<Ending> {
        ControlFlow::Continue(())
    }
}
