//! Boots a guest, clones it twice while it runs on, and lets the clones say something: `clone_twice FLAT_IMAGE`.
//!
//! A flat image is what `vmm::boot` describes; `cargo run -p guest-images --example write_pulse -- FILE` writes one.
#![expect(clippy::print_stdout, reason = "a program for a terminal")]

use std::env;
use std::error::Error;
use std::fs;
use std::io;
use std::thread;
use std::time::Duration;

use cloner::admission::CopyLimits;
use cloner::moment::Moment;
use cloner::pool::{Pool, PoolConfig, PoolPages, Populate};
use cloner::progress::Watch;
use cloner::restore::Restorer;
use cloner::save::{SaveOptions, Saver};
use cloner::walk::Threads;
use vmm::Vm;
use vmm::config::{Config, Kernel};
use vmm::memory::{Backing, PageSize};

fn main() -> Result<(), Box<dyn Error>> {
    let file = env::args_os().nth(1).ok_or("usage: clone_twice FLAT_IMAGE")?;
    let kernel = Kernel::Flat { image: fs::read(file)?.into() };
    let source = Vm::boot(&Config::new(32 << 20, kernel), Box::new(io::stdout()))?;
    source.start();
    thread::sleep(Duration::from_secs(1));

    // Threads and scratch memory first: the source stands still for as short as possible.
    let threads = Threads::new(2)?;
    let (saver, restorer) = (Saver::new(&threads), Restorer::new(&threads));
    let pool = Pool::new(&PoolConfig {
        capacity_bytes: 32 << 20,
        pages: PoolPages::Ordinary,
        populate: Populate::OnFirstUse,
    })?;
    let moment = Moment::live(&source, CopyLimits::default())?;
    let saved = saver.save(moment, pool.reserve("template")?, &SaveOptions::default())?;
    let live = saved.report.live.expect("it was a live moment");
    println!("saved in {:?}, of which the source stood still for {:?}", live.total_time, live.pause);

    for number in 1..=2 {
        let backing = Backing::Private(PageSize::Transparent);
        let memory = restorer.eager(&saved.snapshot, backing, Watch::default())?.memory;
        let clone = Vm::restore(saved.snapshot.state(), memory, Box::new(io::stdout()))?;
        println!("clone {number} runs:");
        clone.start();
        // It runs on until it is dropped, unless its guest ends it before.
        if let Some(ending) = clone.wait_timeout(Duration::from_millis(500)) {
            println!("clone {number} has ended: {ending:?}");
        }
    }
    Ok(())
}
