//! `cloner battery`: from pools to batteries, and back.

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use clap::{ArgGroup, Subcommand};
use serde::Serialize;

use crate::Error;
use crate::columns::Columns;
use crate::folder;
use crate::numbers;
use crate::size::Size;
use cloner::battery::{Battery, BatterySpec};
use cloner::flush::{ANY_HOST, FlushSettings, Flusher, FolderOptions, Gauge};
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate};
use cloner::rate::Rate;
use cloner::walk::Threads;

/// Options of `cloner battery`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The battery that a pool needs, and the pool that a battery protects.
    Plan(PlanArgs),
}

const EXAMPLES: &str = "\
Examples:
  cloner battery plan --pool 64G --device /var/lib/cloner          measures the disk below that folder
  cloner battery plan --pool 64G --bandwidth 1500M --load 350
  cloner battery plan --capacity 20000 --bandwidth 1500M           what 20 kJ protect

The table has one line for each of several sizes around the one asked for. 3,600 J are 1 Wh.";

/// Options of `cloner battery plan`.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("what").required(true).multiple(true).args(["pool", "capacity"])))]
#[command(group(ArgGroup::new("rate").required(true).args(["device", "bandwidth"])))]
struct PlanArgs {
    /// Unflushed bytes to protect
    #[arg(long, value_name = "SIZE")]
    pool: Option<Size>,
    /// Energy of the battery when it is new and full, in joules
    #[arg(long, value_name = "J")]
    capacity: Option<f64>,
    /// Folder on the device to flush to: its speed is measured with a file of 256 MiB, which is removed again
    #[arg(long, value_name = "PATH")]
    device: Option<PathBuf>,
    /// Bytes that the device writes per second
    #[arg(long, value_name = "SIZE")]
    bandwidth: Option<Size>,
    /// Number of snapshots in the pool: each costs a commit of its own
    #[arg(long, value_name = "N", default_value_t = 16)]
    snapshots: u32,
    /// Power that the host draws while it flushes, in watts
    #[arg(long, value_name = "W", default_value_t = BatterySpec::default().load_w)]
    load: f64,
    /// Share of the battery's energy that can be drawn, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = BatterySpec::default().usable_share)]
    usable: f64,
    /// Share of the hold-up time that is kept in reserve, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = BatterySpec::default().margin)]
    margin: f64,
    /// Age in years at which the battery must still suffice
    #[arg(long, value_name = "YEARS", default_value_t = 5.0)]
    years: f64,
    /// Share of the capacity that the battery loses per year, 0 to 1
    #[arg(long, value_name = "SHARE", default_value_t = BatterySpec::default().fade_per_year)]
    fade: f64,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
}

/// What the command prints.
#[derive(Debug, Serialize)]
struct Plan {
    bandwidth_bytes_per_second: f64,
    commit_seconds: f64,
    measured: bool,
    load_w: f64,
    years: f64,
    rows: Vec<Row>,
}

/// One size of pool and the battery for it.
#[derive(Debug, Clone, Copy, Serialize)]
struct Row {
    pool_bytes: u64,
    /// Capacity of a new battery that protects `unflushed_bytes`, in joules.
    capacity_j: f64,
    capacity_wh: f64,
    /// Hold-up time of the battery when it is new and full, in seconds.
    holdup_s: f64,
    /// Hold-up time of the battery at the age asked for, in seconds.
    aged_holdup_s: f64,
    /// Time it takes to write the bytes, in seconds, without margin.
    flush_s: f64,
}

/// Bytes written to measure a device.
const PROBE_BYTES: u64 = 256 << 20;

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    let Command::Plan(args) = &args.command;
    let rate = match (&args.device, args.bandwidth) {
        (Some(path), _) => measure(path)?,
        (None, Some(Size(0)) | None) => {
            return Err(Error::Usage(String::from(
                "a device that writes 0 bytes per second protects nothing",
            )));
        }
        (None, Some(Size(bytes))) => {
            Rate { bytes_per_second: numbers::as_f64(bytes), commit: std::time::Duration::from_millis(20) }
        }
    };
    let spec = BatterySpec {
        capacity_j: args.capacity.unwrap_or(1.0),
        load_w: args.load,
        usable_share: args.usable,
        fade_per_year: args.fade,
        margin: args.margin,
        ..BatterySpec::default()
    };
    spec.check()?;
    let rows = rows(args, &spec, rate)?;
    let plan = Plan {
        bandwidth_bytes_per_second: rate.bytes_per_second,
        commit_seconds: rate.commit.as_secs_f64(),
        measured: args.device.is_some(),
        load_w: args.load,
        years: args.years,
        rows,
    };
    let text = if args.json {
        serde_json::to_string_pretty(&plan).expect("plain structs of numbers")
    } else {
        table(&plan)
    };
    writeln!(io::stdout(), "{}", text.trim_end()).map_err(Error::Output)?;
    Ok(0)
}

