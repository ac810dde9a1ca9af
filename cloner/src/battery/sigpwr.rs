//! The signal SIGPWR, which power daemons send to init and init passes on.
//!
//! The signal alone says that something has changed. What has changed is in a file of one letter, according to sysvinit's protocol:
//! `F` if the mains have failed, `L` if they have failed and the battery is low, `O` if they are back. If there is no such file,
//! the signal means that the mains have failed, and no signal tells that they are back.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use signal_hook::SigId;
use signal_hook::low_level::unregister;

use super::source::{Charge, Mains, PowerReading, PowerSource, SourceError};

/// `SIGPWR` on x86 and ARM.
const SIGPWR: i32 = libc::SIGPWR;

/// Paths of the files in which init's power daemons leave their letter.
pub const STATUS_FILES: [&str; 2] = ["/run/powerstatus", "/etc/powerstatus"];

/// Catches SIGPWR for as long as this value lives.
#[derive(Debug)]
pub struct SigpwrSource {
    arrived: Arc<AtomicBool>,
    handler: SigId,
    files: Vec<PathBuf>,
    last: PowerReading,
}

const PRESENT: PowerReading = PowerReading { mains: Mains::Present, charge: Charge::Unknown, low: false };
const FAILED: PowerReading = PowerReading { mains: Mains::Failed, charge: Charge::Unknown, low: false };

impl SigpwrSource {
    /// Catches the signal from here on, and looks for its letter in the first of `files` that can be read;
    /// [`STATUS_FILES`] are the usual ones.
    ///
    /// # Errors
    /// [`SourceError::Signal`] if the kernel refuses the signal handler.
    pub fn new(files: impl IntoIterator<Item = PathBuf>) -> Result<Self, SourceError> {
        let arrived = Arc::new(AtomicBool::new(false));
        let handler =
            signal_hook::flag::register(SIGPWR, Arc::clone(&arrived)).map_err(SourceError::Signal)?;
        Ok(Self { arrived, handler, files: files.into_iter().collect(), last: PRESENT })
    }

    fn letter(&self) -> Option<u8> {
        self.files.iter().find_map(|file| fs::read(file).ok()?.first().copied())
    }
}

impl PowerSource for SigpwrSource {
    fn read(&mut self) -> Result<PowerReading, SourceError> {
        if self.arrived.swap(false, Ordering::Relaxed) {
            self.last = match self.letter() {
                Some(b'O') => PRESENT,
                Some(b'L') => PowerReading { low: true, ..FAILED },
                _ => FAILED,
            };
        }
        Ok(self.last)
    }

    fn name(&self) -> String {
        String::from("SIGPWR")
    }
}

impl Drop for SigpwrSource {
    fn drop(&mut self) {
        unregister(self.handler);
    }
}
