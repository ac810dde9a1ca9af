//! Tests the promise on a simulated clock and under random schedules, and the threads on a real clock.

mod schedules;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::battery::{BatterySpec, Mains, PowerState, SimulatedClock, SimulatedPower};
use crate::flush::FolderOptions;
use crate::flush::files::faulty::{FaultyFiles, Speed};
use crate::flush::files::{Files, RealFiles};
use crate::pool::{self, PoolConfig, PoolPages, Populate, Priority, Refusal};

struct Temporary(PathBuf);

impl Temporary {
    fn new(name: &str) -> Self {
        Self(std::env::temp_dir().join(format!("cloner-durable-{name}-{}", std::process::id())))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn open(folder: &Temporary, power: &SimulatedPower) -> (DurablePool, RecoverReport) {
    let files = RealFiles::open(&folder.0).unwrap();
    open_with(Arc::new(RealClock::new()), Arc::new(files), BatterySpec::default(), power)
}

fn open_with(
    clock: Arc<dyn Clock>,
    files: Arc<dyn Files>,
    spec: BatterySpec,
    power: &SimulatedPower,
) -> (DurablePool, RecoverReport) {
    let config =
        PoolConfig { capacity_bytes: 64 << 20, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
    let pool = Arc::new(Pool::new(&config).unwrap());
    let options = FolderOptions { host: String::from("here"), ..FolderOptions::default() };
    let folder = Folder::open(files, &options).unwrap();
    let settings = DurableSettings {
        poll: Duration::from_millis(5),
        probe_bytes: 4 << 20,
        buffer_bytes: 64 << 10,
        remeasure: Duration::from_secs(3600),
        ..DurableSettings::new(1)
    };
    let battery = (Battery::new(spec).unwrap(), Box::new(power.source()) as Box<dyn PowerSource>);
    DurablePool::open_with_clock(clock, pool, folder, battery, settings, Watch::default()).unwrap()
}

/// Waits, for a minute at most, for something that happens on another thread.
fn wait_until(durable: &DurablePool, what: impl Fn(&DurableStatus) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !what(&durable.status()) {
        assert!(Instant::now() < deadline, "{:?}", durable.status());
        thread::sleep(Duration::from_millis(2));
    }
}

fn put(durable: &DurablePool, name: &str, pages: usize) -> Result<(), Error> {
    let labels = Labels { priority: Priority(1), ..Labels::default() };
    let AdmittedPut { reservation, .. } = durable.reserve(name, 0, labels, |_| true)?;
    schedules::fill(&reservation, 1, pages)?;
    reservation.publish();
    Ok(())
}

#[test]
fn power_loss_closes_cancels_and_flushes_and_its_end_goes_on() {
    let folder = Temporary::new("loss");
    let power = SimulatedPower::new();
    let (durable, _) = open(&folder, &power);
    put(&durable, "a", 8).unwrap();
    assert!(durable.pool().get("a").unwrap().is_unflushed());
    let running = durable.reserve("b", 0, Labels::default(), |_| true).unwrap();

    power.set(Mains::Failed);
    wait_until(&durable, |status| status.state == PowerState::OnBattery);
    wait_until(&durable, |status| status.usage.snapshots == 1);
    assert!(running.cancel.is_cancelled() && !durable.pool().get("a").unwrap().is_unflushed());
    let refused = |error: &pool::Error| matches!(error, pool::Error::Refused(Refusal::Closed));
    assert!(refused(&running.reservation.put_blob("state", b"x").unwrap_err()));
    assert!(matches!(put(&durable, "c", 1), Err(Error::Pool(error)) if refused(&error)));
    drop(running);

    power.set(Mains::Present);
    wait_until(&durable, |status| status.state.has_mains());
    put(&durable, "c", 1).unwrap();
    assert!(durable.flush(Watch::default()).failed.is_empty());
    durable.remove("a").unwrap();
    drop(durable);
    let (durable, report) = open(&folder, &power);
    assert_eq!(report.recovered.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["c"]);
    assert!(report.dropped.is_empty(), "{report:?}");
    assert_eq!(durable.pool().list().len(), 1);
}

/// The clock moves only while the device works, so how fast it is depends neither on the disk nor on what else runs here.
#[test]
fn a_full_budget_is_flushed_in_the_background_and_what_never_fits_is_refused_with_the_numbers() {
    let (clock, files) = (SimulatedClock::default(), FaultyFiles::new());
    let sync = Duration::from_millis(1);
    files.set_speed(Speed { clock: clock.clone(), bytes_per_second: 6e6, sync });
    let power = SimulatedPower::new();
    let spec = BatterySpec { capacity_j: 40.0, load_w: 200.0, ..BatterySpec::default() };
    let (durable, _) = open_with(Arc::new(clock), Arc::new(files), spec, &power);
    let limit = durable.status().usage.limit_bytes;
    let error = durable.reserve("huge", limit, Labels::default(), |_| true).unwrap_err();
    let Error::Pool(pool::Error::Refused(Refusal::OverBudget { wanted_bytes, limit_bytes, .. })) = error
    else {
        panic!("{error}")
    };
    assert!(wanted_bytes > limit_bytes && limit_bytes == limit);
    // Both do not fit at once: the second one waits until the first is on disk.
    const FIRST: u64 = 64 * 4096;
    assert!(limit > 2 * FIRST, "{limit}");
    put(&durable, "first", 64).unwrap();
    durable.reserve("second", limit - FIRST / 2, Labels::default(), |_| true).unwrap();
    assert!(!durable.pool().get("first").unwrap().is_unflushed());
}
