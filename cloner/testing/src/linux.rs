//! Linux, booted once per run: that takes most of a minute where ring 0 is emulated.

use std::sync::{LazyLock, Mutex, OnceLock};
use std::time::{Duration, Instant};

use cloner::snapshot::Snapshot;
use guest_images::tiny_linux::{self, Image};
use vmm::config::{Config, Kernel};
use vmm::host::{Host, Virtualization};

use crate::console::Line;
use crate::{Guest, MIB, Studio, note, skip};

/// Size of the guest's memory, in bytes.
pub const MEMORY_BYTES: u64 = 128 * MIB;

/// A Linux that has booted and ticked, a snapshot that was then taken of it, and the machine itself, which runs on.
pub struct Linux {
    /// The pool that holds the snapshot, and its tools.
    pub studio: Studio,
    /// The snapshot.
    pub snapshot: Snapshot,
    /// The number that the guest drew when it booted, as it prints it.
    pub nonce: String,
    /// The last tick before the snapshot.
    pub tick: Tick,
    /// The source, for the one test that looks at it; it ends when that test does.
    pub source: Mutex<Option<Guest>>,
}

/// A line such as `tick 7 up=12.34 nonce=…`.
#[derive(Debug, Clone)]
pub struct Tick {
    /// When the guest ended the line.
    pub at: Instant,
    /// Number of the tick.
    pub number: u64,
    /// Seconds since the guest booted, by its own clock.
    pub uptime: f64,
    /// The number that the guest drew when it booted.
    pub nonce: String,
}

/// The image's files, which are built first if necessary. `None`, after a note, for a user who cannot install what that takes.
pub fn image() -> Option<&'static Image> {
    static IMAGE: LazyLock<Result<Image, String>> = LazyLock::new(|| match tiny_linux::image() {
        Err(error @ guest_images::Error::Missing { .. }) => Err(error.to_string()),
        image => Ok(image.unwrap()),
    });
    IMAGE.as_ref().map_err(|why| skip(why)).ok()
}

/// The kernel command line for this host, without the parts that the VMM adds.
pub fn command_line() -> String {
    match Host::get().unwrap().virtualization() {
        Virtualization::Hardware => tiny_linux::COMMAND_LINE.to_owned(),
        Virtualization::PageTableBased => {
            format!("{} {}", tiny_linux::COMMAND_LINE, tiny_linux::ON_PAGE_TABLE_BASED)
        }
    }
}

/// The Linux that all tests share. Call [`room_for`](crate::room_for) first. `None` under the same condition as [`image`].
pub fn linux() -> Option<&'static Linux> {
    static LINUX: OnceLock<Linux> = OnceLock::new();
    let image = image()?;
    Some(LINUX.get_or_init(|| boot(image)))
}

fn boot(image: &Image) -> Linux {
    let Image { vmlinux, initramfs, .. } = image;
    let kernel =
        Kernel::Linux { path: vmlinux.clone(), initramfs: Some(initramfs.clone()), cmdline: command_line() };
    let started = Instant::now();
    let source = Guest::boot(&Config::new(MEMORY_BYTES, kernel));
    let nonce = source.line(tiny_linux::READY).text.replace(tiny_linux::READY, "");
    note(format_args!("tiny-linux: booted in {:.1} s", started.elapsed().as_secs_f64()));
    source.tick();

    let studio = Studio::new(MEMORY_BYTES / 2);
    let paused = source.pause();
    let tick = source.last_tick();
    let snapshot = studio.save(&paused, "booted");
    note(format_args!("tiny-linux: the source stood still for {:.1} ms", milliseconds(paused.resume())));
    Linux { studio, snapshot, nonce, tick, source: Mutex::new(Some(source)) }
}

impl Tick {
    /// `None` if the line is not a tick.
    pub fn parse(line: &Line) -> Option<Self> {
        let mut words = line.text.strip_prefix("tick ")?.split(' ');
        Some(Self {
            at: line.at,
            number: words.next()?.parse().ok()?,
            uptime: words.next()?.strip_prefix("up=")?.parse().ok()?,
            nonce: words.next()?.strip_prefix("nonce=")?.to_owned(),
        })
    }
}

impl Guest {
    /// Waits for the next tick.
    #[track_caller]
    pub fn tick(&self) -> Tick {
        let line = self.line("tick ");
        Tick::parse(&line).unwrap_or_else(|| panic!("no tick: {line:?}"))
    }

    /// The last tick so far.
    #[track_caller]
    pub fn last_tick(&self) -> Tick {
        self.console.lines().iter().rev().find_map(Tick::parse).unwrap()
    }

    /// Sends a command and waits for its answer; returns the answer without the command's name.
    #[track_caller]
    pub fn ask(&self, command: &str) -> String {
        self.send(&format!("{command}\n"));
        let name = command.split(' ').next().unwrap();
        self.line(name).text[name.len()..].trim_start().to_owned()
    }
}

/// The duration in milliseconds.
pub fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}
