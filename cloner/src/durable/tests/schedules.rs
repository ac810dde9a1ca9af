//! Runs random schedules of everything that can happen to a durable pool, on a clock that moves only while the device works or when
//! the test lets time pass.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use cloner_codec::chunk::PAGE_BYTES;
use cloner_codec::hot::{ChunkInput, Encoder, EncoderOptions, NoDedup, PageSet, VerifiedChunk};

use crate::battery::{Battery, BatterySpec, Charge, Clock, Mains, PowerReading, SimulatedClock};
use crate::chunk_id::ChunkId;
use crate::flush::files::faulty::{FaultyFiles, Random, Speed};
use crate::flush::{Folder, FolderOptions, Form};
use crate::pool::{
    self, Labels, Pool, PoolConfig, PoolPages, Populate, Priority, Reservation, UnflushedLimit,
};
use crate::snapshot::{MANIFEST_LABEL, MEMORY_REGION, ManifestV2, RegionV2, SnapshotId};

use super::super::decisions::{Decisions, DurableSettings, LimitRule};

/// Fills a snapshot of one chunk with `pages` random pages, which no encoding makes smaller.
pub(super) fn fill(reservation: &Reservation, seed: u64, pages: usize) -> Result<(), pool::Error> {
    static ENCODED: OnceLock<BTreeMap<usize, Vec<u8>>> = OnceLock::new();
    let make = |pages: usize| {
        let mut random = Random(seed);
        let memory: Vec<u8> = (0..pages * PAGE_BYTES / 8).flat_map(|_| random.next().to_le_bytes()).collect();
        let mut encoded = Vec::new();
        let input = ChunkInput::new(&memory, &PageSet::ALL).unwrap();
        Encoder::new(EncoderOptions::default()).encode_chunk(&input, &mut NoDedup, &mut encoded);
        encoded
    };
    let all = ENCODED.get_or_init(|| [1, 2, 4, 8, 16, 64].map(|pages| (pages, make(pages))).into());
    let encoded = &all[&pages];
    let checksum = VerifiedChunk::reopen(encoded).unwrap().checksum();
    let id = ChunkId { region: MEMORY_REGION, index: 0, checksum };
    reservation.put_chunk(id, encoded)?;
    let manifest = ManifestV2 {
        producer: ManifestV2::this_producer(),
        id: SnapshotId::random().unwrap(),
        dependencies: Vec::new(),
        has_parent: false,
        touched_pages: pages as u64,
        regions: vec![RegionV2::memory(1 << 30)],
        chunks: vec![id],
    };
    reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes())
}

/// How often each thing happened in all schedules.
#[derive(Debug, Default)]
struct Outcome {
    schedules: u32,
    puts: u32,
    refused: u32,
    removals: u32,
    slow_downs: u32,
    background: u32,
    failures: u32,
    mains_back: u32,
    /// Late flushes after mains failures at which more was unflushed than the limit of that moment. That is announced, and not part
    /// of the promise.
    exposed: u32,
    /// Mains failures after which admitted and covered snapshots were not on the disk when the battery was empty.
    lost: u32,
    flushed_bytes: u64,
}

struct World {
    decisions: Decisions,
    clock: SimulatedClock,
    files: FaultyFiles,
    random: Random,
    /// Bytes per second that the device really writes, and those that it wrote at the last measurement.
    speed: f64,
    measured: f64,
    next_name: u32,
    outcome: Outcome,
}

const MARGIN: f64 = 0.3;

impl World {
    fn new(seed: u64) -> Self {
        let (clock, files) = (SimulatedClock::default(), FaultyFiles::new());
        let config = PoolConfig {
            capacity_bytes: 64 << 20,
            pages: PoolPages::Ordinary,
            populate: Populate::OnFirstUse,
        };
        let pool = Arc::new(Pool::new(&config).unwrap());
        let folder = Folder::open(Arc::new(files.clone()), &FolderOptions::default()).unwrap();
        let settings = DurableSettings {
            probe_bytes: 64 << 10,
            buffer_bytes: 16 << 10,
            form: Some(Form::Hot),
            ..DurableSettings::new(1)
        };
        let battery = Battery::new(BatterySpec::default()).unwrap();
        let decisions =
            Decisions::new(pool, Arc::new(folder), battery, Arc::new(clock.clone()), settings).unwrap();
        let (random, outcome) = (Random(seed), Outcome::default());
        Self { decisions, clock, files, random, speed: 1e6, measured: 1e6, next_name: 0, outcome }
    }

