//! `cloner demo`: the whole path from boot to clones, told in a few lines and a table.

mod power_loss;
mod report;

use std::io::{self, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use vmm::host::Host;
use vmm::{Config, Vm};

use self::report::{CloneReport, Generation, Report};
use crate::console::Console;
use crate::guest::MachineArgs;
use crate::known::KnownGuest;
use crate::pages::{self, PoolArgs};
use crate::progress::{self, Spinner};
use crate::size::Size;
use crate::threads;
use crate::{Error, interrupt, memcpy};
use cloner::compare::Comparer;
use cloner::moment::Moment;
use cloner::pool::ProvidedPool;
use cloner::pool::hugepages::ReservedHugePages;
use cloner::progress::{Progress, Watch};
use cloner::restore::Restorer;
use cloner::restore::eager::Restored;
use cloner::save::{SaveOptions, Saved, Saver};
use cloner::snapshot::Snapshot;
use cloner::walk::Threads;

/// Longest wait for a guest to boot, long enough for hosts that emulate ring 0.
const BOOT_LIMIT: Duration = Duration::from_secs(300);
/// Longest wait for a clone to answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

const EXAMPLES: &str = "\
Examples:
  cloner demo                                   256 MiB, two clones
  cloner demo --memory 4G --touched 256M        only what was touched costs time
  cloner demo --linux --generations 3           clones of clones of clones of a tiny Linux
  cloner demo --power-loss                      the mains fail, the process dies, the guest goes on
  cloner demo --json | jq .encode

The exit code is 1 unless every clone's memory was equal and every guest went on.";

/// Options of `cloner demo`.
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    machine: MachineArgs,
    /// Boot a tiny Linux instead of the built-in bare-metal guest; builds it first if necessary, which takes minutes
    #[arg(long)]
    linux: bool,
    /// Memory that the built-in guest fills before it is cloned (default: a quarter of its memory)
    #[arg(long, value_name = "SIZE", conflicts_with = "linux")]
    touched: Option<Size>,
    /// Clones to build of each source
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    clones: u16,
    /// Generations: clone the first clone next, then its first clone, and so on
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    generations: u16,
    /// Do not compare memories; the source is then not held while its memory is copied
    #[arg(long)]
    no_compare: bool,
    /// Lose power instead: snapshot, flush on a simulated battery, kill the process, recover, clone
    #[arg(long, conflicts_with_all = ["clones", "generations", "no_compare", "hugepages"])]
    power_loss: bool,
    /// Folder to flush to, where the snapshot stays (default: a temporary one)
    #[arg(long, value_name = "DIR", requires = "power_loss")]
    dir: Option<PathBuf>,
    /// Energy of the simulated battery, in joules (default: 20000)
    #[arg(long = "capacity", value_name = "J", requires = "power_loss")]
    battery_capacity: Option<f64>,
    /// The process that dies; started by the demo itself
    #[arg(long, hide = true, value_name = "DIR", requires = "power_loss")]
    die_in: Option<PathBuf>,
    /// Print one JSON object instead
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    pool: PoolArgs,
}

/// What all steps of the demo share.
struct Demo<'a> {
    args: &'a Args,
    guest: KnownGuest,
    pool: ProvidedPool,
    saver: Saver,
    restorer: Restorer,
    comparer: Comparer,
}

/// A running guest, and what it has printed.
struct RunningGuest {
    vm: Vm,
    console: Console,
}

/// A snapshot of a running guest, and what its clones must equal.
struct DemoSnapshot {
    snapshot: Snapshot,
    memory: Option<vmm::memory::GuestMemory>,
    /// Number of the last beat or tick printed before the pause.
    beat: u64,
    generation: Generation,
}

