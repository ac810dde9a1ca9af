//! A UPS served by NUT's own server with NUT's own dummy driver: it loses the mains, then runs low.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use cloner::battery::{Battery, BatterySpec, Mains, NutSource, PowerSource, PowerState};
use cloner::durable::{DurablePool, DurableSettings, DurableStatus};
use cloner::pool::Labels;
use cloner::progress::Watch;
use cloner_testing::folder::Folder as Temporary;
use cloner_testing::{note, skip};

use super::snapshots::{assert_is, fill, folder, pool, recover};

/// Debian's server itself; /usr/sbin/upsd is a script that checks whether NUT is configured on this host.
const UPSD: &str = "/lib/nut/upsd";
const DRIVER: &str = "/lib/nut/dummy-ups";
const PATIENCE: Duration = Duration::from_secs(60);

/// A process that ends with the test.
struct Daemon(Child);

impl Daemon {
    fn start(program: &str, args: &[&str], folder: &Path) -> Self {
        let log =
            fs::File::create(folder.join(format!("{}.log", program.rsplit('/').next().unwrap()))).unwrap();
        let mut command = Command::new(program);
        command
            .args(args)
            .env("NUT_CONFPATH", folder)
            .env("NUT_STATEPATH", folder)
            .env("NUT_ALTPIDPATH", folder);
        Self(command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap())
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A server with one UPS, whose variables are in a file.
struct Ups {
    folder: Temporary,
    address: String,
    _daemons: [Daemon; 2],
}

impl Ups {
    fn start() -> Self {
        let folder = Temporary::new();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let values = folder.path().join("ups.dev");
        let conf = format!("[dummy]\n driver = dummy-ups\n port = {}\n", values.display());
        folder.file("ups.conf", conf.as_bytes());
        folder.file("upsd.conf", format!("LISTEN 127.0.0.1 {port}\n").as_bytes());
        folder.file("upsd.users", b"");
        fs::write(&values, "ups.status: OL\nbattery.charge: 100\n").unwrap();
        let driver = Daemon::start(DRIVER, &["-a", "dummy", "-F", "-u", "root"], folder.path());
        // The server looks for the driver's socket when it starts.
        let started = Instant::now();
        while !folder.path().join("dummy-ups-dummy").exists() && started.elapsed() < PATIENCE {
            thread::sleep(Duration::from_millis(10));
        }
        let server = Daemon::start(UPSD, &["-F", "-u", "root"], folder.path());
        Self { folder, address: format!("127.0.0.1:{port}"), _daemons: [driver, server] }
    }

    fn set(&self, values: &str) {
        // The driver reads the file when its modification time changes; a rename never shows it half of one.
        let new = self.folder.file("ups.new", values.as_bytes());
        fs::rename(new, self.folder.path().join("ups.dev")).unwrap();
    }
}

#[track_caller]
fn wait_until(durable: &DurablePool, what: impl Fn(&DurableStatus) -> bool) -> Duration {
    let started = Instant::now();
    while !what(&durable.status()) {
        assert!(started.elapsed() < PATIENCE, "{:?}", durable.status());
        thread::sleep(Duration::from_millis(5));
    }
    started.elapsed()
}

#[test]
fn a_ups_on_battery_makes_the_flush_start_by_itself() {
    if !Path::new(UPSD).exists() || !Path::new(DRIVER).exists() {
        return skip("it needs Debian's package nut-server");
    }
    let ups = Ups::start();
    let mut source = NutSource::new("dummy", &ups.address);
    let started = Instant::now();
    while source.read().map(|reading| reading.mains).ok() != Some(Mains::Present) {
        assert!(started.elapsed() < PATIENCE, "{:?}", source.read());
        thread::sleep(Duration::from_millis(50));
    }
    let flushed = Temporary::new();
    let battery = Battery::new(BatterySpec { capacity_j: 200_000.0, ..BatterySpec::default() }).unwrap();
    let settings =
        DurableSettings { probe_bytes: 8 << 20, poll: Duration::from_millis(50), ..DurableSettings::new(2) };
    let power = (battery, Box::new(source) as Box<dyn PowerSource>);
    let (durable, _) =
        DurablePool::open(pool(), folder(flushed.path()), power, settings, Watch::default()).unwrap();
    assert_eq!(durable.status().state, PowerState::Mains);
    for number in 0..8 {
        let admitted = durable.reserve(&format!("n{number}"), 0, Labels::default(), |_| true).unwrap();
        fill(admitted.reservation, number);
    }
    assert_eq!(durable.status().usage.snapshots, 8, "snapshots were flushed while on mains");

    ups.set("ups.status: OB DISCHRG\nbattery.charge: 70\n");
    let noticed = wait_until(&durable, |status| status.state == PowerState::OnBattery);
    let safe = wait_until(&durable, |status| status.usage.snapshots == 0);
    ups.set("ups.status: OB LB\nbattery.charge: 40\n");
    wait_until(&durable, |status| status.state == PowerState::Low);
    assert!((durable.status().charge_share - 0.4).abs() < 0.1, "{:?}", durable.status());
    assert!(durable.reserve("late", 0, Labels::default(), |_| true).is_err());
    ups.set("ups.status: OL CHRG\nbattery.charge: 50\n");
    wait_until(&durable, |status| status.state == PowerState::Recharging && status.usage.open);
    let again = durable.reserve("again", 0, Labels::default(), |_| true).unwrap();
    fill(again.reservation, 9);
    note(format_args!("nut: on battery noticed after {noticed:?}, all 8 snapshots safe {safe:?} later"));

    // As after a power loss: nothing is tidied up first.
    drop(durable);
    let (pool, folder) = (pool(), folder(flushed.path()));
    let report = recover(&folder, &pool);
    assert!(report.dropped.is_empty(), "{report:?}");
    for number in 0..8 {
        assert_is(&pool.get(&format!("n{number}")).unwrap(), number);
    }

    // A server that does not answer is not taken for mains power.
    let mut source = NutSource::new("dummy", &ups.address);
    drop(ups);
    source.read().unwrap_err();
    drop((pool, Arc::new(folder)));
}
