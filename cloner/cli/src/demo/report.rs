//! What the demo measured, as JSON and as lines for people.

use std::time::Duration;

use cloner_codec::chunk::{PAGE_BYTES, PageKind};
use serde::Serialize;

use cloner::save;

use crate::numbers;
use cloner::pool::{PoolBacking, ProvidedPool};
use cloner::snapshot::Snapshot;

use crate::pages;
use crate::size::Size;

/// What the whole demo measured. Figures at the top level are those of the first generation.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    guest: &'static str,
    memory_bytes: u64,
    touched_bytes: u64,
    pause_ms: f64,
    source_resumed: bool,
    encode: EncodeReport,
    memcpy_gbps: f64,
    pool: PoolReport,
    ratio: f64,
    pages: PagesReport,
    clones: Vec<CloneReport>,
    generations: Vec<Generation>,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct EncodeReport {
    seconds: f64,
    threads: usize,
    touched_gbps: f64,
    logical_gbps: f64,
}

#[derive(Debug, Clone, Serialize)]
struct PoolReport {
    bytes: u64,
    capacity_bytes: u64,
    hugepages: bool,
    backing: String,
}

#[derive(Debug, Clone, Copy, Default, Serialize)]
struct PagesReport {
    untouched: u64,
    zero: u64,
    fill: u64,
    dup: u64,
    marked: u64,
    word_marked: u64,
    byte_marked: u64,
    raw: u64,
}

/// One snapshot and its clones.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Generation {
    generation: u16,
    pub(super) touched_bytes: u64,
    memory_bytes: u64,
    pause_ms: f64,
    /// Time the source was held in milliseconds: the pause, and the copy of memory that the demo compares with.
    held_ms: f64,
    state_ms: f64,
    plan_ms: f64,
    pub(super) source_resumed: bool,
    encode: EncodeReport,
    snapshot_bytes: u64,
    ratio: f64,
    pages: PagesReport,
    #[serde(skip)]
    backing: PoolBacking,
    #[serde(skip)]
    pub(super) clones: Vec<CloneReport>,
}

/// What was measured of one clone.
#[derive(Debug, Clone, Serialize)]
pub(super) struct CloneReport {
    pub(super) generation: u64,
    /// The clone's id: 32 hexadecimal digits that no other clone has. Its guest has been told, and has confirmed it.
    pub(super) id: String,
    pub(super) mode: &'static str,
    pub(super) decode_gbps: f64,
    pub(super) verify_ms: f64,
    pub(super) build_ms: f64,
    pub(super) first_output_ms: f64,
    /// Whether every byte of the clone's memory equalled the paused source's before the clone ran; null if it was not compared.
    pub(super) memory_equal: Option<bool>,
    /// Whether the guest itself confirms it: same nonce, count continued, no second boot.
    pub(super) verified: bool,
}

impl Report {
    pub(super) fn new(guest: &'static str, memory_bytes: u64, memcpy: f64, pool: &ProvidedPool) -> Self {
        Self {
            guest,
            memory_bytes,
            touched_bytes: 0,
            pause_ms: 0.0,
            source_resumed: false,
            encode: EncodeReport::default(),
            memcpy_gbps: memcpy / 1e9,
            pool: PoolReport {
                bytes: 0,
                capacity_bytes: pool.pool.capacity_bytes() as u64,
                hugepages: matches!(pool.pool.backing(), PoolBacking::Huge { .. }),
                backing: pages::backing(pool),
            },
            ratio: 0.0,
            pages: PagesReport::default(),
            clones: Vec::new(),
            generations: Vec::new(),
        }
    }

    pub(super) fn add(&mut self, generation: Generation) {
        if self.generations.is_empty() {
            self.touched_bytes = generation.touched_bytes;
            self.pause_ms = generation.pause_ms;
            self.source_resumed = generation.source_resumed;
            self.encode = generation.encode;
            self.ratio = generation.ratio;
            self.pages = generation.pages;
            self.pool.bytes = generation.snapshot_bytes;
        }
        self.clones.extend(generation.clones.iter().cloned());
        self.generations.push(generation);
    }