    fn between(&mut self, low: f64, high: f64) -> f64 {
        let steps = 10_000;
        low + (high - low) * self.random.below(steps) as f64 / steps as f64
    }

    fn set_speed(&mut self, bytes_per_second: f64) {
        self.speed = bytes_per_second;
        let (clock, sync) = (self.clock.clone(), Duration::from_micros(200));
        self.files.set_speed(Speed { clock, bytes_per_second, sync });
    }

    /// What the watching thread does at intervals.
    fn measure(&mut self, first: bool) {
        self.decisions.measure(first).unwrap();
        self.measured = self.speed;
    }

    fn mains(&self, mains: Mains) {
        self.decisions.observe(Ok(PowerReading { mains, charge: Charge::Unknown, low: false }));
    }

    /// One battery, one device, and some thirty things that happen to them.
    fn schedule(&mut self, rule: LimitRule) {
        for listing in self.decisions.pool().list() {
            self.decisions.remove(&listing.name).unwrap();
        }
        let spec = BatterySpec {
            capacity_j: self.between(5.0, 40.0),
            load_w: 100.0,
            charge_w: self.between(0.0, 200.0),
            usable_share: self.between(0.5, 1.0),
            fade_per_year: 0.2,
            margin: MARGIN,
            low_share: 0.2,
        };
        self.decisions.set(Battery::new(spec).unwrap(), rule);
        let speed = self.between(1e6, 2e7);
        self.set_speed(speed);
        self.measure(true);
        self.mains(Mains::Present);
        for _ in 0..30 {
            match self.random.below(20) {
                0..8 => self.put(),
                8..10 => self.remove(),
                10..13 => self.let_time_pass(),
                13 => self.slow_down(),
                14 => self.speed_up(),
                15 => self.decisions.age([0.1, 1.0, 3.0][usize::try_from(self.random.below(3)).unwrap()]),
                16 => self.measure(false),
                17 => self.flush_in_background(),
                _ => self.mains_fail(),
            }
        }
        self.mains_fail();
        self.outcome.schedules += 1;
    }

    fn put(&mut self) {
        let name = format!("s{}", self.next_name);
        self.next_name += 1;
        let pages = 1 << self.random.below(5);
        let labels =
            Labels { priority: Priority(self.random.next().to_le_bytes()[0] % 4), ..Labels::default() };
        // Reserves nothing, what the snapshot will have, or too much.
        let bytes =
            [0, pages * PAGE_BYTES as u64 + 2000, 100_000][usize::try_from(self.random.below(3)).unwrap()];
        let put = self.decisions.reserve(&name, bytes, labels, |_| false).and_then(|admitted| {
            fill(&admitted.reservation, 1, usize::try_from(pages).unwrap())?;
            Ok(admitted.reservation.publish())
        });
        match put {
            Ok(_) => self.outcome.puts += 1,
            Err(super::Error::Pool(pool::Error::Refused(_))) => self.outcome.refused += 1,
            Err(other) => panic!("{other}"),
        }
    }

    fn remove(&mut self) {
        let all = self.decisions.pool().list();
        if let Some(listing) = all.get(usize::try_from(self.random.below(all.len().max(1) as u64)).unwrap()) {
            self.decisions.remove(&listing.name).unwrap();
            self.outcome.removals += 1;
        }
    }

    fn let_time_pass(&mut self) {
        let seconds = self.between(0.0, 0.3);
        self.clock.advance(Duration::from_secs_f64(seconds));
        self.mains(Mains::Present);
    }

