//! Lets a guest read and write I/O ports in any order, while its console is typed to, paused, saved and restored. Nothing may panic,
//! ports without a device read as ones, and devices are saved as they were restored.
#![no_main]

use std::ops::ControlFlow;
use std::sync::Arc;

use cloner_fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use vmm::devices::Devices;
use vmm::devices::irq::IrqLines;
use vmm::memory::layout::{CMOS_PORT, DEBUG_EXIT_PORT, I8042_PORT, SERIAL_PORT};
use vmm_sys_util::errno;

/// Where devices are, and somewhere else.
const PORTS: [u16; 6] = [SERIAL_PORT, SERIAL_PORT, I8042_PORT, CMOS_PORT, DEBUG_EXIT_PORT, 0xfff8];
/// A port that no device has, and its neighbours.
const EMPTY: std::ops::RangeInclusive<u16> = 0xfff8..=0xffff;

/// Lines that lead nowhere.
#[derive(Debug)]
struct NoLines;

impl IrqLines for NoLines {
    fn set(&self, _line: u32, _active: bool) -> Result<(), errno::Error> {
        Ok(())
    }
}

fuzz_target!(|bytes: &[u8]| {
    let mut input = Input(bytes);
    let mut devices = Devices::new(Arc::new(NoLines), Box::new(std::io::sink()));
    devices.resume();
    while !input.0.is_empty() {
        let (step, choice, len) = (input.byte(), input.byte(), usize::from(input.byte() % 72));
        let port = PORTS[usize::from(choice >> 3) % PORTS.len()] + u16::from(choice & 7);
        match step % 6 {
            0 => {
                let mut data = vec![0x55; len];
                devices.bus().read(port, &mut data);
                assert!(
                    !EMPTY.contains(&port) || data.iter().all(|byte| *byte == 0xff),
                    "{port:#x}: {data:x?}"
                );
            }
            1 => {
                if let ControlFlow::Break(ending) = devices.bus().write(port, input.split(len)) {
                    assert!(ending.is_orderly(), "{ending}");
                    return;
                }
            }
            2 => devices.serial().input(input.split(len)),
            3 => devices.pause(),
            4 => devices.resume(),
            _ => {
                devices.pause();
                let saved = devices.save();
                devices = Devices::restore(Arc::new(NoLines), Box::new(std::io::sink()), &saved)
                    .expect("no line fails");
                assert_eq!(devices.save(), saved);
            }
        }
    }
});
