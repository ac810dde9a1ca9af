//! `cloner-bench flush`: flushes a snapshot and recovers it, and compares this with what the device can do.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cloner_codec::chunk::{CHUNK_BYTES, PAGE_BYTES};
use cloner_codec::hot::{ChunkInput, Encoder, EncoderOptions, NoDedup, PageSet, VerifiedChunk};
use serde::Serialize;

use cloner::battery::{Battery, BatterySpec};
use cloner::chunk_id::ChunkId;
use cloner::flush::files::{BLOCK_BYTES, Files, RealFiles, read_exact_at, write_all_at};
use cloner::flush::{
    ANY_HOST, FlushSettings, Flusher, FolderOptions, Form, Gauge, RecoverOptions, Recoverer,
};
use cloner::image::buffer::TargetBuffer;
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate};
use cloner::progress::Watch;
use cloner::rate::Rate;
use cloner::snapshot::{MANIFEST_LABEL, MEMORY_REGION, ManifestV2, RegionV2, SnapshotId};
use cloner::walk::Threads;

use cloner_cli::folder;
use cloner_cli::numbers::as_f64;
use cloner_cli::progress::Spinner;
use cloner_cli::size::Size;
use cloner_cli::threads;
use cloner_cli::{Error, interrupt, memcpy};

const EXAMPLES: &str = "\
Examples:
  cloner-bench flush --dir /var/lib/cloner
  cloner-bench flush --bytes 1G --json | jq '.flush_gbps / .device_gbps'

device_gbps is a plain sequential O_DIRECT write of as many bytes, synced, with nothing allocated beforehand;
recover_limit_gbps is the lower of a plain sequential O_DIRECT read of the flushed file and memcpy on all threads.
All figures are medians of rounds in which the measurements take turns: compare them with each other.";

/// Options of `cloner-bench flush`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(crate) struct Args {
    /// Bytes of the encoded snapshot
    #[arg(long, value_name = "SIZE", default_value = "512M")]
    bytes: Size,
    /// Folder on the device to measure (default: the system's folder for temporary files)
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Form to flush in (default: the one that is safe on disk sooner)
    #[arg(long, value_name = "FORM", value_parser = ["hot", "cold"])]
    form: Option<String>,
    /// Rounds to take the medians of
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Energy of the battery that `holdup_s` and `budget_bytes` are for, in joules
    #[arg(long, value_name = "J", default_value_t = BatterySpec::default().capacity_j)]
    capacity: f64,
    /// Power that the host draws while it flushes, in watts
    #[arg(long, value_name = "W", default_value_t = BatterySpec::default().load_w)]
    load: f64,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// What the bench prints.
#[derive(Debug, Serialize)]
struct Report {
    /// Length of the flushed file.
    bytes: u64,
    flush_gbps: f64,
    device_gbps: f64,
    /// "hot" or "cold".
    form: String,
    recover_gbps: f64,
    recover_limit_gbps: f64,
    holdup_s: f64,
    budget_bytes: u64,
    /// Seconds from the start of the flush to its commit.
    used_s: f64,
    direct: bool,
}

/// A folder that is removed when dropped.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        // If the folder cannot be removed, the error that came before explains why.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// The times of one round, in seconds.
#[derive(Debug, Clone, Copy)]
struct Round {
    write: f64,
    flush: f64,
    read: f64,
    recover: f64,
    bytes: u64,
    form: Form,
}

