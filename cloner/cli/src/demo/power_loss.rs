//! `cloner demo --power-loss`: a snapshot is taken, the power fails, a process dies, and the guest goes on.
//!
//! ```text
//!   this process                                        its child
//!   start the child ──────────────────────────────────► boot, put a snapshot
//!                                                       the (simulated) mains fail: flush on the battery
//!   wait ◄──────────────────── facts, then SIGKILL ───── to itself, with all it had in RAM
//!   recover the folder, clone: same memory, same nonce, counts on
//! ```

use std::hash::Hasher;
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use clap::ValueEnum;
use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_64;
use vmm::Vm;
use vmm::memory::GuestMemory;

use super::report::milliseconds;
use super::{ANSWER_LIMIT, Args, BOOT_LIMIT, RunningGuest, tell_and_ask};
use crate::console::Console;
use crate::known::KnownGuest;
use crate::pages;
use crate::progress::{self, Spinner};
use crate::size::Size;
use crate::threads;
use crate::{Error, folder, interrupt};
use cloner::battery::{Battery, BatterySpec, Mains, PowerState, SimulatedPower};
use cloner::durable::{AdmittedPut, DurablePool, DurableSettings};
use cloner::flush::{ANY_HOST, FolderOptions, RecoverReport};
use cloner::moment::Moment;
use cloner::pool::{Labels, Priority, ProvidedPool};
use cloner::progress::{Progress, Watch};
use cloner::restore::Restorer;
use cloner::save::{SaveOptions, Saved, Saver};
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;

/// Name of the only snapshot.
const NAME: &str = "before-the-power-loss";

/// What the process that dies leaves besides the folder: the facts by which the guest is recognised.
#[derive(Debug, Serialize, Deserialize)]
struct GuestFacts {
    nonce: String,
    /// Number of the last beat or tick before the snapshot.
    beat: u64,
    /// XXH3-64 of all guest memory at the pause.
    memory: u64,
    touched_bytes: u64,
    pool_bytes: u64,
    boot_ms: f64,
    pause_ms: f64,
    limit_bytes: u64,
    holdup_s: f64,
    /// Time from the failure of the mains until nothing was left to flush.
    flush_ms: f64,
    charge_share_left: f64,
}

/// What the demo prints as JSON.
#[expect(clippy::struct_excessive_bools, reason = "each is something the demo promises")]
#[derive(Debug, Serialize)]
struct Report {
    guest: &'static str,
    /// The kind of pages the pool lives in, and why.
    pool: String,
    before: GuestFacts,
    killed: bool,
    recovered: usize,
    dropped: usize,
    file_bytes: u64,
    /// "hot" or "cold"; `None` if nothing was recovered.
    form: Option<String>,
    recover_ms: f64,
    clone_ms: f64,
    memory_equal: bool,
    same_nonce: bool,
    next_beat: u64,
    /// The clone's id, 32 hexadecimal digits.
    id: String,
    verified: bool,
}

/// The flush folder. It is removed when dropped, unless the user named it.
struct FlushFolder {
    path: PathBuf,
    temporary: bool,
}