    /// Makes the device slower: by less than the margin since the last measurement; or by any amount, and then it is measured.
    fn slow_down(&mut self) {
        self.outcome.slow_downs += 1;
        if self.random.one_in(2) {
            let slowest = self.measured * (1.0 - MARGIN * 0.8);
            let speed = self.between(slowest, self.measured);
            self.set_speed(speed.min(self.speed));
        } else {
            let speed = self.speed * self.between(0.1, 1.0);
            self.set_speed(speed.max(1e5));
            self.measure(false);
        }
    }

    fn speed_up(&mut self) {
        let speed = self.speed * self.between(1.0, 3.0);
        self.set_speed(speed.min(5e7));
        self.measure(false);
    }

    /// What the flushing thread does when it is woken.
    fn flush_in_background(&mut self) {
        let mut failed = BTreeSet::new();
        while self.decisions.flush_step(0.3, &mut failed) {
            self.outcome.background += 1;
        }
        assert!(failed.is_empty());
        self.measured = self.measured.min(self.speed);
    }

    /// Makes the mains fail. All unflushed bytes that are covered must be safe before the battery is empty, unless the mains come
    /// back first.
    fn mains_fail(&mut self) {
        self.outcome.failures += 1;
        // The state just before: what the model says, whatever limit the rule derives from it.
        let before = self.decisions.status();
        let (holdup, usage) = (before.holdup, before.usage);
        let failed_at = self.clock.now();
        self.mains(Mains::Failed);
        let back_at = self.random.one_in(4).then(|| failed_at + holdup.mul_f64(self.between(0.0, 1.0)));
        let mut failed = BTreeSet::new();
        let mut late = false;
        loop {
            let bytes_before = self.decisions.status().usage.unflushed_bytes;
            if !self.decisions.flush_step(0.0, &mut failed) {
                break;
            }
            let safe = bytes_before.saturating_sub(self.decisions.status().usage.unflushed_bytes);
            self.outcome.flushed_bytes += safe;
            late |= self.clock.now() - failed_at > holdup;
            if back_at.is_some_and(|back_at| self.clock.now() >= back_at) {
                self.mains(Mains::Present);
                self.outcome.mains_back += 1;
                assert!(self.decisions.status().usage.open, "normal work goes on");
                return;
            }
        }
        let left = self.decisions.pool().list().iter().filter(|listing| listing.unflushed).count();
        assert_eq!((left, failed.len()), (0, 0), "everything goes out in the end");
        if late && usage.exposed_bytes() > 0 {
            self.outcome.exposed += 1;
        } else if late {
            self.outcome.lost += 1;
        }
        // The mains come back, and the battery gets some time to charge, or none.
        self.mains(Mains::Present);
        self.let_time_pass();
    }
}

fn run(schedules: u32, rule: LimitRule) -> Outcome {
    let mut world = World::new(1);
    for _ in 0..schedules {
        world.schedule(rule);
    }
    world.decisions.pool().check().unwrap();
    world.outcome
}

#[test]
fn whatever_was_admitted_is_safe_before_the_battery_is_empty() {
    let outcome = run(10_000, Battery::limit);
    println!("{outcome:?}");
    assert_eq!(outcome.lost, 0, "{outcome:?}");
    assert!(outcome.schedules >= 10_000 && outcome.refused > 10_000 && outcome.background > 1000);
    assert!(outcome.exposed < outcome.failures / 20, "{outcome:?}");
}

/// The promise does not hold by accident: rules that look right but are wrong break it.
#[test]
fn wrong_rules_lose_snapshots() {
    let full_battery: LimitRule = |battery, rate| battery.spec().limit(battery.spec().holdup(), rate);
    let twice: LimitRule = |battery, rate| {
        let limit = battery.limit(rate);
        UnflushedLimit { bytes: limit.bytes * 2, ..limit }
    };
    for (name, rule) in [("a full battery, always", full_battery), ("twice the budget", twice)] {
        let outcome = run(1000, rule);
        println!("{name}: {} lost", outcome.lost);
        assert!(outcome.lost > 0, "{name}: {outcome:?}");
    }
}