pub(super) fn run(args: &Args) -> Result<u8, Error> {
    if args.power_loss {
        return power_loss::run(args);
    }
    let output = DemoOutput { quiet: args.json };
    let touched = args.touched.map(|size| size.0);
    let guest =
        if args.linux { KnownGuest::linux()? } else { KnownGuest::pulse(args.machine.memory, touched)? };
    let config = args.machine.config(guest.kernel());
    let (demo, _reserved) = Demo::set(args, guest)?;
    let memcpy = memcpy::bytes_per_second(threads());

    let (source, nonce, boot_time) = demo.boot(&config)?;
    output.booted(args, &config, &demo.guest, boot_time, &nonce)?;

    let mut report = Report::new(demo.guest.name(), args.machine.memory.0, memcpy, &demo.pool);
    let mut guests = vec![source];
    for generation in 1..=args.generations {
        let source = guests.last().expect("the source is the first");
        let taken = demo.take(source, generation)?;
        let resumed_beat = demo.next_beat(source)?;
        let mut clones = Vec::new();
        let mut outcome = taken.generation.clone();
        outcome.source_resumed = resumed_beat > taken.beat;
        for _ in 0..args.clones {
            let (clone, result) = demo.clone_of(&taken, &nonce)?;
            outcome.clones.push(result);
            clones.push(clone);
        }
        output.generation(&outcome, memcpy)?;
        report.add(outcome);
        demo.pool.pool.remove(taken.snapshot.name())?;
        // The first clone, which is the next source, goes last.
        clones.reverse();
        guests.append(&mut clones);
    }
    let beats = demo.all_beat(&guests)?;
    output.end(&beats)?;
    if args.json {
        let text = serde_json::to_string_pretty(&report).expect("plain structs of numbers and strings");
        writeln!(io::stdout(), "{text}").map_err(Error::Output)?;
    }
    report.failure().map_or(Ok(0), |what| Err(Error::NotVerified(what)))
}

impl<'a> Demo<'a> {
    /// Prepares everything that must not cost time later.
    fn set(args: &'a Args, guest: KnownGuest) -> Result<(Self, Option<ReservedHugePages>), Error> {
        let memory = args.machine.memory.0;
        // As much as the guest can have touched, in case none of it can be compressed.
        let pool = args.pool.open(guest.touched_at_most(memory) + (8 << 20))?;
        let guests = 1 + u64::from(args.clones) * u64::from(args.generations);
        let reserved =
            if args.machine.hugepages { pages::for_guests(args.machine.memory, guests)? } else { None };
        let threads = Threads::new(threads())?;
        let demo = Self {
            args,
            guest,
            pool,
            saver: Saver::new(&threads),
            restorer: Restorer::new(&threads),
            comparer: Comparer::new(&threads),
        };
        Ok((demo, reserved))
    }

    fn boot(&self, config: &Config) -> Result<(RunningGuest, String, Duration), Error> {
        let started = Instant::now();
        let console = Console::new();
        let vm = Vm::boot(config, console.writer()).map_err(Error::source_vm)?;
        vm.start();
        let spinner = Spinner::new(format!("booting {}", self.guest.name()));
        let ready = console.wait_for(&vm, 0, BOOT_LIMIT, |line| self.guest.ready(line));
        drop(spinner);
        let silent = || Error::silent("the source", self.guest.ready_text(), BOOT_LIMIT, vm.ending());
        let nonce = ready.ok_or_else(silent)?;
        let boot_time = started.elapsed();
        let source = RunningGuest { vm, console };
        self.next_beat(&source)?;
        Ok((source, nonce, boot_time))
    }

    /// Takes a snapshot, and a copy of the memory to compare clones with.
    fn take(&self, source: &RunningGuest, generation: u16) -> Result<DemoSnapshot, Error> {
        let reservation = self.pool.pool.reserve(&format!("generation-{generation}"))?;
        let progress = Progress::default();
        let paused = source.vm.pause().map_err(Error::source_vm)?;
        let beat = source.console.last(|line| self.guest.beat(line)).unwrap_or(0);
        let options = SaveOptions::default().progress(&progress).cancel(interrupt::cancel());
        let moment = Moment::of(&paused)?;
        let save = || self.saver.save(moment, reservation, &options);
        let Saved { snapshot, report } = progress::bar("encoding", &progress, save)?;
        let pause = paused.elapsed();
        let copy = || self.comparer.copy_of(paused.memory());
        let memory = if self.args.no_compare { None } else { Some(copy()?) };
        let held = paused.resume();
        let generation = Generation::new(&snapshot, self.pool.pool.backing(), &report, pause, held);
        Ok(DemoSnapshot { snapshot, memory, beat, generation })
    }