pub(crate) fn run(args: &Args) -> Result<u8, Error> {
    let spec = BatterySpec { capacity_j: args.capacity, load_w: args.load, ..BatterySpec::default() };
    let battery = Battery::new(spec)?;
    let parent = args.dir.clone().unwrap_or_else(std::env::temp_dir);
    let own = Temporary(parent.join(format!("cloner-bench-{}", std::process::id())));
    let capacity_bytes = usize::try_from(args.bytes.0).unwrap_or(usize::MAX).saturating_add(8 * CHUNK_BYTES);
    let pool = |populate| Pool::new(&PoolConfig { capacity_bytes, pages: PoolPages::Ordinary, populate });
    let source = Arc::new(pool(Populate::AtOnce)?);
    fill(&source, args.bytes.0)?;
    let form = args.form.as_deref().map(|form| if form == "hot" { Form::Hot } else { Form::Cold });

    let _spinner = Spinner::new(String::from("measuring"));
    let recoverer = Recoverer::new(&Threads::new(threads() * 2)?);
    let mut rounds = Vec::new();
    for number in 0..args.rounds {
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        let target = pool(Populate::AtOnce)?;
        let path = own.0.join(number.to_string());
        rounds.push(round(&source, &target, (&path, form), &recoverer)?);
    }
    let median = |value: fn(&Round) -> f64| {
        let mut values: Vec<f64> = rounds.iter().map(value).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    let Round { bytes, form, .. } = rounds[0];
    let gbps = |seconds: f64| as_f64(bytes) / seconds / 1e9;
    let device = as_f64(bytes) / median(|round| round.write);
    let copy = memcpy::bytes_per_second(threads()) / 1e9;
    let rate = Rate { bytes_per_second: device, commit: Duration::ZERO };
    let report = Report {
        bytes,
        flush_gbps: gbps(median(|round| round.flush)),
        device_gbps: device / 1e9,
        form: form.to_string(),
        recover_gbps: gbps(median(|round| round.recover)),
        recover_limit_gbps: gbps(median(|round| round.read)).min(copy),
        holdup_s: battery.holdup().as_secs_f64(),
        budget_bytes: battery.limit(rate).bytes,
        used_s: median(|round| round.flush),
        direct: RealFiles::open(&own.0.join("0")).is_ok_and(|files| files.is_direct()),
    };
    let text = if args.json {
        serde_json::to_string_pretty(&report).expect("plain structs of numbers")
    } else {
        report.text()
    };
    writeln!(io::stdout(), "{text}").map_err(Error::Output)?;
    Ok(0)
}

/// Times a plain write, a flush, a plain read and a recovery, one after the other.
fn round(
    source: &Arc<Pool>,
    target: &Pool,
    (path, form): (&Path, Option<Form>),
    recoverer: &Recoverer,
) -> Result<Round, Error> {
    let options = FolderOptions { host: String::from(ANY_HOST), ..FolderOptions::default() };
    let failed = |source| Error::Folder { path: path.to_owned(), source };
    let stored = source.get("bench")?;
    let write = {
        let files = RealFiles::open(path).map_err(failed)?;
        let seconds =
            plain_write(&files, stored.len_bytes() as u64, stored.chunks()[0].bytes()).map_err(failed)?;
        files.remove(PLAIN).map_err(failed)?;
        seconds
    };
    let bytes_per_second = as_f64(stored.len_bytes() as u64) / write;
    let gauge = Gauge::new(Rate { bytes_per_second, commit: Duration::ZERO }, 16 << 20);
    let settings = FlushSettings { form, ..FlushSettings::default() };
    let (flush, safe) = {
        let folder = Arc::new(folder::open(path, &options)?);
        let flusher = Flusher::new(&Threads::new(threads())?, Arc::clone(source), folder, gauge, settings)?;
        let started = Instant::now();
        let safe = flusher.flush_snapshot(&stored, Watch::default().cancel(interrupt::cancel()));
        let safe = safe.map_err(|failure| Error::NotSafe { name: failure.name, source: failure.why })?;
        (started.elapsed().as_secs_f64(), safe)
    };
    let read = {
        let files = RealFiles::open(path).map_err(failed)?;
        plain_read(&files).map_err(failed)?
    };
    let folder = folder::open(path, &options)?;
    let started = Instant::now();
    let report = recoverer.recover(&folder, target, &RecoverOptions::default())?;
    let recover = started.elapsed().as_secs_f64();
    if let Some(dropped) = report.dropped.into_iter().next() {
        return Err(Error::NotSafe { name: dropped.file, source: dropped.why });
    }
    let back = target.get("bench")?;
    let same = |(left, right): (&cloner::pool::StoredChunk, &cloner::pool::StoredChunk)| {
        left.bytes() == right.bytes()
    };
    if back.chunks().len() != stored.chunks().len() || !back.chunks().iter().zip(stored.chunks()).all(same) {
        return Err(Error::NotVerified(String::from("what was recovered differs from what was flushed")));
    }
    let last = safe.last().expect("one snapshot was flushed");
    Ok(Round { write, flush, read, recover, bytes: last.file_bytes, form: last.choice.form })
}

const PLAIN: &str = "plain.partial";
const PLAIN_BYTES: usize = 4 << 20;

/// Writes with one thread and one buffer, and returns the time in seconds.
fn plain_write(files: &dyn Files, bytes: u64, content: &[u8]) -> io::Result<f64> {
    let mut buffer = TargetBuffer::new(PLAIN_BYTES);
    // The buffer is not all equal bytes, because a device may be faster with those.
    for part in buffer.chunks_mut(content.len()) {
        part.copy_from_slice(&content[..part.len()]);
    }
    let started = Instant::now();
    let file = files.create(PLAIN, 0)?;
    let mut offset = 0;
    let whole = bytes.next_multiple_of(BLOCK_BYTES as u64);
    while offset < whole {
        let len = usize::try_from(whole - offset).unwrap_or(PLAIN_BYTES).min(PLAIN_BYTES);
        write_all_at(&*file, offset, &buffer[..len])?;
        offset += len as u64;
    }
    file.sync()?;
    Ok(started.elapsed().as_secs_f64())
}

fn plain_read(files: &dyn Files) -> io::Result<f64> {
    let is_snapshot = |(name, _): &(String, u64)| name.ends_with(".snapshot");
    let (name, bytes) = files.list()?.into_iter().find(is_snapshot).ok_or(io::ErrorKind::NotFound)?;
    let file = files.open(&name)?;
    let mut buffer = TargetBuffer::new(PLAIN_BYTES);
    let started = Instant::now();
    let mut offset = 0;
    while offset < bytes {
        let len = usize::try_from(bytes - offset).unwrap_or(PLAIN_BYTES).min(PLAIN_BYTES);
        read_exact_at(&*file, offset, &mut buffer[..len])?;
        offset += len as u64;
    }
    Ok(started.elapsed().as_secs_f64())
}

/// Puts a snapshot of about `bytes` encoded bytes into the pool: pages of pointers, text-like bytes and noise, as guests have them.
fn fill(pool: &Pool, bytes: u64) -> Result<(), Error> {
    const KINDS: u64 = 8;
    let mut encoder = Encoder::new(EncoderOptions::default());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut kinds = Vec::new();
    for _ in 0..KINDS {
        let mut memory = vec![0; CHUNK_BYTES];
        for (number, page) in memory.chunks_mut(PAGE_BYTES).enumerate() {
            for word in page.chunks_mut(8) {
                let noise = next();
                let value = match number % 4 {
                    0 => 0xffff_8880_0000_0000 | noise & 0xf_fff8,
                    1 => noise & 0x1f1f_1f1f_1f1f_1f1f | 0x6060_6060_6060_6060,
                    2 if noise % 3 == 0 => noise >> 32,
                    2 => 0,
                    _ => noise,
                };
                word.copy_from_slice(&value.to_le_bytes());
            }
        }
        let mut encoded = Vec::new();
        let input = ChunkInput::new(&memory, &PageSet::ALL).expect("a whole chunk");
        encoder.encode_chunk(&input, &mut NoDedup, &mut encoded);
        kinds.push(encoded);
    }
    let reservation = pool.reserve("bench")?;
    let (mut chunks, mut put) = (Vec::new(), 0);
    for (index, encoded) in (0..).zip(kinds.iter().cycle()) {
        if put >= bytes && !chunks.is_empty() {
            break;
        }
        let checksum = VerifiedChunk::reopen(encoded).expect("encoded above").checksum();
        let id = ChunkId { region: MEMORY_REGION, index, checksum };
        reservation.put_chunk(id, encoded)?;
        chunks.push(id);
        put += encoded.len() as u64;
    }
    let manifest = ManifestV2 {
        producer: ManifestV2::this_producer(),
        id: SnapshotId::random().map_err(Error::Random)?,
        dependencies: Vec::new(),
        has_parent: false,
        touched_pages: 0,
        regions: vec![RegionV2::memory((chunks.len() * CHUNK_BYTES) as u64)],
        chunks,
    };
    reservation.put_blob(MANIFEST_LABEL, &manifest.to_bytes())?;
    reservation.publish();
    Ok(())
}

impl Report {
    fn text(&self) -> String {
        let through = if self.direct { "O_DIRECT" } else { "through the page cache" };
        format!(
            "flush     {} {} at {:.2} GB/s, {:.2} of the device's {:.2} GB/s ({through})\n\
             recover   {:.2} GB/s, {:.2} of the {:.2} GB/s that disk and memory allow\n\
             battery   lasts {:.1} s and protects {} on this device; this flush took {:.2} s",
            Size(self.bytes),
            self.form,
            self.flush_gbps,
            self.flush_gbps / self.device_gbps,
            self.device_gbps,
            self.recover_gbps,
            self.recover_gbps / self.recover_limit_gbps,
            self.recover_limit_gbps,
            self.holdup_s,
            Size(self.budget_bytes),
            self.used_s,
        )
    }
}
