//! Tests the promise on a simulated clock and under random schedules, and the threads on a real clock.

mod schedules;

use std::path::PathBuf;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use super::*;
use crate::battery::{BatterySpec, Mains, PowerState, SimulatedPower};
use crate::flush::FolderOptions;
use crate::flush::files::RealFiles;
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

fn open(folder: &Temporary, spec: BatterySpec, power: &SimulatedPower) -> (DurablePool, RecoverReport) {
    let config =
        PoolConfig { capacity_bytes: 64 << 20, pages: PoolPages::Ordinary, populate: Populate::OnFirstUse };
    let pool = Arc::new(Pool::new(&config).unwrap());
    let files = Arc::new(RealFiles::open(&folder.0).unwrap());
    let options = FolderOptions { host: String::from("here"), ..FolderOptions::default() };
    let folder = Folder::open(files, &options).unwrap();
    let settings = DurableSettings {
        poll: Duration::from_millis(5),
        probe_bytes: 4 << 20,
        buffer_bytes: 64 << 10,
        remeasure: Duration::from_secs(3600),
        ..DurableSettings::new(2)
    };
    let battery = (Battery::new(spec).unwrap(), Box::new(power.source()) as Box<dyn PowerSource>);
    DurablePool::open(pool, folder, battery, settings, Watch::default()).unwrap()
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
    let (durable, _) = open(&folder, BatterySpec::default(), &power);
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
    let (durable, report) = open(&folder, BatterySpec::default(), &power);
    assert_eq!(report.recovered.iter().map(|one| &*one.name).collect::<Vec<_>>(), ["c"]);
    assert!(report.dropped.is_empty(), "{report:?}");
    assert_eq!(durable.pool().list().len(), 1);
}

#[test]
fn a_full_budget_is_flushed_in_the_background_and_what_never_fits_is_refused_with_the_numbers() {
    let folder = Temporary::new("budget");
    let power = SimulatedPower::new();
    // The budget is what this disk, however fast it is, writes in a fraction of a second.
    let spec = BatterySpec { capacity_j: 40.0, load_w: 200.0, ..BatterySpec::default() };
    let (durable, _) = open(&folder, spec, &power);
    let limit = durable.status().usage.limit_bytes;
    let error = durable.reserve("huge", limit, Labels::default(), |_| true).unwrap_err();
    let Error::Pool(pool::Error::Refused(Refusal::OverBudget { wanted_bytes, limit_bytes, .. })) = error
    else {
        panic!("{error}")
    };
    assert!(wanted_bytes > limit_bytes);
    // Both do not fit at once: the second one waits until the first is on disk.
    put(&durable, "first", 64).unwrap();
    let usage = durable.status().usage;
    let rest = limit.saturating_sub(usage.unflushed_bytes / usage.snapshots);
    let mut waited = 0;
    let admitted = durable.reserve("second", rest, Labels::default(), |_| {
        waited += 1;
        true
    });
    match admitted {
        Ok(_) if !durable.pool().get("first").unwrap().is_unflushed() => {}
        // The device has turned out faster meanwhile, so both fit.
        Ok(_) => {
            let usage = durable.status().usage;
            assert!(usage.limit_bytes > limit && usage.unflushed_bytes <= usage.limit_bytes, "{usage:?}");
        }
        // The device has turned out slower meanwhile.
        Err(error) => assert!(durable.status().usage.limit_bytes < limit, "{error}"),
    }
}
