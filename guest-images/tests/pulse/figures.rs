//! Figures of the guest on this host. They are printed, not judged: run with `--ignored --nocapture`, in release.

use std::time::{Duration, Instant};

use guest_images::pulse::{DirtyRate, DirtyWork, Mix, Params, Work, WriteOrder};

use crate::MIB;
use crate::machine::{Machine, Shape};

const TOUCHED: u64 = 512 * MIB;

fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    #[expect(clippy::cast_precision_loss, reason = "a figure")]
    let bytes = bytes as f64;
    bytes / 1e9 / time.as_secs_f64()
}

/// How long a command takes to its first byte of answer.
fn reply(machine: &Machine, command: u8, answer: &str) -> Duration {
    machine.send(command);
    machine.line(answer);
    machine.reply_time()
}

#[test]
#[ignore = "prints figures"]
fn filling_and_summing() {
    for (name, mix) in
        [("realistic", Mix::realistic()), ("structured", Mix::STRUCTURED), ("random", Mix::RANDOM)]
    {
        for cpus in [1, 2] {
            let shape = Shape::new(cpus, TOUCHED + MIB);
            let params = Params { mix, beat_ms: 0, ..Params::new(1, TOUCHED) };
            let machine = Machine::prepare(shape, &params);
            // Memory the host has touched: what is measured is the guest.
            machine.touch();
            let start = Instant::now();
            let machine = machine.start();
            machine.line("pulse: ready");
            let ready = start.elapsed();
            let sum = reply(&machine, b's', "pulse: sum");
            println!(
                "{name}, {cpus} vCPUs: fill {:.2} GB/s, sum {:.2} GB/s",
                gigabytes_per_second(TOUCHED, ready.saturating_sub(sum)),
                gigabytes_per_second(TOUCHED, sum)
            );
        }
    }
}

#[test]
#[ignore = "prints figures"]
fn dirtying() {
    for words_per_page in [512, 8, 1] {
        let dirty = DirtyWork {
            rate: DirtyRate::FullSpeed,
            working_set: 1000,
            order: WriteOrder::Random,
            words_per_page,
        };
        let params = Params { beat_ms: 0, work: Work::Dirty(dirty), ..Params::new(1, 64 * MIB) };
        let machine = Machine::boot(Shape::new(1, 65 * MIB), &params);
        machine.line("pulse: ready");
        let written = || machine.status().cpus[0].sequence;
        let (start, before) = (Instant::now(), written());
        std::thread::sleep(Duration::from_secs(1));
        let pages = written() - before;
        let time = start.elapsed();
        println!(
            "{words_per_page} words per page: {:.2} million pages/s, {:.2} GB/s",
            gigabytes_per_second(pages, time) * 1e3,
            gigabytes_per_second(pages * 8 * u64::from(words_per_page), time)
        );
        println!("reply while dirtying: {:?}", reply(&machine, b'n', "pulse: nonce"));
    }
}

#[test]
#[ignore = "prints figures"]
fn waking_and_answering() {
    let start = Instant::now();
    let machine = Machine::boot(Shape::new(1, MIB), &Params { beat_ms: 0, ..Params::new(1, 0) });
    machine.line("pulse: ready");
    println!("boot to ready line, nothing touched: {:?}", start.elapsed());
    let mut first = Vec::new();
    let mut whole = Vec::new();
    for _ in 0..300 {
        std::thread::sleep(Duration::from_millis(2));
        let start = Instant::now();
        first.push(reply(&machine, b'n', "pulse: nonce"));
        whole.push(start.elapsed());
    }
    first.sort();
    whole.sort();
    println!("console byte to first byte of answer: p50 {:?}, p99 {:?}", first[150], first[297]);
    println!("to the whole line: p50 {:?}, p99 {:?}", whole[150], whole[297]);
}

#[test]
#[ignore = "prints figures"]
fn idling() {
    for beat_ms in [0, 100, 10] {
        let machine = Machine::boot(Shape::new(1, MIB), &Params { beat_ms, ..Params::new(1, 0) });
        machine.line("pulse: ready");
        let before = processor_time();
        std::thread::sleep(Duration::from_secs(2));
        println!(
            "beat every {beat_ms} ms: {:?} of processor time per second",
            (processor_time() - before) / 2
        );
    }
}

fn processor_time() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap();
    let fields: Vec<_> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
