//! Ctrl-C: asks the running command to stop, so that it gives back memory, huge pages and the terminal.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};

use crate::terminal;
use cloner::pool::hugepages;
use cloner::walk::Progress;

static INTERRUPTED: AtomicBool = AtomicBool::new(false);
static RUNNING: OnceLock<Mutex<Weak<Progress>>> = OnceLock::new();

/// Catches SIGINT, SIGTERM and SIGHUP from here on. The second signal ends the process at once.
///
/// # Errors
/// If the signal handlers or the thread that serves them cannot be set up.
pub fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.swap(true, Ordering::Relaxed) {
            end_at_once();
        }
        if let Some(progress) = running().lock().unwrap_or_else(PoisonError::into_inner).upgrade() {
            progress.cancel();
        }
    })
}

/// Whether the user has asked to stop.
pub fn requested() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// A progress that Ctrl-C cancels; it is already cancelled if Ctrl-C was pressed before.
pub fn progress() -> Arc<Progress> {
    let progress = Arc::new(Progress::default());
    *running().lock().unwrap_or_else(PoisonError::into_inner) = Arc::downgrade(&progress);
    if requested() {
        progress.cancel();
    }
    progress
}

/// Ends the process whatever it is doing, but first restores what the kernel would not.
#[expect(
    clippy::exit,
    reason = "the user has asked twice; all else that this process held is freed by the kernel"
)]
fn end_at_once() {
    terminal::restore();
    if let Err(error) = hugepages::give_back_for_ever() {
        tracing::error!(%error, "huge pages stay set aside");
    }
    std::process::exit(crate::exit_code::EXIT_INTERRUPTED.into());
}

fn running() -> &'static Mutex<Weak<Progress>> {
    RUNNING.get_or_init(Mutex::default)
}
