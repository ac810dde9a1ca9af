//! Ctrl-C: asks the running command to stop, so that it gives back memory, huge pages and the terminal.

use crate::terminal;
use cloner::pool::hugepages;
use cloner::progress::Cancel;

static INTERRUPTED: Cancel = Cancel::new();

/// Catches SIGINT, SIGTERM and SIGHUP from here on. The second signal ends the process at once.
///
/// # Errors
/// If the signal handlers or the thread that serves them cannot be set up.
pub fn install() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        if INTERRUPTED.is_cancelled() {
            end_at_once();
        }
        INTERRUPTED.cancel();
    })
}

/// Whether the user has asked to stop.
pub fn requested() -> bool {
    INTERRUPTED.is_cancelled()
}

/// What Ctrl-C cancels: every operation that is given it, also those that begin after Ctrl-C was pressed.
pub fn cancel() -> &'static Cancel {
    &INTERRUPTED
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