    /// What went wrong, if anything did.
    pub(super) fn failure(&self) -> Option<String> {
        let number = |index: usize| format!("clone {} of {}", index + 1, self.clones.len());
        if let Some(index) = self.clones.iter().position(|clone| clone.memory_equal == Some(false)) {
            return Some(format!("the memory of {} differs from the source's", number(index)));
        }
        if let Some(index) = self.clones.iter().position(|clone| !clone.verified) {
            return Some(format!("{} did not go on from where the source was", number(index)));
        }
        let stopped = self.generations.iter().any(|generation| !generation.source_resumed);
        stopped.then(|| String::from("a source did not go on after its snapshot"))
    }
}

impl Generation {
    pub(super) fn new(
        snapshot: &Snapshot,
        backing: PoolBacking,
        report: &save::SaveReport,
        pause: Duration,
        held: Duration,
    ) -> Self {
        let pages = |kind| report.stats[kind].pages;
        let (word_marked, byte_marked) = (pages(PageKind::WordMarked), pages(PageKind::ByteMarked));
        let snapshot_bytes = snapshot.occupied_bytes() as u64;
        Self {
            generation: snapshot.name().rsplit('-').next().and_then(|n| n.parse().ok()).unwrap_or(0),
            touched_bytes: report.touched_bytes,
            memory_bytes: report.memory_bytes,
            pause_ms: milliseconds(pause),
            held_ms: milliseconds(held),
            state_ms: milliseconds(report.state_time),
            plan_ms: milliseconds(report.plan_time),
            source_resumed: false,
            encode: EncodeReport {
                seconds: report.encode_time.as_secs_f64(),
                threads: super::threads(),
                touched_gbps: gigabytes_per_second(report.touched_bytes, report.encode_time),
                logical_gbps: gigabytes_per_second(report.memory_bytes, report.encode_time),
            },
            snapshot_bytes,
            ratio: numbers::quotient(report.touched_bytes, snapshot_bytes).unwrap_or_default(),
            pages: PagesReport {
                untouched: report.memory_bytes / PAGE_BYTES as u64 - report.touched_bytes / PAGE_BYTES as u64,
                zero: pages(PageKind::Zero),
                fill: pages(PageKind::Fill),
                dup: pages(PageKind::Dup),
                marked: word_marked + byte_marked,
                word_marked,
                byte_marked,
                raw: pages(PageKind::Raw),
            },
            backing,
            clones: Vec::new(),
        }
    }

    /// The lines that describe the generation to people.
    pub(super) fn lines(&self, memcpy: f64) -> Vec<String> {
        let Self { encode, pages, .. } = self;
        let memcpy = memcpy / 1e9;
        let mut lines = vec![
            format!(
                "paused    {:.1} ms: state {:.2}, touched pages {:.2}, encoding {:.1}; the source {}",
                self.pause_ms,
                self.state_ms,
                self.plan_ms,
                encode.seconds * 1e3,
                if self.source_resumed { "runs on" } else { "DID NOT GO ON" },
            ),
            format!(
                "encoded   {} touched of {} at {:.2} GB/s with {} threads, {:.2} of memcpy's {:.1} GB/s",
                Size(self.touched_bytes),
                Size(self.memory_bytes),
                encode.touched_gbps,
                encode.threads,
                encode.touched_gbps / memcpy,
                memcpy,
            ),
            format!(
                "pool      {}, {:.2} times less, in {}",
                Size(self.snapshot_bytes),
                self.ratio,
                self.backing
            ),
            format!(
                "pages     {} untouched, {} zero, {} fill, {} dup, {} word-marked, {} byte-marked, {} raw",
                pages.untouched,
                pages.zero,
                pages.fill,
                pages.dup,
                pages.word_marked,
                pages.byte_marked,
                pages.raw,
            ),
            String::from("clone     decode GB/s   build ms   first output ms   memory       guest"),
        ];
        for (i, clone) in self.clones.iter().enumerate() {
            let memory = match clone.memory_equal {
                Some(true) => "equal",
                Some(false) => "DIFFERS",
                None => "not compared",
            };
            lines.push(format!(
                "{:<9} {:>11.2} {:>10.2} {:>17.1}   {memory:<12} {}; is {:.8}…",
                format!("{}.{}", self.generation, i + 1),
                clone.decode_gbps,
                clone.build_ms,
                clone.first_output_ms,
                if clone.verified { "same nonce, goes on" } else { "NOT THE SAME" },
                clone.id,
            ));
        }
        lines
    }
}

pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// 10⁹ bytes per second; zero if there was nothing to do.
pub(super) fn gigabytes_per_second(bytes: u64, time: Duration) -> f64 {
    numbers::gigabytes_per_second(bytes, time).unwrap_or_default()
}
