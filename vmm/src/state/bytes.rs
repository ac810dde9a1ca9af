//! A state as bytes: JSON in an envelope.

use super::{Error, VmState, VmStateV1};
use crate::schema::envelope::{self, Schema};

const VM_STATE: Schema = Schema { magic: *b"CLNVMST\0", version: 1, name: "VM state" };

/// Why bytes are not the state of a VM.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are not text of this schema.
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    /// A field is impossible.
    #[error("VM state out of range")]
    Invalid(#[from] Error),
}

impl VmState {
    /// The state as bytes.
    ///
    /// # Panics
    /// Never: the schema has no maps with keys that JSON cannot hold.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        VM_STATE.wrap(&serde_json::to_vec(self.get()).expect("plain structs of numbers and strings"))
    }

    /// A state from bytes, which may come from anybody.
    ///
    /// # Errors
    /// See [`DecodeError`].
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let state: VmStateV1 =
            serde_json::from_slice(VM_STATE.unwrap(bytes)?).map_err(envelope::Error::from)?;
        Ok(Self::try_from(state)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine as it was saved when version 1 was fixed. A build that can no longer read it has changed the schema.
    const GOLDEN: &[u8] = include_bytes!("golden/v1-pulse.vmstate");

    #[test]
    fn the_golden_state_of_version_1_is_read_and_written_again_as_it_was() {
        let state = VmState::from_bytes(GOLDEN).unwrap();
        assert_eq!((state.get().memory_bytes, state.get().vcpus.len()), (1 << 20, 1));
        // From before generations were counted.
        assert_eq!(state.get().generation, 0);
        assert!(state.to_bytes() == GOLDEN, "it is written in another way");
    }
}
