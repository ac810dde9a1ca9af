//! Lines and commands.

use guest_images::pulse::{Params, Status, Work, check, layout};

use crate::machine::{End, Machine, Shape};
use crate::{MIB, value};

const NONCE: u64 = 0x1234_5678_9abc_def0;

#[test]
fn announces_beats_and_answers() {
    let params = Params { beat_ms: 10, ..Params::new(NONCE, 4 * MIB) };
    let machine = Machine::boot(Shape::new(1, 8 * MIB), &params);
    let ready = machine.line("pulse: ready");
    assert_eq!(value(&ready, "nonce", 16), NONCE);
    assert_eq!(value(&ready, "cpus", 10), 1);
    assert_eq!(value(&ready, "touched", 10), 4 * MIB);
    assert_eq!(value(&ready, "sum", 16), check::expected_sum(&params));
    for beat in 1..5 {
        assert_eq!(machine.line("pulse: beat"), format!("pulse: beat {beat} nonce={NONCE:016x}"));
    }
    machine.send(b'n');
    let answer = machine.line("pulse: nonce");
    assert_eq!(value(&answer, "nonce", 16), NONCE);
    assert!(value(&answer, "counter", 10) >= 4);
    machine.send(b's');
    assert_eq!(value(&machine.line("pulse: sum"), "sum", 16), check::expected_sum(&params));
    machine.send(b'r');
    assert_eq!(machine.line("pulse: self-test"), "pulse: self-test cpu=0 off");
    machine.send(b'X');
    assert_eq!(machine.line("pulse: ?"), "pulse: ? 58");
    machine.send(b'q');
    assert_eq!(machine.end(), End::Exit(0));
}

/// Without beats the guest sleeps until there is input, and it is not lost, however it falls.
#[test]
fn sleeps_without_beats_and_wakes_for_every_byte() {
    let params = Params { beat_ms: 0, ..Params::new(NONCE, 0) };
    let machine = Machine::boot(Shape::new(1, MIB), &params);
    // Sent before the guest listens.
    machine.send(b'n');
    machine.line("pulse: ready");
    machine.line("pulse: nonce");
    for _ in 0..200 {
        machine.send(b'n');
        machine.line("pulse: nonce");
    }
    for _ in 0..20 {
        machine.send(b'n');
    }
    for _ in 0..20 {
        assert_eq!(value(&machine.line("pulse: nonce"), "counter", 10), 0);
    }
}

#[test]
fn lines_of_many_vcpus_do_not_mix() {
    let params = Params { beat_ms: 20, work: Work::SelfTest, ..Params::new(NONCE, 0) };
    let machine = Machine::boot(Shape::new(4, MIB), &params);
    for cpu in 0..4 {
        machine.line(&format!("pulse: self-test cpu={cpu} ok"));
    }
    for _ in 0..10 {
        machine.line("pulse: beat");
    }
    let console = machine.console();
    let (whole_lines, _) = console.rsplit_once('\n').unwrap();
    for line in whole_lines.lines() {
        assert!(line.matches("pulse:").count() == 1 && line.starts_with("pulse: "), "{line:?}");
    }
}

#[test]
fn counts_on_every_vcpu() {
    let params = Params { beat_ms: 20, ..Params::new(NONCE, 0) };
    let machine = Machine::boot(Shape::new(layout::MAX_CPUS, MIB), &params);
    for _ in 0..5 {
        machine.line("pulse: beat");
    }
    let earlier = machine.status();
    assert_eq!(earlier.nonce, NONCE);
    for _ in 0..10 {
        machine.line("pulse: beat");
    }
    let later = machine.status();
    assert!(later.beats >= earlier.beats + 9);
    assert_eq!(later.cpus.len(), 16);
    for (earlier, later) in earlier.cpus.iter().zip(&later.cpus) {
        assert!(later.counter > earlier.counter);
    }
}

/// The nonce is in the memory the guest has written, not in its image.
#[test]
fn wipes_the_nonce_from_the_image() {
    let params = Params { beat_ms: 0, ..Params::new(NONCE, 0) };
    let image = guest_images::pulse::image(&params).unwrap();
    let find = |bytes: &[u8]| bytes.windows(8).position(|bytes| bytes == NONCE.to_le_bytes());
    assert!(find(&image).is_some());
    let machine = Machine::boot(Shape::new(1, MIB), &params);
    machine.line("pulse: ready");
    let mut loaded = vec![0; image.len()];
    machine.read(layout::LOAD_ADDRESS, &mut loaded);
    assert_eq!(find(&loaded), None);
}

/// What the host writes into a clone's status block is announced once.
#[test]
fn learns_its_identity() {
    let machine = Machine::boot(Shape::new(1, MIB), &Params { beat_ms: 0, ..Params::new(NONCE, 0) });
    machine.line("pulse: ready");
    machine.write(Status::IDENTITY, &Status::identity(3, 0xfeed << 64 | 0xbeef));
    machine.send(b'n');
    let line = machine.line("pulse: clone");
    assert_eq!(line, "pulse: clone generation=3 id=000000000000feed000000000000beef");
    machine.line("pulse: nonce");
    let status = machine.status();
    assert_eq!((status.generation, status.unique_id), (3, 0xfeed << 64 | 0xbeef));
    machine.send(b'n');
    machine.line("pulse: nonce");
    assert_eq!(machine.console().matches("clone").count(), 1);
}
