//! Collects what a guest writes on its console, line by line, and waits for lines.

use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use vmm::devices::serial::ConsoleOutput;

/// A line that the guest has ended, without its CR LF.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// When the guest ended it.
    pub at: Instant,
    /// The line, without what ends it.
    pub text: String,
}

/// A guest's console: collects lines, and reads them forward as a person would.
#[derive(Debug)]
pub struct Console {
    collected: Arc<Collected>,
    /// Number of lines that were read.
    read: Mutex<usize>,
    patience: Duration,
}

#[derive(Debug, Default)]
struct Collected {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<Line>,
    unfinished: Vec<u8>,
}

struct Writer(Arc<Collected>);

impl Console {
    /// Makes a console, and the end of it that a VM writes to. Waiting for a line fails after `patience`.
    pub fn new(patience: Duration) -> (Self, ConsoleOutput) {
        let collected = Arc::<Collected>::default();
        let console = Self { collected: Arc::clone(&collected), read: Mutex::new(0), patience };
        (console, Box::new(Writer(collected)))
    }

    /// Waits for the next unread line that starts with `start`; lines before it then count as read.
    #[track_caller]
    pub fn line(&self, start: &str) -> Line {
        self.find(|line| line.starts_with(start)).unwrap_or_else(|| {
            panic!("no line starts with {start:?} within {:?}:\n{}", self.patience, self.transcript())
        })
    }

    /// All lines so far, read or not.
    pub fn lines(&self) -> Vec<Line> {
        self.collected.lock().lines.clone()
    }

    /// Everything the guest has written, including the unfinished line.
    pub fn transcript(&self) -> String {
        let state = self.collected.lock();
        let mut text: String = state.lines.iter().flat_map(|line| [line.text.as_str(), "\n"]).collect();
        text.push_str(&String::from_utf8_lossy(&state.unfinished));
        text
    }

    fn find(&self, matches: impl Fn(&str) -> bool) -> Option<Line> {
        let deadline = Instant::now() + self.patience;
        let mut read = self.read.lock().unwrap();
        let mut state = self.collected.lock();
        loop {
            while let Some(line) = state.lines.get(*read) {
                *read += 1;
                if matches(&line.text) {
                    return Some(line.clone());
                }
            }
            let left = deadline.checked_duration_since(Instant::now())?;
            state = self.collected.changed.wait_timeout(state, left).unwrap().0;
        }
    }
}

/// The number in `radix` that follows `key=` in a line from a guest.
#[track_caller]
#[must_use]
pub fn value(line: &str, key: &str, radix: u32) -> u64 {
    line.split_whitespace()
        .find_map(|word| word.strip_prefix(key)?.strip_prefix('='))
        .and_then(|digits| u64::from_str_radix(digits, radix).ok())
        .unwrap_or_else(|| panic!("no {key}= in {line:?}"))
}

impl Collected {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl Write for Writer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        for &byte in bytes {
            match byte {
                b'\n' => {
                    let text = String::from_utf8_lossy(&state.unfinished).trim_end_matches('\r').to_owned();
                    state.unfinished.clear();
                    state.lines.push(Line { at: Instant::now(), text });
                    self.0.changed.notify_all();
                }
                _ => state.unfinished.push(byte),
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
