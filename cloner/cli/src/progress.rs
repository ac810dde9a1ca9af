//! Progress bars for people: nothing is shown unless standard error is a terminal.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use cloner::progress::Progress;

/// Operations shorter than this show nothing: a bar that flashes by is of no use.
const PATIENCE: Duration = Duration::from_millis(700);
const INTERVAL: Duration = Duration::from_millis(50);

/// Shows `progress` while `work` runs.
pub fn bar<T>(label: &'static str, progress: &Progress, work: impl FnOnce() -> T) -> T {
    if !std::io::stderr().is_terminal() {
        return work();
    }
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| watch(label, progress, &done));
        let result = work();
        done.store(true, Ordering::Relaxed);
        result
    })
}

fn watch(label: &'static str, progress: &Progress, done: &AtomicBool) {
    let started = Instant::now();
    let mut bar = None;
    while !done.load(Ordering::Relaxed) {
        thread::sleep(INTERVAL);
        if started.elapsed() > PATIENCE {
            let bar = bar.get_or_insert_with(|| {
                let style = "{msg} {bar:30} {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}";
                let style = ProgressStyle::with_template(style).expect("a constant template");
                ProgressBar::new(0).with_style(style).with_message(label)
            });
            bar.set_length(progress.total_bytes());
            bar.set_position(progress.done_bytes());
        }
    }
    if let Some(bar) = bar {
        bar.finish_and_clear();
    }
}

/// Shows that something is going on whose progress is not known.
pub struct Spinner(Option<ProgressBar>);

impl Spinner {
    /// Starts to show `label` and the time that has passed.
    pub fn new(label: String) -> Self {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let style =
                ProgressStyle::with_template("{spinner} {msg} {elapsed}").expect("a constant template");
            let spinner = ProgressBar::new_spinner().with_style(style).with_message(label);
            spinner.enable_steady_tick(Duration::from_millis(100));
            spinner
        });
        Self(spinner)
    }
}

impl Drop for Spinner {
    fn drop(&mut self) {
        if let Some(spinner) = &self.0 {
            spinner.finish_and_clear();
        }
    }
}
