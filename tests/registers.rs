//! Every register comes back in a clone, and one that does not is noticed.

use std::collections::BTreeMap;

use cloner_testing::{Guest, Studio, guest, room_for, value};
use guest_images::pulse::{Params, Work};
use vmm::VmState;
use vmm::vcpu::state::VcpuStateV1;

use crate::MIB;

/// Selector of ring-3 code in the guest: the registers hold the self-test's values whenever the guest runs there.
const RING3_CODE: u16 = 0x33;
/// The bit that is flipped in a register, in its low quadword.
const FLIPPED: u64 = 1 << 13;

fn self_testing(vcpus: u8) -> Guest {
    let params = Params { beat_ms: 0, work: Work::SelfTest, ..Params::new(0x5eed, 0) };
    let guest = Guest::boot(&guest::pulse(&params, MIB, vcpus));
    guest.line("pulse: ready");
    guest
}

/// Waits until every vCPU has done `rounds` more rounds of the self-test.
fn wait_for_rounds(guest: &Guest, rounds: u64) {
    let now = || guest::status(guest.vm.memory()).cpus;
    let start = now();
    while now().iter().zip(&start).any(|(now, start)| now.rounds < start.rounds + rounds) {
        assert_eq!(guest.vm.ending(), None, "{}", guest.console.transcript());
        std::thread::yield_now();
    }
}

/// The report of each vCPU, by index. A vCPU that fails has already reported it unasked, so some reports come twice.
fn reports(guest: &Guest) -> Vec<String> {
    guest.send("r");
    let cpus = guest::status(guest.vm.memory()).cpus.len();
    let mut reports = BTreeMap::new();
    while reports.len() < cpus {
        let report = guest.line("pulse: self-test").text;
        reports.insert(value(&report, "cpu", 10), report);
    }
    reports.into_values().collect()
}

/// Covers general, x87, SSE, AVX, MXCSR, segment base and debug registers, on every vCPU.
#[test]
fn hold_for_three_generations_on_one_and_four_vcpus() {
    let Some(_room) = room_for(2) else { return };
    for vcpus in [1, 4] {
        let studio = Studio::new(16 * MIB);
        let mut source = self_testing(vcpus);
        wait_for_rounds(&source, 3);
        for generation in 1..=3 {
            let snapshot = studio.snapshot(&source, &format!("generation-{generation}"));
            let clone = studio.clone_of(&snapshot);
            for guest in [&source, &clone] {
                wait_for_rounds(guest, 20);
                for (cpu, report) in reports(guest).iter().enumerate() {
                    let ok = format!("pulse: self-test cpu={cpu} ok rounds=");
                    assert!(report.starts_with(&ok), "generation {generation}: {report}");
                }
                let status = guest::status(guest.vm.memory());
                assert!(status.cpus.iter().all(|cpu| cpu.failures == 0), "{status:?}");
            }
            source = clone;
        }
    }
}

/// A snapshot of a guest with two vCPUs, both in the self-test's loop.
fn saved_in_ring_3(studio: &Studio) -> cloner::snapshot::Snapshot {
    let source = self_testing(2);
    wait_for_rounds(&source, 3);
    for attempt in 0..100 {
        let snapshot = studio.snapshot(&source, &format!("attempt-{attempt}"));
        if snapshot.state().get().vcpus.iter().all(|vcpu| vcpu.sregs.cs.selector == RING3_CODE) {
            return snapshot;
        }
    }
    panic!("the guest is never in ring 3");
}

/// A register's name in reports, and how to change it in the state of a vCPU.
type Change<'a> = (&'a str, &'a dyn Fn(&mut VcpuStateV1));

/// Without this test, the one above could pass by comparing nothing.
#[test]
fn a_register_that_was_changed_in_the_state_is_reported_by_the_clone() {
    let Some(_room) = room_for(2) else { return };
    let low_bits = u8::try_from(FLIPPED >> 8).unwrap();
    // Offsets are those of the XSAVE area: MXCSR at 24, ST(n) from 32 on, XMMn from 160 on, upper halves from 576 on.
    let changes: &[Change<'_>] = &[
        ("r12", &|vcpu| vcpu.regs.r12 ^= FLIPPED),
        ("rbx", &|vcpu| vcpu.regs.rbx ^= FLIPPED),
        ("mxcsr", &|vcpu| vcpu.xsave[24 + 1] ^= low_bits),
        ("st5", &|vcpu| vcpu.xsave[32 + 16 * 5 + 1] ^= low_bits),
        ("ymm7", &|vcpu| vcpu.xsave[160 + 16 * 7 + 1] ^= low_bits),
        ("ymm11", &|vcpu| vcpu.xsave[576 + 16 * 11 + 1] ^= low_bits),
        ("dr2", &|vcpu| vcpu.debug_regs.db[2] ^= FLIPPED),
        ("fs", &|vcpu| vcpu.sregs.fs.base ^= FLIPPED),
        ("gs", &|vcpu| vcpu.sregs.gs.base ^= FLIPPED),
    ];
    let studio = Studio::new(64 * MIB);
    let snapshot = saved_in_ring_3(&studio);
    for (part, change) in changes {
        if *part == "ymm11" && !std::arch::is_x86_feature_detected!("avx") {
            continue;
        }
        let mut state = snapshot.state().get().clone();
        change(&mut state.vcpus[1]);
        let VcpuStateV1 { sregs, msrs, .. } = &mut state.vcpus[1];
        for msr in msrs {
            // FS and GS base are MSRs as well, which are restored later.
            match msr.index {
                0xc000_0100 => msr.data = sregs.fs.base,
                0xc000_0101 => msr.data = sregs.gs.base,
                _ => {}
            }
        }
        let clone = Guest::resume(&VmState::try_from(state).unwrap(), studio.memory(&snapshot));
        wait_for_rounds(&clone, 3);
        let [first, second] = reports(&clone).try_into().unwrap();
        assert!(first.starts_with("pulse: self-test cpu=0 ok"), "changed {part} of vCPU 1: {first}");
        assert!(
            second.starts_with(&format!("pulse: self-test cpu=1 FAILED {part} ")),
            "changed {part}: {second}"
        );
        assert_eq!(value(&second, "expected", 16) ^ value(&second, "found", 16), FLIPPED, "{second}");
    }
}
