//! Tests the model against arithmetic, the states against the drawing, and the sources against what they may be told.

use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::*;
use crate::rate::Rate;

fn spec() -> BatterySpec {
    BatterySpec {
        capacity_j: 1000.0,
        load_w: 10.0,
        charge_w: 5.0,
        usable_share: 0.8,
        fade_per_year: 0.5,
        margin: 0.25,
        low_share: 0.3,
    }
}

fn about(left: f64, right: f64) {
    assert!((left - right).abs() < 1e-6 * right.abs().max(1.0), "{left} is not {right}");
}

#[test]
fn holdup_and_budget_are_what_arithmetic_says() {
    let mut battery = Battery::new(spec()).unwrap();
    about(battery.holdup().as_secs_f64(), 80.0);
    let rate = Rate { bytes_per_second: 1e6, commit: Duration::from_millis(10) };
    let limit = battery.limit(rate);
    assert_eq!((limit.bytes, limit.per_snapshot_bytes), (60_000_000, 10_000 + 16_384));
    battery.discharge(Duration::from_secs(30));
    about(battery.holdup().as_secs_f64(), 50.0);
    battery.recharge(Duration::from_secs(20));
    about(battery.charge_j(), 800.0);
    battery.recharge(Duration::from_secs(1000));
    assert!(battery.is_full());
    battery.age(1.0);
    about(battery.full_j(), 500.0);
    about(battery.holdup().as_secs_f64(), 40.0);
    battery.set_charge_share(0.2);
    assert!(battery.is_empty() && battery.is_low() && battery.limit(rate).bytes == 0);
    battery.set_charge_share(f64::NAN);
    about(battery.charge_j(), 0.0);
    // The energy computed for a pool is just enough for that pool.
    let energy = spec().energy_for(60_000_000, 0, rate);
    about(energy, 1000.0);
}

#[test]
fn batteries_that_cannot_be_are_refused_with_field_and_range() {
    for (spec, field) in [
        (BatterySpec { capacity_j: 0.0, ..spec() }, "capacity"),
        (BatterySpec { load_w: -1.0, ..spec() }, "load"),
        (BatterySpec { charge_w: f64::NAN, ..spec() }, "charging power"),
        (BatterySpec { usable_share: 1.1, ..spec() }, "usable share"),
        (BatterySpec { fade_per_year: 1.0, ..spec() }, "fade"),
        (BatterySpec { margin: 1.0, ..spec() }, "margin"),
        (BatterySpec { low_share: 2.0, ..spec() }, "low share"),
    ] {
        let error = Battery::new(spec).unwrap_err().to_string();
        assert!(error.contains(field), "{error}");
    }
}

#[test]
fn states_follow_the_drawing() {
    use Mains::{Failed, Present};
    use PowerState::{Exhausted, Low, OnBattery, Recharging};
    let with = |share: f64| {
        let mut battery = Battery::new(spec()).unwrap();
        battery.set_charge_share(share);
        battery
    };
    let (full, half, low, empty) = (with(1.0), with(0.5), with(0.25), with(0.1));
    for (from, mains, source_says_low, battery, to) in [
        (PowerState::Mains, Present, false, &half, PowerState::Mains),
        (PowerState::Mains, Failed, false, &full, OnBattery),
        (PowerState::Mains, Failed, false, &empty, Exhausted),
        (OnBattery, Failed, false, &half, OnBattery),
        (OnBattery, Failed, false, &low, Low),
        (OnBattery, Failed, true, &half, Low),
        (OnBattery, Present, false, &half, Recharging),
        (OnBattery, Present, false, &full, PowerState::Mains),
        (Low, Failed, false, &half, Low),
        (Low, Failed, false, &empty, Exhausted),
        (Low, Present, false, &low, Recharging),
        (Exhausted, Failed, false, &half, Exhausted),
        (Exhausted, Present, false, &empty, Recharging),
        (Recharging, Present, false, &half, Recharging),
        (Recharging, Present, false, &full, PowerState::Mains),
        (Recharging, Failed, false, &half, OnBattery),
        (Recharging, Failed, false, &low, Low),
    ] {
        assert_eq!(from.next(mains, source_says_low, battery), to, "{from:?} {mains:?} {source_says_low}");
    }
}

