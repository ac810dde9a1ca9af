//! A file of the faulty folder, and what a crash leaves of it.

use super::Random;

const SECTOR_BYTES: usize = 512;

/// A file, no matter which name it has.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// The content that a reader finds.
    pub(super) bytes: Vec<u8>,
    /// The content at the last sync.
    pub(super) durable: Vec<u8>,
    /// The changes since the last sync.
    pub(super) pending: Vec<Pending>,
    /// Number of [`FaultyFile`](super::FaultyFile)s that refer to this.
    pub(super) handles: usize,
}

/// A change that has not been followed by a sync.
#[derive(Debug, Clone)]
pub(super) enum Pending {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

impl Pending {
    pub(super) fn apply(&self, to: &mut Vec<u8>) {
        match self {
            Self::Write { offset, bytes } => {
                if to.len() < offset + bytes.len() {
                    to.resize(offset + bytes.len(), 0);
                }
                to[*offset..offset + bytes.len()].copy_from_slice(bytes);
            }
            Self::SetLen(len) => to.resize(*len, 0),
        }
    }
}

impl Inode {
    /// The durable bytes, and those of the pending changes that chance lets through.
    pub(super) fn survivors(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for pending in &self.pending {
            match (random.below(4), pending) {
                (0, _) => {}
                (1, Pending::Write { offset, bytes: written }) => {
                    // The write is torn: each sector survives or not on its own.
                    for (number, sector) in written.chunks(SECTOR_BYTES).enumerate() {
                        if random.one_in(2) {
                            let offset = offset + number * SECTOR_BYTES;
                            Pending::Write { offset, bytes: sector.to_vec() }.apply(&mut bytes);
                        }
                    }
                }
                _ => pending.apply(&mut bytes),
            }
        }
        bytes
    }
}
