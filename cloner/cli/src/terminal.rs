//! The terminal as a guest's console: every key goes to the guest, except Ctrl-A x, which leaves.

use std::fs::File;
use std::io::{self, IsTerminal, Read};
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};

use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};

const CTRL_A: u8 = 1;

/// The terminal's settings before they were changed. They are here and not in [`RawMode`], so that a process that ends at once
/// can restore them as well.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// Restores the terminal when dropped.
pub(super) struct RawMode(());

impl RawMode {
    /// Switches to raw mode if standard input is a terminal; otherwise returns `None`.
    ///
    /// # Errors
    /// If the terminal's settings cannot be read or changed.
    pub(super) fn enter() -> io::Result<Option<Self>> {
        if !io::stdin().is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.local_modes &= !(LocalModes::ICANON | LocalModes::ECHO | LocalModes::ISIG);
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self(())))
    }
}

impl Drop for RawMode {
    fn drop(&mut self) {
        restore();
    }
}

/// Restores the terminal's last settings, if they were changed.
pub(super) fn restore() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(before) = before
        && let Err(error) = tcsetattr(io::stdin(), OptionalActions::Now, &before)
    {
        tracing::error!(%error, "cannot restore the terminal: try `stty sane`");
    }
}

/// Standard input, read past the standard library's buffer and lock: a thread may be blocked in here for ever while
/// another one restores the terminal.
///
/// # Errors
/// If standard input is closed or cannot be duplicated.
pub(super) fn input() -> io::Result<File> {
    Ok(File::from(io::stdin().as_fd().try_clone_to_owned()?))
}

/// What to do with typed bytes.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct TypedInput {
    /// The bytes for the guest.
    pub(super) bytes: Vec<u8>,
    /// Whether the user wants to leave.
    pub(super) leave: bool,
}

/// Finds Ctrl-A x in typed bytes; Ctrl-A twice sends one Ctrl-A.
#[derive(Debug, Default)]
pub(super) struct EscapeFilter {
    pending: bool,
}

impl EscapeFilter {
    pub(super) fn filter(&mut self, typed: &[u8]) -> TypedInput {
        let mut bytes = Vec::with_capacity(typed.len());
        for &byte in typed {
            match (self.pending, byte) {
                (true, b'x' | b'X') => return TypedInput { bytes, leave: true },
                (false, CTRL_A) => self.pending = true,
                (true, CTRL_A) => {
                    self.pending = false;
                    bytes.push(CTRL_A);
                }
                (true, _) => {
                    self.pending = false;
                    bytes.extend([CTRL_A, byte]);
                }
                (false, _) => bytes.push(byte),
            }
        }
        TypedInput { bytes, leave: false }
    }
}

/// Reads the bytes that are available, and waits if there are none yet; an empty result is the end of input.
///
/// # Errors
/// If reading fails; an interrupted read is repeated.
pub(super) fn read(input: &mut impl Read) -> io::Result<Vec<u8>> {
    let mut buffer = [0; 256];
    loop {
        match input.read(&mut buffer) {
            Ok(len) => return Ok(buffer[..len].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_ctrl_a_x_leaves() {
        let mut escape = EscapeFilter::default();
        let all = |bytes: &[u8]| TypedInput { bytes: bytes.to_vec(), leave: false };
        assert_eq!(escape.filter(b"xyz"), all(b"xyz"));
        assert_eq!(escape.filter(b"a\x01"), all(b"a"));
        assert_eq!(escape.filter(b"bx"), all(b"\x01bx"));
        assert_eq!(escape.filter(b"\x01\x01x"), all(b"\x01x"));
        assert_eq!(escape.filter(b"q\x01xr"), TypedInput { bytes: b"q".to_vec(), leave: true });
    }
}