/// Starts a server that answers each question with the next of `answers`; each connection gets one list of them. Returns its
/// address.
fn server(answers: Vec<Vec<&'static [u8]>>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for answers in answers {
            let (stream, _) = listener.accept().unwrap();
            let mut reader = BufReader::new(stream);
            for answer in answers {
                let mut question = String::new();
                let _ = reader.read_line(&mut question);
                let _ = reader.get_mut().write_all(answer);
            }
        }
    });
    address
}

#[test]
fn a_ups_is_understood() {
    let status = |status: &'static [u8]| vec![status, &b"ERR VAR-NOT-SUPPORTED\n"[..]];
    for (answers, expected) in [
        (status(b"VAR u ups.status \"OL\"\n"), (Mains::Present, false)),
        (status(b"VAR u ups.status \"OL CHRG\"\n"), (Mains::Present, false)),
        (status(b"VAR u ups.status \"OB DISCHRG\"\n"), (Mains::Failed, false)),
        (status(b"VAR u ups.status \"OB LB\"\n"), (Mains::Failed, true)),
        (status(b"VAR u ups.status \"FSD OL\"\n"), (Mains::Failed, true)),
        (status(b"VAR u ups.status \"\"\n"), (Mains::Failed, false)),
    ] {
        let reading = NutSource::new("u", &server(vec![answers])).read().unwrap();
        assert_eq!((reading.mains, reading.low), expected);
        assert_eq!(reading.charge, Charge::Unknown);
    }
    let charged = vec![&b"VAR u ups.status \"OL\"\n"[..], b"VAR u battery.charge \"87.5\"\n"];
    let reading = NutSource::new("u", &server(vec![charged])).read().unwrap();
    assert_eq!(reading.charge, Charge::Share(0.875));
}

#[test]
fn a_server_that_talks_nonsense_or_hangs_up_is_an_error_and_asked_again() {
    const ENDLESS: &[u8] = &[b'x'; 5000];
    // The longest line that is read ends with a quote, but the server's line does not.
    const CUT_OFF: &[u8] = &{
        let mut line = [b' '; 1030];
        let (answer, mut at) = (b"VAR u ups.status \"OL", 0);
        while at < answer.len() {
            line[at] = answer[at];
            at += 1;
        }
        line[1023] = b'"';
        line[1029] = b'\n';
        line
    };
    for (wrong, part) in [
        (&b"ERR UNKNOWN-UPS\n"[..], "UNKNOWN-UPS"),
        (b"VAR other ups.status \"OL\"\n", "does not speak the protocol"),
        (b"\xff\xfe\n", "cannot hear from"),
        (b"OL\n", "does not speak the protocol"),
        (ENDLESS, "does not speak the protocol"),
        (CUT_OFF, "does not speak the protocol"),
        // The connection ends inside a value that contains quotes.
        (b"VAR u ups.status \"OL \\\"", "cannot hear from"),
    ] {
        let good = vec![&b"VAR u ups.status \"OL\"\n"[..], b"ERR VAR-NOT-SUPPORTED\n"];
        let mut source = NutSource::new("u", &server(vec![vec![wrong], good]));
        let SourceError::Nut(error) = source.read().unwrap_err() else {
            panic!("not an error of the server")
        };
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(source.read().unwrap().mains, Mains::Present, "asked again");
    }
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = NutSource::new("u", &nobody.to_string()).read().unwrap_err();
    assert!(matches!(error, SourceError::Nut(NutError::Connection { step: "connect to", .. })), "{error}");
}

#[test]
fn sigpwr_is_read_with_its_letter() {
    let file = std::env::temp_dir().join(format!("cloner-powerstatus-{}", std::process::id()));
    let mut source = SigpwrSource::new([file.clone()]).unwrap();
    assert_eq!(source.read().unwrap().mains, Mains::Present);
    let mut signalled = |letter: Option<&str>| {
        match letter {
            Some(letter) => std::fs::write(&file, letter).unwrap(),
            None => drop(std::fs::remove_file(&file)),
        }
        signal_hook::low_level::raise(libc::SIGPWR).unwrap();
        let reading = source.read().unwrap();
        assert_eq!(source.read().unwrap(), reading, "stays as it is until the next signal");
        (reading.mains, reading.low)
    };
    assert_eq!(signalled(None), (Mains::Failed, false));
    assert_eq!(signalled(Some("O")), (Mains::Present, false));
    assert_eq!(signalled(Some("F\n")), (Mains::Failed, false));
    assert_eq!(signalled(Some("L")), (Mains::Failed, true));
    assert_eq!(signalled(Some("O")), (Mains::Present, false));
    std::fs::remove_file(&file).unwrap();
}
