//! What a file is, and what of it a crash leaves.

use super::Random;

const SECTOR_BYTES: usize = 512;

/// A file, whatever its names are.
#[derive(Debug, Clone, Default)]
pub(super) struct Inode {
    /// What a reader finds.
    pub(super) bytes: Vec<u8>,
    /// What there was at the last sync.
    pub(super) durable: Vec<u8>,
    /// What was done since.
    pub(super) pending: Vec<Pending>,
}

/// A change that no sync has followed.
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
    /// The durable bytes, and of the others what chance lets through.
    pub(super) fn survivors(&self, random: &mut Random) -> Vec<u8> {
        let mut bytes = self.durable.clone();
        for pending in &self.pending {
            match (random.below(4), pending) {
                (0, _) => {}
                (1, Pending::Write { offset, bytes: written }) => {
                    // Torn: each sector on its own.
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
