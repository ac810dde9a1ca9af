//! Boots a guest and runs a clone of it at once, whose memory arrives meanwhile, behind a bar: `lazy_progress FLAT_IMAGE`.
//!
//! A flat image is what `vmm::boot` describes; `cargo run -p guest-images --example write_pulse -- FILE` writes one.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program for a terminal")]

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use cloner::moment::Moment;
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate};
use cloner::restore::Restorer;
use cloner::restore::lazy::{LazyOptions, Restored};
use cloner::save::{SaveOptions, Saver};
use cloner::walk::Threads;
use vmm::Vm;
use vmm::config::{Config, Kernel};
use vmm::memory::{Backing, PageSize};

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args_os().nth(1).ok_or("usage: lazy_progress FLAT_IMAGE")?;
    let kernel = Kernel::Flat { image: fs::read(file)?.into() };
    let source = Vm::boot(&Config::new(32 << 20, kernel), Box::new(io::sink()))?;
    source.start();
    thread::sleep(Duration::from_secs(1));

    let pool = Pool::new(&PoolConfig {
        capacity_bytes: 32 << 20,
        pages: PoolPages::Ordinary,
        populate: Populate::OnFirstUse,
    })?;
    let threads = Threads::new(2)?;
    let (saver, restorer) = (Saver::new(&threads), Restorer::new(&threads));
    let paused = source.pause()?;
    let moment = Moment::of(&paused)?;
    let snapshot = saver.save(moment, pool.reserve("template")?, &SaveOptions::default())?.snapshot;
    paused.resume();

    // What the guest touches arrives first; the rest follows in the background.
    let backing = Backing::Private(PageSize::Transparent);
    let Restored { memory, fill } = restorer.lazy(&snapshot, backing, &LazyOptions::default())?;
    let clone = Vm::restore(snapshot.state(), memory, Box::new(io::stdout()))?;
    clone.start();
    while !fill.is_complete() && clone.ending().is_none() {
        let percent = fill.arrived_bytes() * 100 / fill.total_bytes().max(1);
        eprint!("\r[{:<50}] {percent:3} %", "#".repeat(usize::try_from(percent / 2)?));
        thread::sleep(Duration::from_millis(2));
    }
    fill.wait()?;
    eprintln!("\r[{}] all of it is there", "#".repeat(50));
    println!("{} faults were served meanwhile", fill.faults().len());
    match clone.wait_timeout(Duration::from_millis(300)) {
        Some(ending) => Err(format!("the clone has ended: {ending:?}").into()),
        None => Ok(()),
    }
}
