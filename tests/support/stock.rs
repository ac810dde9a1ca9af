//! Debian's own kernels as guests, and what the witness program in them has noticed.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use guest_images::stock_linux::{self, Image};
use vmm::config::{Config, Kernel};
use vmm::memory::Backing;

use super::console::Console;
use super::process::Process;
use super::room::skip;
use super::{Guest, note};
use crate::MIB;

/// Size of the guest's memory in bytes; the kernel needs most of it when unpacked.
pub(crate) const MEMORY_BYTES: u64 = 160 * MIB;

/// One of the kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flavour {
    Generic,
    Cloud,
}

/// The files, which are fetched and built first if necessary; or what prevents this user from doing that.
static IMAGE: LazyLock<Result<Image, String>> = LazyLock::new(|| match stock_linux::image() {
    Err(error @ guest_images::Error::Missing { .. }) => Err(error.to_string()),
    image => Ok(image.unwrap()),
});

/// Whether the files are available. If this user cannot get them, a note says so.
pub(crate) fn is_there() -> bool {
    IMAGE.as_ref().map_err(|why| skip(why)).is_ok()
}

/// The files. Call [`room_for_ring_0`](super::room_for_ring_0) first.
pub(crate) fn image() -> &'static Image {
    IMAGE.as_ref().unwrap()
}

impl Flavour {
    pub(crate) fn file(self) -> PathBuf {
        match self {
            Self::Generic => image().generic.clone(),
            Self::Cloud => image().cloud.clone(),
        }
    }

    /// Number of processors that the kernel finds: the cloud kernel reads no MP table, and so far there is no ACPI.
    pub(crate) fn processors(self, vcpus: u8) -> u64 {
        match self {
            Self::Generic => u64::from(vcpus),
            Self::Cloud => 1,
        }
    }

    pub(crate) fn config(self, vcpus: u8, backing: Backing) -> Config {
        let (path, initramfs) = (self.file(), Some(image().initramfs.clone()));
        let kernel = Kernel::Linux { path, initramfs, cmdline: stock_linux::COMMAND_LINE.to_owned() };
        Config { vcpus, backing, ..Config::new(MEMORY_BYTES, kernel) }
    }

    /// Boots the kernel and waits for the witness.
    #[track_caller]
    pub(crate) fn boot(self, vcpus: u8, backing: Backing) -> Guest {
        let guest = Guest::boot(&self.config(vcpus, backing));
        guest.line(stock_linux::READY);
        let (name, seconds) = (format!("{self:?}").to_lowercase(), guest.since.elapsed().as_secs_f64());
        note(format_args!("stock: {name} kernel, {vcpus} vCPUs: up in {seconds:.1} s"));
        guest
    }
}

/// A machine in this process or another, whose witness answers over the console.
pub(crate) trait Talks {
    fn type_line(&self, line: &str);
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
pub(crate) struct Report {
    pub(crate) asked: Instant,
    pub(crate) answered: Instant,
    fields: BTreeMap<String, String>,
    console: String,
}

impl Report {
    #[track_caller]
    pub(crate) fn text(&self, key: &str) -> &str {
        self.fields.get(key).unwrap_or_else(|| panic!("no {key} in {self:?}"))
    }

    #[track_caller]
    pub(crate) fn number(&self, key: &str) -> u64 {
        let text = self.text(key);
        text.parse().unwrap_or_else(|_| panic!("{key}={text} is not a number"))
    }

    pub(crate) fn monotonic(&self) -> Duration {
        Duration::from_nanos(self.number("monotonic_ns"))
    }

    /// Asserts that nothing has been noticed that must not happen to any guest, cloned or not.
    #[track_caller]
    pub(crate) fn assert_sound(&self, processors: u64) {
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
    pub(crate) fn assert_goes_on(&self, before: &Self, allowed: Duration) -> Duration {
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
