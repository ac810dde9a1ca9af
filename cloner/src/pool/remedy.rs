//! What to do about a shortage of huge pages.

use vmm::host::memory::HostMemory;
use vmm::memory::HUGE_PAGE_SIZE;

/// The kernel's count of reserved huge pages of 2 MiB.
pub const SETTING: &str = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages";

/// The command that has root set aside so many huge pages in all, in backquotes.
pub(super) fn command(pages: usize) -> String {
    // The shorter command is for the size that this host takes for its own.
    if HostMemory::read().huge_page_bytes == Some(HUGE_PAGE_SIZE as u64) {
        return format!("`sysctl vm.nr_hugepages={pages}`");
    }
    format!("`echo {pages} > {SETTING}`")
}
