//! The ways to end that are not an exit on request.

use guest_images::pulse::{EXIT_BAD_PARAMS, EXIT_FAULT, Params, Work};

use crate::machine::{End, Machine, Shape};
use crate::{MIB, value};

fn booted() -> Machine {
    let machine = Machine::boot(Shape::new(1, 2 * MIB), &Params { beat_ms: 0, ..Params::new(1, MIB) });
    machine.line("pulse: ready");
    machine
}

#[test]
fn triple_fault() {
    let machine = booted();
    machine.send(b't');
    assert_eq!(machine.end(), End::TripleFault);
}

#[test]
fn emulation_failure() {
    let machine = booted();
    machine.send(b'e');
    assert_eq!(machine.end(), End::EmulationFailure);
}

#[test]
fn page_fault_is_reported() {
    const NOWHERE: u64 = 1 << 40;
    let params = Params { beat_ms: 0, work: Work::SelfTest, ..Params::new(1, 0) };
    let machine = Machine::boot(Shape::new(1, MIB), &params);
    machine.line("pulse: ready");
    machine.wait_for_rounds(3);
    machine.with_vcpu(0, |vcpu| {
        let mut regs = vcpu.get_regs().unwrap();
        regs.rip = NOWHERE;
        vcpu.set_regs(&regs).unwrap();
    });
    assert_eq!(machine.end(), End::Exit(EXIT_FAULT));
    let line = machine.last_line();
    assert!(line.starts_with("pulse: fault vector=0e"), "{line:?}");
    assert_eq!(value(&line, "rip", 16), NOWHERE);
    assert_eq!(value(&line, "address", 16), NOWHERE);
    assert_eq!(value(&line, "cpu", 10), 0);
}

#[test]
fn too_little_memory_is_reported() {
    let machine = Machine::boot(Shape::new(2, 2 * MIB), &Params::new(1, MIB + 4096));
    assert_eq!(machine.end(), End::Exit(EXIT_BAD_PARAMS));
    assert_eq!(machine.last_line(), "pulse: error: not enough memory for the pages to touch");
}