    fn clone_of(&self, taken: &DemoSnapshot, nonce: &str) -> Result<(RunningGuest, CloneReport), Error> {
        let DemoSnapshot { snapshot, memory: expected, beat, generation } = taken;
        let progress = Progress::default();
        let watch = Watch::default().progress(&progress).cancel(interrupt::cancel());
        let requested = Instant::now();
        let decode = || self.restorer.eager(snapshot, self.args.machine.backing(), watch);
        let Restored { memory, report: restored } = progress::bar("decoding", &progress, decode)?;
        let compared = Instant::now();
        let difference = match expected {
            Some(expected) => Some(self.comparer.first_difference(expected, &memory)?),
            None => None,
        };
        let compared = compared.elapsed();

        let started = Instant::now();
        let console = Console::new();
        let vm = Vm::restore(snapshot.state(), memory, console.writer())
            .map_err(|source| Error::Vm { guest: "a clone", source })?;
        let build = started.elapsed();
        // Before the guest runs, so that its answers are the first thing it does.
        tell_and_ask(&vm, &self.guest)?;
        vm.start();
        let clone = RunningGuest { vm, console };
        let identity = clone.vm.identity();
        self.heard(&clone, "that it knows who it is", |line| {
            self.guest.confirms(identity, line).then_some(())
        })?;
        let answer = self.heard(&clone, "its nonce", |line| self.guest.nonce(line))?;
        let first_byte = clone.console.first_byte().expect("it has answered");
        let next = self.next_beat_from(&clone, 0)?;
        let rebooted = clone.console.any(|line| self.guest.ready(line).is_some());
        Ok((
            clone,
            CloneReport {
                generation: identity.generation,
                id: format!("{:032x}", identity.id),
                mode: "eager",
                decode_gbps: report::gigabytes_per_second(generation.touched_bytes, restored.decode_time),
                verify_ms: report::milliseconds(restored.verify_time),
                build_ms: report::milliseconds(build),
                // The comparison belongs to the demo, not to making a clone.
                first_output_ms: report::milliseconds(first_byte - requested - compared),
                memory_equal: difference.map(|difference| difference.is_none()),
                // Same nonce, same count (a line that was being printed at the pause may be lost), and no second boot.
                verified: answer == *nonce && (*beat..=*beat + 2).contains(&next) && !rebooted,
            },
        ))
    }

    /// Waits for a clone to print something.
    fn heard<T>(
        &self,
        clone: &RunningGuest,
        wanted: &'static str,
        pick: impl FnMut(&str) -> Option<T>,
    ) -> Result<T, Error> {
        let heard = clone.console.wait_for(&clone.vm, 0, ANSWER_LIMIT, pick);
        heard.ok_or_else(|| Error::silent("a clone", wanted, ANSWER_LIMIT, clone.vm.ending()))
    }

    fn next_beat(&self, guest: &RunningGuest) -> Result<u64, Error> {
        self.next_beat_from(guest, guest.console.position())
    }

    fn next_beat_from(&self, guest: &RunningGuest, position: usize) -> Result<u64, Error> {
        let beat = guest.console.wait_for(&guest.vm, position, ANSWER_LIMIT, |line| self.guest.beat(line));
        beat.ok_or_else(|| Error::silent("a guest", "a beat", ANSWER_LIMIT, guest.vm.ending()))
    }

    /// Waits for each guest to beat once more, which shows that all of them run side by side.
    fn all_beat(&self, guests: &[RunningGuest]) -> Result<Vec<u64>, Error> {
        guests.iter().map(|guest| self.next_beat(guest)).collect()
    }
}

/// Tells a clone who it is, and asks it for its nonce.
fn tell_and_ask(clone: &Vm, guest: &KnownGuest) -> Result<(), Error> {
    let told = clone.announce(guest.announce());
    told.map_err(|source| Error::Vm { guest: "a clone", source: source.into() })?;
    clone.console_input(guest.question());
    Ok(())
}

/// Prints what happens, unless JSON is wanted.
struct DemoOutput {
    quiet: bool,
}

impl DemoOutput {
    fn booted(
        &self,
        args: &Args,
        config: &Config,
        guest: &KnownGuest,
        time: Duration,
        nonce: &str,
    ) -> Result<(), Error> {
        let cpus = if args.machine.cpus == 1 { "vCPU" } else { "vCPUs" };
        let virtualization = Host::get().map_err(|e| Error::source_vm(e.into()))?.virtualization();
        self.say(&format!(
            "source    {}: {}, {} {cpus}; memory {}; {virtualization}",
            guest.name(),
            args.machine.memory,
            args.machine.cpus,
            config.backing,
        ))?;
        self.say(&format!(
            "booted    in {:.1} ms; nonce {nonce}, which exists only in its memory",
            report::milliseconds(time),
        ))
    }

    fn generation(&self, generation: &Generation, memcpy: f64) -> Result<(), Error> {
        generation.lines(memcpy).iter().try_for_each(|line| self.say(line))
    }

    fn end(&self, beats: &[u64]) -> Result<(), Error> {
        let beats: Vec<String> = beats.iter().map(u64::to_string).collect();
        self.say(&format!("side by side, source and clones now count {}", beats.join(", ")))
    }

    fn say(&self, line: &str) -> Result<(), Error> {
        if self.quiet { Ok(()) } else { writeln!(io::stdout(), "{line}").map_err(Error::Output) }
    }
}