impl Drop for FlushFolder {
    fn drop(&mut self) {
        if self.temporary {
            // The folder may be gone already.
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    match &args.die_in {
        Some(path) => before(args, path),
        None => after(args),
    }
}

fn open(args: &Args, guest: &KnownGuest, path: &Path, power: &SimulatedPower) -> Result<OpenedPool, Error> {
    let default_bytes = guest.touched_at_most(args.machine.memory.0) + (8 << 20);
    // The parent process says for both which pages were used.
    let pool = if args.die_in.is_some() {
        args.pool.open_silently(default_bytes)?
    } else {
        args.pool.open(default_bytes)?
    };
    // A host without a machine id can show this, too.
    let options = FolderOptions { host: String::from(ANY_HOST), ..FolderOptions::default() };
    let folder = folder::open(path, &options)?;
    let battery = Battery::new(BatterySpec {
        capacity_j: args.battery_capacity.unwrap_or(BatterySpec::default().capacity_j),
        ..BatterySpec::default()
    })?;
    let settings = DurableSettings { poll: Duration::from_millis(20), ..DurableSettings::new(threads()) };
    let watch = Watch::default().cancel(interrupt::cancel());
    let source = Box::new(power.source());
    let opened = DurablePool::open(Arc::clone(&pool.pool), folder, (battery, source), settings, watch)?;
    let (durable, report) = opened;
    Ok(OpenedPool { durable, report, pool })
}

struct OpenedPool {
    durable: DurablePool,
    report: RecoverReport,
    // Gives its huge pages back when the pool is gone.
    pool: ProvidedPool,
}

// ---- The process that dies ----

fn before(args: &Args, path: &Path) -> Result<u8, Error> {
    let guest = guest(args)?;
    let power = SimulatedPower::new();
    let opened = open(args, &guest, path, &power)?;
    let durable = &opened.durable;
    let saver = Saver::new(&Threads::new(threads())?);

    let started = Instant::now();
    let console = Console::new();
    let vm = Vm::boot(&args.machine.config(guest.kernel()), console.writer()).map_err(Error::source_vm)?;
    vm.start();
    let nonce = console.wait_for(&vm, 0, BOOT_LIMIT, |line| guest.ready(line));
    let silent = |what: &str, limit| Error::silent("the source", what, limit, vm.ending());
    let nonce = nonce.ok_or_else(|| silent(guest.ready_text(), BOOT_LIMIT))?;
    let boot_ms = milliseconds(started.elapsed());
    let beat = console.wait_for(&vm, 0, ANSWER_LIMIT, |line| guest.beat(line));
    beat.ok_or_else(|| silent("a beat", ANSWER_LIMIT))?;

    let labels = Labels { priority: Priority(1), ..Labels::default() };
    let AdmittedPut { reservation, cancel } =
        durable.reserve(NAME, 0, labels, |_| !interrupt::requested())?;
    let paused = vm.pause().map_err(Error::source_vm)?;
    let beat = console.last(|line| guest.beat(line)).unwrap_or(0);
    let options = SaveOptions::default().cancel(&cancel);
    let Saved { snapshot, report } = saver.save(Moment::of(&paused)?, reservation, &options)?;
    let pause_ms = milliseconds(paused.elapsed());
    let memory = checksum(paused.memory())?;
    drop(paused);

    let status = durable.status();
    let failed = Instant::now();
    power.set(Mains::Failed);
    // The flush is woken by the watching thread, like any other.
    let status_after = loop {
        let now = durable.status();
        if now.usage.snapshots == 0 || now.state == PowerState::Exhausted {
            break now;
        }
        if interrupt::requested() {
            return Err(Error::Interrupted);
        }
        thread::sleep(Duration::from_millis(1));
    };
    if status_after.usage.snapshots > 0 {
        return Err(Error::NotVerified(String::from(
            "the battery was empty before the snapshot was safe on disk",
        )));
    }
    let facts = GuestFacts {
        nonce,
        beat,
        memory,
        touched_bytes: report.touched_bytes,
        pool_bytes: snapshot.occupied_bytes() as u64,
        boot_ms,
        pause_ms,
        limit_bytes: status.usage.limit_bytes,
        holdup_s: status.holdup.as_secs_f64(),
        flush_ms: milliseconds(failed.elapsed()),
        charge_share_left: status_after.charge_share,
    };
    let text = serde_json::to_string(&facts).expect("plain structs of numbers and strings");
    writeln!(io::stdout(), "{text}").and_then(|()| io::stdout().flush()).map_err(Error::Output)?;
    // No destructor runs and nothing is synced, as if the machine had lost its power. Only what other processes would miss is
    // given back.
    cloner::pool::hugepages::give_back_for_ever()?;
    rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL)
        .map_err(|error| Error::Child(error.into()))?;
    unreachable!("SIGKILL cannot be survived")
}

// ---- The process that comes after ----

fn after(args: &Args) -> Result<u8, Error> {
    // The guest's image is built first, if it does not exist yet.
    let guest = guest(args)?;
    let temporary = args.dir.is_none();
    let path = args
        .dir
        .clone()
        .unwrap_or_else(|| std::env::temp_dir().join(format!("cloner-power-loss-{}", std::process::id())));
    let flush = FlushFolder { path, temporary };
    let say = |line: &str| {
        if args.json { Ok(()) } else { writeln!(io::stdout(), "{line}").map_err(Error::Output) }
    };
    say(&format!("folder    {}", flush.path.display()))?;
    let (before, killed) = run_child(args, &flush.path)?;
    say(&format!(
        "booted    {} in {:.1} ms; nonce {}, which exists only in its memory",
        guest.name(),
        before.boot_ms,
        before.nonce
    ))?;
    say(&format!(
        "snapshot  {} touched, {} in the pool, paused for {:.1} ms; the battery lasts {:.0} s and protects {}",
        Size(before.touched_bytes),
        Size(before.pool_bytes),
        before.pause_ms,
        before.holdup_s,
        Size(before.limit_bytes),
    ))?;
    say(&format!(
        "mains     failed; safe {:.1} ms later, {:.1} % of the charge left; then the process was killed",
        before.flush_ms,
        before.charge_share_left * 100.0
    ))?;

    let report = recover_and_clone(args, &guest, &flush.path, before, killed)?;
    say(&format!(
        "recovered {} ({}) in {:.1} ms, {} dropped",
        Size(report.file_bytes),
        report.form.as_deref().unwrap_or_default(),
        report.recover_ms,
        report.dropped
    ))?;
    say(&format!(
        "clone     answers after {:.1} ms; memory {}, {}, counts on from {} with {}",
        report.clone_ms,
        if report.memory_equal { "equal" } else { "DIFFERS" },
        if report.same_nonce { "same nonce" } else { "ANOTHER NONCE" },
        report.before.beat,
        report.next_beat,
    ))?;
    if args.json {
        let text = serde_json::to_string_pretty(&report).expect("plain structs of numbers and strings");
        writeln!(io::stdout(), "{text}").map_err(Error::Output)?;
    }
    if report.verified {
        return Ok(0);
    }
    Err(Error::NotVerified(String::from("the guest did not go on from where it was")))
}

fn run_child(args: &Args, path: &Path) -> Result<(GuestFacts, bool), Error> {
    let program = std::env::current_exe().map_err(Error::Child)?;
    let mut command = Command::new(program);
    command.args(["demo", "--power-loss", "--die-in"]).arg(path);
    command.arg("--memory").arg(args.machine.memory.0.to_string());
    command.arg("--cpus").arg(args.machine.cpus.to_string());
    if args.linux {
        command.arg("--linux");
    }
    if let Some(touched) = args.touched {
        command.arg("--touched").arg(touched.0.to_string());
    }
    if let Some(capacity) = args.battery_capacity {
        command.arg("--capacity").arg(capacity.to_string());
    }
    if let Some(size) = args.pool.capacity {
        command.arg("--pool").arg(size.0.to_string());
    }
    let pages = args.pool.pages.to_possible_value().expect("no variant is skipped");
    command.arg("--pages").arg(pages.get_name());
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(Error::Child)?;
    let spinner = Spinner::new(String::from("booting, and losing power"));
    let output = child.wait_with_output().map_err(Error::Child)?;
    drop(spinner);
    if interrupt::requested() {
        return Err(Error::Interrupted);
    }
    let killed = output.status.signal() == Some(rustix::process::Signal::KILL.as_raw());
    if !killed {
        // The child has said why on standard error, which it shares with this process.
        return Err(Error::NotVerified(format!(
            "the process ended before it could lose its power: {}",
            output.status
        )));
    }
    let facts = serde_json::from_slice(&output.stdout).map_err(|error| Error::Child(error.into()))?;
    Ok((facts, killed))
}

fn recover_and_clone(
    args: &Args,
    guest: &KnownGuest,
    path: &Path,
    before: GuestFacts,
    killed: bool,
) -> Result<Report, Error> {
    let opened = open(args, guest, path, &SimulatedPower::new())?;
    let OpenedPool { durable, report: found, .. } = &opened;
    let requested = Instant::now();
    let snapshot = Snapshot::open(durable.pool().get(NAME)?)?;
    let progress = Progress::default();
    let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
    let restorer = Restorer::new(&Threads::new(threads())?);
    let decode = || restorer.eager(&snapshot, args.machine.backing(), watch);
    let memory = progress::bar("decoding", &progress, decode)?.memory;
    let compared = Instant::now();
    let memory_equal = checksum(&memory)? == before.memory;
    let compared = compared.elapsed();
    let console = Console::new();
    let vm = Vm::restore(snapshot.state(), memory, console.writer())
        .map_err(|source| Error::Vm { guest: "the clone", source })?;
    tell_and_ask(&vm, guest)?;
    vm.start();
    let clone = RunningGuest { vm, console };
    let silent = |what: &str| Error::silent("the clone", what, ANSWER_LIMIT, clone.vm.ending());
    let nonce = clone.console.wait_for(&clone.vm, 0, ANSWER_LIMIT, |line| guest.nonce(line));
    let nonce = nonce.ok_or_else(|| silent("its nonce"))?;
    let first = clone.console.first_byte().expect("it has answered");
    let next_beat = clone.console.wait_for(&clone.vm, 0, ANSWER_LIMIT, |line| guest.beat(line));
    let next_beat = next_beat.ok_or_else(|| silent("a beat"))?;
    let rebooted = clone.console.any(|line| guest.ready(line).is_some());
    let identity = clone.vm.identity();
    let knows = clone.console.any(|line| guest.confirms(identity, line));

    let one = found.recovered.iter().find(|one| one.name == NAME);
    let same_nonce = nonce == before.nonce;
    // A line that was being printed at the pause may be lost.
    let goes_on = (before.beat..=before.beat + 2).contains(&next_beat) && !rebooted;
    Ok(Report {
        guest: guest.name(),
        pool: pages::backing(&opened.pool),
        killed,
        recovered: found.recovered.len(),
        dropped: found.dropped.len(),
        file_bytes: one.map_or(0, |one| one.file_bytes),
        form: one.map(|one| one.form.to_string()),
        recover_ms: milliseconds(found.time),
        clone_ms: milliseconds(first - requested - compared),
        memory_equal,
        same_nonce,
        next_beat,
        id: format!("{:032x}", identity.id),
        verified: killed && memory_equal && same_nonce && goes_on && knows,
        before,
    })
}

fn guest(args: &Args) -> Result<KnownGuest, Error> {
    let touched = args.touched.map(|size| size.0);
    if args.linux { KnownGuest::linux() } else { KnownGuest::pulse(args.machine.memory, touched) }
}

/// XXH3-64 of all of a guest's memory. The guest must be paused.
fn checksum(memory: &GuestMemory) -> Result<u64, Error> {
    const PART_BYTES: usize = 2 << 20;
    let mut hash = XxHash3_64::new();
    let mut part = vec![0; PART_BYTES];
    for region in memory.regions() {
        let len = usize::try_from(region.range().len_bytes).expect("a guest fits into the address space");
        for offset in (0..len).step_by(PART_BYTES) {
            let part = &mut part[..PART_BYTES.min(len - offset)];
            region.read(offset, part).map_err(|error| cloner::save::Error::Memory(error.into()))?;
            hash.write(part);
        }
    }
    Ok(hash.finish())
}
