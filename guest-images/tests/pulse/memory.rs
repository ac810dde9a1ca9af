//! What the guest writes, checked word for word.

use std::time::{Duration, Instant};

use guest_images::pulse::check::{self, Violation};
use guest_images::pulse::{
    DirtyRate, DirtyWork, EXIT_SEQUENCE, Mix, Params, Status, Work, WriteOrder, layout,
};

use crate::machine::{End, Features, Machine, Shape};
use crate::{MIB, value};

const SHAPE: Shape = Shape { cpus: 2, low_bytes: 4 * MIB, high_bytes: 8 * MIB, features: Features::All };

/// Memory and status of one instant.
struct Copy {
    status: Status,
    low: Vec<u8>,
    high: Vec<u8>,
}

impl Copy {
    fn of(machine: &Machine) -> Self {
        machine.with_all_stopped(|| {
            let read = |address, len: u64| {
                let mut bytes = vec![0; usize::try_from(len).unwrap()];
                machine.read(address, &mut bytes);
                bytes
            };
            Self {
                status: machine.status(),
                low: read(0, machine.shape.low_bytes),
                high: read(layout::HIGH_START, machine.shape.high_bytes),
            }
        })
    }

    fn page(&mut self, params_index: u64) -> &mut [u8] {
        let address = Params::page_address(SHAPE.low_bytes, params_index);
        let (bytes, start) = if address < layout::HIGH_START {
            (&mut self.low, 0)
        } else {
            (&mut self.high, layout::HIGH_START)
        };
        let start = usize::try_from(address - start).unwrap();
        &mut bytes[start..start + 4096]
    }

    fn verify(&self, params: &Params) -> Result<(), Violation> {
        check::verify(params, &self.status, SHAPE.low_bytes, |address, bytes| {
            let (from, start) = if address < layout::HIGH_START {
                (&self.low, address)
            } else {
                (&self.high, address - layout::HIGH_START)
            };
            let start = usize::try_from(start).unwrap();
            bytes.copy_from_slice(&from[start..start + bytes.len()]);
        })
    }
}

fn dirtying(rate: DirtyRate, order: WriteOrder, words_per_page: u16) -> Params {
    let work = Work::Dirty(DirtyWork { rate, working_set: 500, order, words_per_page });
    Params { beat_ms: 0, work, mix: EVEN, ..Params::new(9, 8 * MIB) }
}

const EVEN: Mix = Mix { zero: 200, fill: 200, duplicate: 200, structured: 200, random: 200 };

#[test]
fn fills_every_kind_of_page_on_both_sides_of_the_gap() {
    for cpus in [1, 4] {
        let shape = Shape { cpus, ..SHAPE };
        let params = Params { mix: EVEN, seed: cpus, ..Params::new(1, 8 * MIB) };
        let machine = Machine::boot(shape, &params);
        let sum = value(&machine.line("pulse: ready"), "sum", 16);
        assert_eq!(sum, check::expected_sum(&params));
        let read = |address, bytes: &mut [u8]| machine.read(address, bytes);
        assert_eq!(sum, check::sum(&params, shape.low_bytes, read));
        check::verify(&params, &machine.status(), shape.low_bytes, read).unwrap();
        // Words are checked, not only the sum.
        let address = Params::page_address(shape.low_bytes, 1000) + 8;
        machine.write(address, &[0x55]);
        let found = check::verify(&params, &machine.status(), shape.low_bytes, read);
        assert!(matches!(found, Err(Violation::Word { address: at, .. }) if at == address), "{found:?}");
    }
}

#[test]
fn every_instant_of_dirtying_verifies() {
    for (order, words) in [(WriteOrder::Random, 512), (WriteOrder::Sequential, 8), (WriteOrder::Random, 1)] {
        let params = dirtying(DirtyRate::FullSpeed, order, words);
        let machine = Machine::boot(SHAPE, &params);
        machine.line("pulse: ready");
        let mut last = 0;
        for _ in 0..20 {
            let copy = Copy::of(&machine);
            copy.verify(&params).unwrap();
            assert!(copy.status.cpus[0].sequence >= last);
            last = copy.status.cpus[0].sequence;
        }
        machine
            .wait_for(|status| status.cpus.iter().all(|cpu| cpu.sequence > 2 * params.working_set_pages()));
        Copy::of(&machine).verify(&params).unwrap();
        // Input is served meanwhile.
        machine.send(b'n');
        machine.line("pulse: nonce");
    }
}

