//! Huge pages: those that are set aside, and those that the kernel makes by itself.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::text;

const HUGE_PAGES: &str = "/sys/kernel/mm/hugepages";
const TRANSPARENT: &str = "/sys/kernel/mm/transparent_hugepage";

/// Huge pages of one size.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HugePagePool {
    /// Size of each page, in bytes.
    pub page_bytes: u64,
    /// Number of pages set aside, in use or not.
    pub total: u64,
    /// Number of pages that are not in use. Some may be promised to a mapping that has not touched them yet.
    pub free: u64,
    /// Number of free pages that are promised.
    pub promised: u64,
    /// Whether this process may set more pages aside.
    pub may_set_aside: bool,
    /// Path of the file that holds the number of pages set aside.
    pub setting: String,
}

impl HugePagePool {
    /// Number of pages that a new mapping could get now.
    #[must_use]
    pub const fn available(&self) -> u64 {
        self.free.saturating_sub(self.promised)
    }

    /// The pools of every page size that this kernel has, smallest first.
    #[must_use]
    pub fn all() -> Vec<Self> {
        Self::all_below(Path::new(HUGE_PAGES))
    }

    fn all_below(folder: &Path) -> Vec<Self> {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut pools: Vec<Self> = entries.filter_map(|entry| Self::of(&entry.path())).collect();
        pools.sort_by_key(|pool| pool.page_bytes);
        pools
    }

    fn of(folder: &Path) -> Option<Self> {
        let kib: u64 =
            folder.file_name()?.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        let setting: PathBuf = folder.join("nr_hugepages");
        Some(Self {
            page_bytes: kib.checked_mul(1024)?,
            total: text::number(&setting)?,
            free: text::number(folder.join("free_hugepages"))?,
            promised: text::number(folder.join("resv_hugepages")).unwrap_or(0),
            // Opening alone changes nothing, and it fails on read-only file systems as well.
            may_set_aside: OpenOptions::new().write(true).open(&setting).is_ok(),
            setting: setting.display().to_string(),
        })
    }
}

/// When the kernel makes huge pages by itself: `always`, `advise` or `madvise` (where a program says that they pay off), `never`.
/// `None` if it cannot make any.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct TransparentHugePages {
    /// The setting for private memory.
    pub private: Option<String>,
    /// The setting for shared memory, such as a memfd.
    pub shared: Option<String>,
}

impl TransparentHugePages {
    /// Reads the settings from `/sys`.
    #[must_use]
    pub fn read() -> Self {
        let setting = |file| {
            let text = text::of(format!("{TRANSPARENT}/{file}"))?;
            text::chosen(&text).map(str::to_owned)
        };
        Self { private: setting("enabled"), shared: setting("shmem_enabled") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_found_and_nothing_else() {
        let folder = std::env::temp_dir().join(format!("vmm-pages-{}", std::process::id()));
        for (name, total) in [("hugepages-1048576kB", "1"), ("hugepages-2048kB", "7"), ("other", "9")] {
            let folder = folder.join(name);
            fs::create_dir_all(&folder).unwrap();
            for (file, text) in [("nr_hugepages", total), ("free_hugepages", "3\n"), ("resv_hugepages", "1")]
            {
                fs::write(folder.join(file), text).unwrap();
            }
        }
        let pools = HugePagePool::all_below(&folder);
        fs::remove_dir_all(&folder).unwrap();
        let sizes: Vec<_> =
            pools.iter().map(|pool| (pool.page_bytes, pool.total, pool.available())).collect();
        assert_eq!(sizes, [(2 << 20, 7, 2), (1 << 30, 1, 2)]);
        assert!(pools.iter().all(|pool| pool.may_set_aside));
        assert_eq!(HugePagePool::all_below(&folder), []);
    }
}
