//! The self-test: it passes, and it fails when a register is changed behind the guest's back.

use guest_images::pulse::{Params, Work};
use kvm_bindings::kvm_xsave;
use kvm_ioctls::VcpuFd;

use crate::machine::{Features, Machine, Shape, set_xsave};
use crate::{MIB, value};

/// The bit the tests flip in a register, in its low quadword.
const FLIPPED: u64 = 1 << 13;

fn self_testing(cpus: u64) -> Machine {
    self_testing_with(cpus, Features::All)
}

fn self_testing_with(cpus: u64, features: Features) -> Machine {
    let params = Params { beat_ms: 0, work: Work::SelfTest, ..Params::new(0x5eed, 0) };
    let machine = Machine::boot(Shape { features, ..Shape::new(cpus, MIB) }, &params);
    machine.line("pulse: ready");
    machine
}

#[test]
fn holds_on_one_and_four_vcpus() {
    for cpus in [1, 4] {
        let machine = self_testing(cpus);
        machine.wait_for_rounds(50);
        // Pauses find the registers in use, and change nothing.
        for pause in 0..20 * cpus {
            let cpu = usize::try_from(pause % cpus).unwrap();
            machine.with_vcpu(cpu, |vcpu| {
                let (regs, sregs) = (vcpu.get_regs().unwrap(), vcpu.get_sregs().unwrap());
                vcpu.set_regs(&regs).unwrap();
                vcpu.set_sregs(&sregs).unwrap();
            });
        }
        machine.send(b'r');
        let mut reports: Vec<_> = (0..cpus).map(|_| machine.line("pulse: self-test")).collect();
        reports.sort();
        for (cpu, report) in reports.iter().enumerate() {
            assert!(report.starts_with(&format!("pulse: self-test cpu={cpu} ok rounds=")), "{report}");
            assert!(value(report, "rounds", 10) >= 50);
        }
        assert!(machine.status().cpus.iter().all(|cpu| cpu.failures == 0));
    }
}

/// Has `corrupt` change something in vCPU 1 and expects a report that names it.
fn notices(part: &str, corrupt: impl FnOnce(&mut VcpuFd) + Send + 'static) {
    notices_in(&self_testing(2), part, corrupt);
}

fn notices_in(machine: &Machine, part: &str, corrupt: impl FnOnce(&mut VcpuFd) + Send + 'static) {
    machine.wait_for_rounds(3);
    machine.with_vcpu(1, corrupt);
    machine.send(b'r');
    let line = machine.line("pulse: self-test cpu=1 FAILED");
    assert!(line.contains(&format!("FAILED {part} ")), "changed {part}: {line}");
    let changed = value(&line, "expected", 16) ^ value(&line, "found", 16);
    assert_eq!(changed, FLIPPED, "changed {part}: {line}");
    assert!(machine.status().cpus[1].failures > 0);
    // It stays in the reports, although the register has been loaded anew.
    machine.send(b'r');
    machine.line("pulse: self-test cpu=1 FAILED");
    machine.send(b'r');
    machine.line("pulse: self-test cpu=0 ok");
}

fn notices_in_xsave(part: &str, byte: usize) {
    notices(part, flip_in_xsave(byte));
}

fn flip_in_xsave(byte: usize) -> impl FnOnce(&mut VcpuFd) + Send {
    move |vcpu| {
        let mut xsave: kvm_xsave = vcpu.get_xsave().unwrap();
        xsave.region[byte / 4] ^= u32::try_from(FLIPPED).unwrap();
        set_xsave(vcpu, &xsave);
    }
}

#[test]
fn notices_general_registers() {
    notices("r12", |vcpu| {
        let mut regs = vcpu.get_regs().unwrap();
        regs.r12 ^= FLIPPED;
        vcpu.set_regs(&regs).unwrap();
    });
    notices("rsp", |vcpu| {
        let mut regs = vcpu.get_regs().unwrap();
        regs.rsp ^= FLIPPED;
        vcpu.set_regs(&regs).unwrap();
    });
}

#[test]
fn notices_floating_point_state() {
    notices_in_xsave("ymm7", 160 + 16 * 7);
    // The rounding mode of MXCSR, a mantissa.
    notices_in_xsave("mxcsr", 24);
    notices_in_xsave("st5", 32 + 16 * 5);
}

#[test]
fn notices_upper_halves_of_vectors() {
    if std::arch::is_x86_feature_detected!("avx") {
        notices_in_xsave("ymm11", 576 + 16 * 11);
    } else {
        println!("SKIPPED: no AVX on this processor");
    }
}

#[test]
fn notices_debug_registers() {
    notices("dr2", |vcpu| {
        let mut debug = vcpu.get_debug_regs().unwrap();
        debug.db[2] ^= FLIPPED;
        vcpu.set_debug_regs(&debug).unwrap();
    });
}

#[test]
fn notices_segment_bases() {
    notices("fs", |vcpu| {
        let mut sregs = vcpu.get_sregs().unwrap();
        sregs.fs.base ^= FLIPPED;
        vcpu.set_sregs(&sregs).unwrap();
    });
    notices("gs", |vcpu| {
        let mut sregs = vcpu.get_sregs().unwrap();
        sregs.gs.base ^= FLIPPED;
        vcpu.set_sregs(&sregs).unwrap();
    });
}

#[test]
fn holds_and_notices_without_avx_and_fsgsbase() {
    let machine = self_testing_with(2, Features::Few);
    notices_in(&machine, "ymm9", flip_in_xsave(160 + 16 * 9));
    assert_eq!(machine.status().cpus[0].failures, 0);
}
