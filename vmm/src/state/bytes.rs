//! A VM's state as bytes: JSON in an envelope.

use super::{Error, VmState, VmStateV2};
use crate::schema::envelope::{self, Schema};

const VM_STATE: Schema = Schema { magic: *b"CLNVMST\0", version: 2, name: "VM state" };

/// Why bytes are not the saved state of a VM.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// They are not an intact envelope that holds text of this schema.
    #[error(transparent)]
    Envelope(#[from] envelope::Error),
    /// A field has an impossible value.
    #[error("a field of the VM state has an impossible value")]
    Invalid(#[from] Error),
}

impl VmState {
    /// Encodes the state for [`VmState::from_bytes`].
    ///
    /// # Panics
    /// Never: the keys of all maps of the schema are strings.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        VM_STATE.wrap(&serde_json::to_vec(self.get()).expect("plain structs of numbers and strings"))
    }

    /// Decodes a state from bytes, which need not be trusted.
    ///
    /// # Errors
    /// [`DecodeError::Envelope`] if the bytes are foreign, truncated, damaged, of another version, or do not follow the schema;
    /// [`DecodeError::Invalid`] if a field is out of range.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let state: VmStateV2 =
            serde_json::from_slice(VM_STATE.unwrap(bytes)?).map_err(envelope::Error::from)?;
        Ok(Self::try_from(state)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A machine as it was saved when version 2 was fixed. If a build can no longer read it, the schema has changed.
    const GOLDEN: &[u8] = include_bytes!("golden/v2-pulse.vmstate");

    #[test]
    fn the_golden_state_of_version_2_is_read_and_written_again_as_it_was() {
        let state = VmState::from_bytes(GOLDEN).unwrap();
        assert_eq!((state.get().memory_bytes, state.get().vcpus.len()), (1 << 20, 1));
        assert_eq!((state.get().producer.as_str(), state.get().generation), ("vmm 0.1.0", 0));
        assert!(state.to_bytes() == GOLDEN, "the state is written differently from the golden file");
    }
}
