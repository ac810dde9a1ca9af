//! The status block of a running guest, which the host reads from and writes to.

use super::Error;
use super::layout::{MAX_CPUS, STATUS, offset, status as field};

/// The magic number, which is the first field of a status block.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"PULSE-01");

/// The status block, at guest-physical [`STATUS`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// Generation of the clone, written by the host before the clone runs: 0 in a guest that was booted.
    pub generation: u64,
    /// Id of the clone, written by the host together with the generation.
    pub unique_id: u128,
    /// The nonce of the parameters.
    pub nonce: u64,
    /// Number of filled pages.
    pub touched_pages: u64,
    /// Checksum of the filled memory: at first the one that the ready line announced, then that of the last `s` command.
    pub sum: u64,
    /// Number of beats so far.
    pub beats: u64,
    /// One entry per vCPU of the guest.
    pub cpus: Vec<CpuStatus>,
}

/// What one vCPU has done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CpuStatus {
    /// Number of pieces of work: beats, dirtied pages and full rounds of the self-test.
    pub counter: u64,
    /// Number of pages dirtied, each counted as often as it was written: the number of the last write that is finished.
    pub sequence: u64,
    /// Number of full rounds of the self-test.
    pub rounds: u64,
    /// Number of failures of the self-test.
    pub failures: u64,
}

impl Status {
    /// Number of bytes to read at [`STATUS`].
    pub const LEN: usize = field::LEN;
    /// Length of an [identity](Self::identity), in bytes.
    pub const IDENTITY_LEN: usize = 24;
    /// Guest-physical address to write an [identity](Self::identity) to.
    pub const IDENTITY: u64 = field::GENERATION;

    /// Reads a status block.
    ///
    /// # Errors
    /// [`Error::NoStatus`] if the memory is not that of a `pulse` that has already written its status block.
    pub fn from_bytes(bytes: &[u8; Self::LEN]) -> Result<Self, Error> {
        let word = |address: u64| {
            let at = offset(address, STATUS);
            u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
        };
        let magic = word(field::MAGIC);
        let cpus = word(field::CPUS);
        if magic != MAGIC || cpus > MAX_CPUS {
            return Err(Error::NoStatus { magic, cpus });
        }
        let cpu = |index| {
            let start = field::CPU + index * field::CPU_LEN;
            CpuStatus {
                counter: word(start + field::CPU_COUNTER),
                sequence: word(start + field::CPU_SEQUENCE),
                rounds: word(start + field::CPU_ROUNDS),
                failures: word(start + field::CPU_FAILURES),
            }
        };
        Ok(Self {
            generation: word(field::GENERATION),
            unique_id: u128::from(word(field::UNIQUE_ID)) | u128::from(word(field::UNIQUE_ID + 8)) << 64,
            nonce: word(field::NONCE),
            touched_pages: word(field::TOUCHED_PAGES),
            sum: word(field::SUM),
            beats: word(field::BEATS),
            cpus: (0..cpus).map(cpu).collect(),
        })
    }

    /// The bytes to write at [`Self::IDENTITY`] of a clone, as crate `vmm` does. The clone announces itself as soon as it wakes up.
    #[must_use]
    pub fn identity(generation: u64, unique_id: u128) -> [u8; Self::IDENTITY_LEN] {
        let mut bytes = [0; Self::IDENTITY_LEN];
        bytes[..8].copy_from_slice(&generation.to_le_bytes());
        bytes[8..].copy_from_slice(&unique_id.to_le_bytes());
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(magic: u64, cpus: u64) -> [u8; Status::LEN] {
        let mut bytes = [0; Status::LEN];
        for (address, value) in [(field::MAGIC, magic), (field::CPUS, cpus)] {
            let at = offset(address, STATUS);
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
        }
        bytes
    }

    #[test]
    fn foreign_memory_is_no_status() {
        assert_eq!(Status::from_bytes(&block(0, 1)), Err(Error::NoStatus { magic: 0, cpus: 1 }));
        assert_eq!(Status::from_bytes(&block(MAGIC, 17)), Err(Error::NoStatus { magic: MAGIC, cpus: 17 }));
        assert_eq!(Status::from_bytes(&block(MAGIC, 16)).map(|status| status.cpus.len()), Ok(16));
    }

    #[test]
    fn an_identity_is_read_back() {
        let mut bytes = block(MAGIC, 1);
        let at = offset(Status::IDENTITY, STATUS);
        bytes[at..at + Status::IDENTITY_LEN].copy_from_slice(&Status::identity(5, 0xabc << 80));
        let status = Status::from_bytes(&bytes).unwrap();
        assert_eq!((status.generation, status.unique_id), (5, 0xabc << 80));
    }
}