/// Measures the device that holds a folder, which is created if it is missing. Everything created is removed again.
fn measure(path: &std::path::Path) -> Result<Rate, Error> {
    let own = path.join(format!("cloner-plan-{}", std::process::id()));
    let measured = (|| {
        let options = FolderOptions { host: String::from(ANY_HOST), ..FolderOptions::default() };
        let folder = Arc::new(folder::open(&own, &options)?);
        let config = PoolConfig {
            capacity_bytes: 2 << 20,
            pages: PoolPages::Ordinary,
            populate: Populate::OnFirstUse,
        };
        let pool = Arc::new(Pool::new(&config)?);
        let none = Rate { bytes_per_second: 1.0, commit: std::time::Duration::ZERO };
        let threads = Threads::new(1)?;
        let flusher = Flusher::new(&threads, pool, folder, Gauge::new(none, 1), FlushSettings::default())?;
        Ok(flusher.measure(PROBE_BYTES, true)?)
    })();
    std::fs::remove_dir_all(&own).map_err(|source| Error::Folder { path: own, source })?;
    measured
}

fn rows(args: &PlanArgs, spec: &BatterySpec, rate: Rate) -> Result<Vec<Row>, Error> {
    // A new battery must be larger by as much as it will have lost.
    let mut aged = Battery::new(BatterySpec { capacity_j: 1.0, ..*spec })?;
    aged.age(args.years);
    let health = aged.full_j();
    let row = |pool_bytes: u64, capacity_j: f64| {
        let holdup_s = capacity_j * spec.usable_share / spec.load_w;
        Row {
            pool_bytes,
            capacity_j,
            capacity_wh: capacity_j / 3600.0,
            holdup_s,
            aged_holdup_s: holdup_s * health,
            flush_s: numbers::as_f64(pool_bytes) / rate.bytes_per_second
                + f64::from(args.snapshots) * rate.commit.as_secs_f64(),
        }
    };
    let mut rows = Vec::new();
    if let Some(Size(pool)) = args.pool {
        for bytes in [pool / 4, pool / 2, pool, pool.saturating_mul(2)] {
            rows.push(row(bytes, spec.energy_for(bytes, args.snapshots, rate) / health));
        }
    }
    if let Some(capacity) = args.capacity {
        for capacity in [capacity / 2.0, capacity, capacity * 2.0] {
            let mut battery = Battery::new(BatterySpec { capacity_j: capacity, ..*spec })?;
            battery.age(args.years);
            let limit = battery.limit(rate);
            let beside = limit.per_snapshot_bytes.saturating_mul(args.snapshots.into());
            rows.push(row(limit.bytes.saturating_sub(beside), capacity));
        }
    }
    Ok(rows)
}

fn table(plan: &Plan) -> String {
    let mut table =
        Columns::new(["unflushed", "battery J", "battery Wh", "hold-up s, new", "at its age", "flush s"]);
    for row in &plan.rows {
        table.row([
            Size(row.pool_bytes).to_string(),
            format!("{:.0}", row.capacity_j),
            format!("{:.2}", row.capacity_wh),
            format!("{:.1}", row.holdup_s),
            format!("{:.1}", row.aged_holdup_s),
            format!("{:.1}", row.flush_s),
        ]);
    }
    let how = if plan.measured { "measured" } else { "as given" };
    format!(
        "device    {:.2} GB/s {how}, {:.1} ms per snapshot\nbattery   {} W while flushing, {} years old in the end\n\n{table}",
        plan.bandwidth_bytes_per_second / 1e9,
        plan.commit_seconds * 1e3,
        plan.load_w,
        plan.years,
    )
}
