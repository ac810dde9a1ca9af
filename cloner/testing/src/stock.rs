//! Debian's own kernels as guests, and what the witness program in them has noticed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use guest_images::stock_linux::{self, Image};
use vmm::config::{Config, Kernel};
use vmm::host::{Host, Virtualization};
use vmm::memory::Backing;

use crate::console::Console;
use crate::process::Process;
use crate::room::Room;
use crate::{Guest, MIB, note, room_for, skip};

/// Size of the guest's memory in bytes; the kernel needs most of it when unpacked.
pub const MEMORY_BYTES: u64 = 160 * MIB;

/// One of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flavour {
    /// The kernel for any machine.
    Generic,
    /// The kernel for virtual machines in clouds, with fewer drivers.
    Cloud,
}

/// The files, which are fetched and built first if necessary; or what prevents this user from doing that.
static IMAGE: LazyLock<Result<Image, String>> = LazyLock::new(|| match stock_linux::image() {
    Err(error @ guest_images::Error::Missing { .. }) => Err(error.to_string()),
    image => Ok(image.unwrap()),
});

/// Whether the files are available. If this user cannot get them, a note says so.
fn is_there() -> bool {
    IMAGE.as_ref().map_err(|why| skip(why)).is_ok()
}

/// The same as [`room_for`], for guests whose kernel only a real processor can run in reasonable time.
///
/// Where ring 0 is emulated, returns `None` after a line that says so. That is not a skip: nothing is missing here that could be
/// installed, and `tests/ordinary-host` runs these tests on the same machine.
pub fn room_for_ring_0(machines: usize) -> Option<Room> {
    let room = room_for(machines)?;
    if Host::get().unwrap().virtualization() == Virtualization::Hardware {
        return is_there().then_some(room);
    }
    let test = thread::current().name().unwrap_or("a test").to_owned();
    note(format_args!(
        "{test}: ring 0 is emulated here, so tests/ordinary-host runs it instead of this host"
    ));
    None
}

/// The files. Call [`room_for_ring_0`] first.
pub fn image() -> &'static Image {
    IMAGE.as_ref().unwrap()
}

impl Flavour {
    fn file(self) -> PathBuf {
        match self {
            Self::Generic => image().generic.clone(),
            Self::Cloud => image().cloud.clone(),
        }
    }

    /// Number of processors that the kernel finds: the cloud kernel reads no MP table, and so far there is no ACPI.
    pub fn processors(self, vcpus: u8) -> u64 {
        match self {
            Self::Generic => u64::from(vcpus),
            Self::Cloud => 1,
        }
    }

    /// The configuration of a machine with this kernel and the witness.
    pub fn config(self, vcpus: u8, backing: Backing) -> Config {
        let (path, initramfs) = (self.file(), Some(image().initramfs.clone()));
        let kernel = Kernel::Linux { path, initramfs, cmdline: stock_linux::COMMAND_LINE.to_owned() };
        Config { vcpus, backing, ..Config::new(MEMORY_BYTES, kernel) }
    }

    /// Boots the kernel and waits for the witness.
    #[track_caller]
    pub fn boot(self, vcpus: u8, backing: Backing) -> Guest {
        let guest = Guest::boot(&self.config(vcpus, backing));
        guest.line(stock_linux::READY);
        let (name, seconds) = (format!("{self:?}").to_lowercase(), guest.since.elapsed().as_secs_f64());
        note(format_args!("stock: {name} kernel, {vcpus} vCPUs: up in {seconds:.1} s"));
        guest
    }
}

/// A machine in this process or another, whose witness answers over the console.
pub trait Talks {
    /// Types this line on the console.
    fn type_line(&self, line: &str);
    /// What the guest has printed.
    fn hears(&self) -> &Console;

    /// Sends a command that the witness confirms by repeating it.
    #[track_caller]
    fn tell_witness(&self, command: &str) {
        self.type_line(command);
        self.hears().line(command);
    }

