//! Answers a question to a UPS with any bytes. The result must be an error or a reading that a battery can take; the connection is not
//! used again after an error.
#![no_main]

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener};
use std::sync::mpsc::{SyncSender, sync_channel};

use cloner::battery::{Battery, BatterySpec, Charge, NutSource, PowerSource};
use libfuzzer_sys::fuzz_target;

/// A server that answers its next connection with what it is given.
struct Server {
    address: String,
    answers: SyncSender<Vec<u8>>,
}

thread_local! {
    static SERVER: Server = {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (answers, given) = sync_channel::<Vec<u8>>(1);
        std::thread::spawn(move || {
            for answer in given {
                let (mut client, _) = listener.accept().expect("the source connects");
                // The client may have hung up after the first line.
                let _ = client.write_all(&answer);
                let _ = client.shutdown(Shutdown::Write);
                // Questions that are not read would reset the connection, and with it the answers.
                let _ = client.read_to_end(&mut Vec::new());
            }
        });
        Server { address, answers }
    };
}

fuzz_target!(|bytes: &[u8]| SERVER.with(|Server { address, answers }| {
    answers.send(bytes.to_vec()).expect("the server runs");
    let mut source = NutSource::new("ups", address);
    if let Ok(reading) = source.read()
        && let Charge::Share(share) = reading.charge
    {
        let mut battery = Battery::new(BatterySpec::default()).expect("a valid default");
        battery.set_charge_share(share);
        assert!((0.0..=1.0).contains(&battery.charge_share()), "{share}");
    }
}));