#[test]
fn mixes_of_two_instants_do_not_verify() {
    let params = dirtying(DirtyRate::FullSpeed, WriteOrder::Random, 512);
    let machine = Machine::boot(SHAPE, &params);
    machine.line("pulse: ready");
    let slice = params.working_set_pages() / SHAPE.cpus;
    let pages = params.working_set_pages();
    machine.wait_for(|status| status.cpus.iter().all(|cpu| cpu.sequence > 2 * pages));
    let mut before = Copy::of(&machine);
    machine.wait_for(|status| {
        status
            .cpus
            .iter()
            .zip(&before.status.cpus)
            .all(|(now, then)| now.sequence > then.sequence + 2 * pages)
    });
    let after = || Copy::of(&machine);

    let mut one_page = after();
    one_page.page(slice / 2).copy_from_slice(before.page(slice / 2));
    assert!(matches!(one_page.verify(&params), Err(Violation::Word { .. })));

    let mut half_a_page = after();
    half_a_page.page(5)[2048..].copy_from_slice(&before.page(5)[2048..]);
    assert!(matches!(half_a_page.verify(&params), Err(Violation::Word { .. })));

    let mut old_status = after();
    old_status.status = before.status.clone();
    assert!(matches!(old_status.verify(&params), Err(Violation::Word { .. })));

    // One vCPU's slice and count from before: each slice is whole, but together they are not of one instant.
    let mut one_cpu = after();
    one_cpu.status.cpus[1] = before.status.cpus[1];
    for index in slice..2 * slice {
        one_cpu.page(index).copy_from_slice(before.page(index));
    }
    let found = one_cpu.verify(&params);
    assert!(matches!(found, Err(Violation::Order { cpu: 1, .. })), "{found:?}");
}

#[test]
fn the_guest_notices_a_page_from_the_past() {
    let params = dirtying(DirtyRate::FullSpeed, WriteOrder::Random, 512);
    let machine = Machine::boot(SHAPE, &params);
    machine.line("pulse: ready");
    let pages = params.working_set_pages();
    machine.wait_for(|status| status.cpus.iter().all(|cpu| cpu.sequence > pages));
    let address = Params::page_address(SHAPE.low_bytes, 7);
    let mut page = [0; 4096];
    machine.read(address, &mut page);
    let round = value_at(&page);
    machine.wait_for(|status| status.cpus[0].sequence > round + pages);
    machine.write(address, &page);
    assert_eq!(machine.end(), End::Exit(EXIT_SEQUENCE));
    let line = machine.last_line();
    assert!(line.starts_with("pulse: sequence cpu=0 FAILED"), "{line:?}");
    assert_eq!(value(&line, "address", 16), address);
}

fn value_at(page: &[u8; 4096]) -> u64 {
    u64::from_le_bytes(page[..8].try_into().unwrap())
}

#[test]
fn keeps_the_pace_it_is_given() {
    const PAGES_PER_SECOND: u32 = 2000;
    let params = Params {
        beat_ms: 50,
        ..dirtying(DirtyRate::PagesPerSecond(PAGES_PER_SECOND), WriteOrder::Sequential, 512)
    };
    let machine = Machine::boot(SHAPE, &params);
    machine.line("pulse: beat");
    let written = || machine.status().cpus.iter().map(|cpu| cpu.sequence).sum::<u64>();
    let (start, before) = (Instant::now(), written());
    std::thread::sleep(Duration::from_secs(1));
    let (pages, seconds) = (written() - before, start.elapsed().as_secs_f64());
    // Never faster; slower only where the host withholds the processor.
    #[expect(clippy::cast_precision_loss, reason = "a few thousand")]
    let rate = pages as f64 / seconds;
    assert!((400.0..2100.0).contains(&rate), "{rate} pages per second");
    Copy::of(&machine).verify(&params).unwrap();
}
