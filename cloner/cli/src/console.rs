//! Guests' consoles as lines that can be waited for.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use vmm::Vm;

use crate::interrupt;

/// How often a wait checks whether the guest has ended or the user wants to stop.
const INTERRUPT_POLL: Duration = Duration::from_millis(100);
/// Longest line kept, in bytes: a guest that never ends its line must not fill the host's memory.
const LINE_MAX_BYTES: usize = 4096;
/// Most lines kept for threads that wait for one.
const LINES_MAX: usize = 10_000;

/// What a guest has printed, shared between the guest's thread, which writes, and the threads that wait for a line.
#[derive(Debug, Clone, Default)]
pub struct Console(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    state: Mutex<State>,
    printed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    /// Number of lines dropped from the front of `lines`.
    dropped: usize,
    unfinished: Vec<u8>,
    first_byte: Option<Instant>,
    /// The prefix of the lines on standard output; `None` if they are not shown.
    shown: Option<&'static str>,
}

impl Console {
    /// A console that is not shown.
    pub fn new() -> Self {
        Self::default()
    }

    /// A console whose lines are printed on standard output, each after `prefix`.
    pub fn shown(prefix: &'static str) -> Self {
        let console = Self::default();
        console.lock().shown = Some(prefix);
        console
    }

    /// The writing end, for the VM.
    pub fn writer(&self) -> Box<dyn Write + Send> {
        Box::new(Writer(self.clone()))
    }

    /// The time at which the guest wrote its first byte.
    pub fn first_byte(&self) -> Option<Instant> {
        self.lock().first_byte
    }

    /// Number of whole lines so far: a later wait can start from here.
    pub fn position(&self) -> usize {
        let state = self.lock();
        state.dropped + state.lines.len()
    }

    /// The result of `pick` for the last line for which it has one.
    pub fn last<T>(&self, pick: impl FnMut(&str) -> Option<T>) -> Option<T> {
        self.lock().lines.iter().rev().map(String::as_str).find_map(pick)
    }

    /// Whether `pick` accepts any line.
    pub fn any(&self, pick: impl FnMut(&str) -> bool) -> bool {
        self.lock().lines.iter().map(String::as_str).any(pick)
    }

    /// Waits for a line from `position` on for which `pick` has a result, and returns it. `None` after `limit`, once the guest of
    /// `vm` has ended, or when the user interrupts.
    pub fn wait_for<T>(
        &self,
        vm: &Vm,
        position: usize,
        limit: Duration,
        pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        self.wait_until(|| vm.ending().is_some(), position, limit, pick)
    }

    /// Does the same for a guest that has ended once `has_ended` says so.
    pub fn wait_until<T>(
        &self,
        has_ended: impl Fn() -> bool,
        position: usize,
        limit: Duration,
        mut pick: impl FnMut(&str) -> Option<T>,
    ) -> Option<T> {
        let deadline = Instant::now() + limit;
        let mut state = self.lock();
        let mut next = position;
        loop {
            // Asked before the lines are searched, so that what the guest printed last counts.
            let ended = has_ended();
            let seen = next.saturating_sub(state.dropped).min(state.lines.len());
            if let Some(found) = state.lines[seen..].iter().find_map(|line| pick(line)) {
                return Some(found);
            }
            next = state.dropped + state.lines.len();
            let left = deadline.checked_duration_since(Instant::now())?;
            if ended || interrupt::requested() {
                return None;
            }
            state = self
                .0
                .printed
                .wait_timeout(state, left.min(INTERRUPT_POLL))
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Writer(Console);

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        state.first_byte.get_or_insert_with(Instant::now);
        for byte in bytes {
            match byte {
                b'\n' => state.end_line(),
                b'\r' => {}
                _ if state.unfinished.len() >= LINE_MAX_BYTES => state.end_line(),
                byte => state.unfinished.push(*byte),
            }
        }
        drop(state);
        self.0.0.printed.notify_all();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl State {
    fn end_line(&mut self) {
        let line = printable(&self.unfinished);
        self.unfinished.clear();
        if let Some(prefix) = self.shown {
            // The next command output to a closed pipe reports the error; the guest goes on.
            let _ = writeln!(io::stdout(), "{prefix}{line}");
        }
        if self.lines.len() == LINES_MAX {
            self.lines.drain(..LINES_MAX / 2);
            self.dropped += LINES_MAX / 2;
        }
        self.lines.push(line);
    }
}

/// The line without characters that would act on a terminal: a guest may print anything.
fn printable(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes)
        .chars()
        .map(|c| if c.is_control() && c != '\t' { '\u{fffd}' } else { c })
        .collect()
}
