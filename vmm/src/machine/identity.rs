//! The identity of a VM, and how its guest learns it.
//!
//! A clone has all that its source has: the state of its random number generators, its host keys, its session numbers. It can
//! only become different from its source and its siblings if it is told that it is a clone, and which one.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::Vm;
use crate::host::random;
use crate::memory;

/// What tells a VM from all others. Every VM gets one when it is built, and no other VM ever has the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// Number of clonings that led to this VM: 0 if it was booted, otherwise one more than its source's.
    pub generation: u64,
    /// Drawn at random, so that no host ever hands out the same id twice.
    pub id: u128,
}

/// How a guest is told its [`Identity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Announce {
    /// It is not told, and takes itself for its source.
    #[default]
    Never,
    /// The bytes of [`Identity::to_bytes`] are written to its memory.
    InMemory {
        /// Guest-physical address of the first of them.
        address: u64,
    },
    /// The line of [`Identity::to_command`] is typed on its console.
    OnConsole,
}

impl Identity {
    /// Length of an identity in memory, in bytes.
    pub const LEN_BYTES: usize = 24;

    pub(crate) fn new(generation: u64) -> io::Result<Self> {
        Ok(Self { generation, id: u128::from_le_bytes(random::bytes()?) })
    }

    /// The identity as it stands in memory, little-endian: eight bytes of generation, sixteen of id.
    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN_BYTES] {
        let mut bytes = [0; Self::LEN_BYTES];
        bytes[..8].copy_from_slice(&self.generation.to_le_bytes());
        bytes[8..].copy_from_slice(&self.id.to_le_bytes());
        bytes
    }

    /// The line that tells it to a console agent: `clone <generation> <id>`, decimal and 32 hexadecimal digits, and a line feed.
    #[must_use]
    pub fn to_command(&self) -> String {
        format!("clone {} {:032x}\n", self.generation, self.id)
    }

    /// Whether `line` is a console agent's answer. The answer is the command and `reseeded`, so that the command's own echo does
    /// not count as one.
    #[must_use]
    pub fn is_confirmed_by(&self, line: &str) -> bool {
        line.strip_prefix(self.to_command().trim_end()) == Some(" reseeded")
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "generation {}, id {:032x}", self.generation, self.id)
    }
}

impl Vm {
    /// Tells the guest its identity. If this is called before [`Vm::start`], the identity is there before the guest runs.
    ///
    /// # Errors
    /// [`memory::Error::NoMemory`] if there is no memory at the address of [`Announce::InMemory`], [`memory::Error::Lost`] if it
    /// will never arrive.
    pub fn announce(&self, how: Announce) -> Result<(), memory::Error> {
        match how {
            Announce::Never => Ok(()),
            Announce::InMemory { address } => self.memory().write(address, &self.identity().to_bytes()),
            Announce::OnConsole => {
                self.console_input(self.identity().to_command().as_bytes());
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_in_memory_and_on_the_console() {
        let identity = Identity { generation: 0x0102, id: 0xa0 << 120 | 0xb };
        let bytes = identity.to_bytes();
        assert_eq!((&bytes[..3], bytes[8], bytes[23]), (&[2, 1, 0][..], 0xb, 0xa0));
        let command = format!("clone 258 a0{}b", "0".repeat(29));
        assert_eq!(identity.to_command(), format!("{command}\n"));
        assert!(identity.is_confirmed_by(&format!("{command} reseeded")));
        for line in [command.as_str(), "clone 258 reseeded", &format!("error {command} reseeded")] {
            assert!(!identity.is_confirmed_by(line), "{line}");
        }
    }

    #[test]
    fn ids_differ() {
        assert_ne!(Identity::new(1).unwrap().id, Identity::new(1).unwrap().id);
    }
}