    /// Asks the witness for what it has noticed up to now.
    #[track_caller]
    fn report(&self) -> Report {
        let asked = Instant::now();
        self.type_line("report");
        let line = self.hears().line("witness: ").text;
        let fields = line.split(' ').filter_map(|word| word.split_once('='));
        let fields = fields.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        Report { asked, answered: Instant::now(), fields, console: self.hears().transcript() }
    }
}

impl Talks for Guest {
    fn type_line(&self, line: &str) {
        self.send(&format!("{line}\n"));
    }

    fn hears(&self) -> &Console {
        &self.console
    }
}

impl Talks for Process {
    fn type_line(&self, line: &str) {
        self.send(&format!("{line}\n"));
    }

    fn hears(&self) -> &Console {
        &self.console
    }
}

/// The witness's report, which describes one instant between question and answer.
#[derive(Debug, Clone)]
pub struct Report {
    /// When the question was sent; the instant described is not earlier.
    pub asked: Instant,
    /// When the answer had arrived; the instant described is not later.
    pub answered: Instant,
    fields: BTreeMap<String, String>,
    console: String,
}

impl Report {
    /// The field of this name.
    #[track_caller]
    pub fn text(&self, key: &str) -> &str {
        self.fields.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    /// The field of this name, as a number.
    #[track_caller]
    pub fn number(&self, key: &str) -> u64 {
        let text = self.text(key);
        text.parse().unwrap_or_else(|_| panic!("{key}={text} is not a number"))
    }

    /// The time by the `CLOCK_MONOTONIC` of the guest.
    pub fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.number("monotonic_ns"))
    }

    /// Asserts that nothing has been noticed that must not happen to any guest, cloned or not.
    #[track_caller]
    pub fn assert_sound(&self, processors: u64) {
        assert_eq!(self.number("cpus"), processors, "{self:?}");
        for never in ["back", "early", "wrong", "debug_wrong", "kmsg_bad"] {
            assert_eq!(self.number(never), 0, "{never}:\n{}", self.console);
        }
        // There may be one more write, if it has just happened and the debugger has not run since.
        let (written, trapped) = (self.number("written"), self.number("trapped"));
        assert!(written == trapped || written == trapped + 1, "{written} writes, {trapped} traps");
        assert!(!self.console.contains("witness-failed"), "{}", self.console);
    }

    /// Asserts that the guest, and everything in it, has gone on from `before` for no longer than `allowed`, by every clock.
    ///
    /// Returns how far the guest came by its own clock.
    #[track_caller]
    pub fn assert_goes_on(&self, before: &Self, allowed: Duration) -> Duration {
        for same in ["nonce", "cpus", "has", "clock"] {
            assert_eq!(self.text(same), before.text(same));
        }
        let went = self.monotonic().checked_sub(before.monotonic()).expect("CLOCK_MONOTONIC went back");
        assert!(went <= allowed, "CLOCK_MONOTONIC went on by {went:?} in at most {allowed:?}");
        // The wall clock goes on from the snapshot, as the other does: the guest reads the two one right after the other.
        let offset = |report: &Self| report.number("realtime_ns").wrapping_sub(report.number("monotonic_ns"));
        let drift = offset(self).abs_diff(offset(before));
        assert!(drift < 10_000_000, "the wall clock went on by {drift} ns more or less");
        // The longest gap that the watchers, one on each processor, have seen.
        let gap = Duration::from_millis(self.number("max_gap_ms"));
        assert!(gap <= allowed, "a gap of {gap:?} in at most {allowed:?}");
        assert!(self.number("steal") >= before.number("steal"), "steal time went back");
        for counter in ["looks", "timers", "alarms", "naps", "sleeps", "held", "trapped"] {
            assert!(self.number(counter) > before.number(counter), "{counter} stands still: {self:?}");
        }
        // The kernel counts expirations that have not been read: none may be lost or made up. Some wait until their reader runs.
        let (expired, due) = (self.number("timers") - before.number("timers"), went.as_millis() / 100);
        let unread = 3 + gap.as_millis() / 100;
        assert!(u128::from(expired).abs_diff(due) <= unread, "{expired} expirations instead of {due}");
        went
    }
}
