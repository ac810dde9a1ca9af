//! What a chunk became: counted while transcoding, and summed by the caller.

use std::ops::AddAssign;

/// What one chunk, or the sum of many, was transcoded to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ColdStats {
    /// Bytes of the pages, untouched ones included.
    pub page_bytes: u64,
    /// Everything that must be stored: header, map, group table, records, groups.
    pub encoded_bytes: u64,
    /// Number of pages kept in groups.
    pub unique_pages: u64,
    /// Number of groups.
    pub groups: u64,
    /// Number of groups that are stored uncompressed, because zstd would hardly shrink them.
    pub stored_groups: u64,
    /// Bytes of all groups, as stored.
    pub group_bytes: u64,
}

impl ColdStats {
    /// Page bytes per encoded byte.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "a ratio for people")]
        let ratio = self.page_bytes as f64 / self.encoded_bytes as f64;
        ratio
    }
}

impl AddAssign for ColdStats {
    fn add_assign(&mut self, other: Self) {
        let Self { page_bytes, encoded_bytes, unique_pages, groups, stored_groups, group_bytes } = other;
        self.page_bytes += page_bytes;
        self.encoded_bytes += encoded_bytes;
        self.unique_pages += unique_pages;
        self.groups += groups;
        self.stored_groups += stored_groups;
        self.group_bytes += group_bytes;
    }
}
