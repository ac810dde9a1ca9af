//! The host's memory, and the kernel's rules for handing it out.

use serde::Serialize;

use super::{cgroup, text};

/// Memory of the whole host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct HostMemory {
    /// All memory, used or not (`MemTotal`), in bytes.
    pub total_bytes: Option<u64>,
    /// Memory that can be handed out without swapping, as the kernel estimates it (`MemAvailable`), in bytes.
    pub available_bytes: Option<u64>,
    /// Size of all swap areas together, in bytes.
    pub swap_bytes: Option<u64>,
    /// `vm.overcommit_memory`: 0 refuses what is obviously too much, 1 refuses nothing, 2 refuses everything beyond a limit.
    pub overcommit: Option<u32>,
    /// The most that may be promised if `vm.overcommit_memory` is 2 (`CommitLimit`), in bytes.
    pub commit_limit_bytes: Option<u64>,
    /// How much is promised (`Committed_AS`), in bytes.
    pub committed_bytes: Option<u64>,
    /// Size in bytes of the huge pages that `vm.nr_hugepages` counts.
    pub huge_page_bytes: Option<u64>,
    /// `vm.max_map_count`: the most mappings that one process may have.
    pub max_mappings: Option<u64>,
}

impl HostMemory {
    /// Reads the facts from `/proc`.
    #[must_use]
    pub fn read() -> Self {
        Self {
            overcommit: text::number("/proc/sys/vm/overcommit_memory"),
            max_mappings: text::number("/proc/sys/vm/max_map_count"),
            ..Self::parse(&text::of("/proc/meminfo").unwrap_or_default())
        }
    }

    fn parse(meminfo: &str) -> Self {
        let bytes = |name| text::kib_field(meminfo, name);
        Self {
            total_bytes: bytes("MemTotal"),
            available_bytes: bytes("MemAvailable"),
            swap_bytes: bytes("SwapTotal"),
            commit_limit_bytes: bytes("CommitLimit"),
            committed_bytes: bytes("Committed_AS"),
            huge_page_bytes: bytes("Hugepagesize"),
            ..Self::default()
        }
    }
}

/// Bytes of memory that this host has. A guest cannot have more.
#[must_use]
pub fn host_total_bytes() -> u64 {
    let info = rustix::system::sysinfo();
    info.totalram * u64::from(info.mem_unit)
}

/// Bytes that the host can hand out without swapping (`MemAvailable`). `None` if the kernel does not say.
#[must_use]
pub fn host_available_bytes() -> Option<u64> {
    HostMemory::parse(&text::of("/proc/meminfo")?).available_bytes
}

/// Bytes that this process can still be given without swapping: what the host has left, or what its control groups leave of it.
/// `None` if the kernel does not say.
#[must_use]
pub fn available_bytes() -> Option<u64> {
    let host = host_available_bytes()?;
    Some(cgroup::memory_limit().map_or(host, |limit| limit.room().min(host)))
}

/// Bytes of memory that this process has written to, or shares with its parent or children until one of them writes: all that
/// would exist twice if everything shared were written to. `None` if the kernel does not say.
#[must_use]
pub fn private_bytes() -> Option<u64> {
    private_in(&text::of("/proc/self/status")?)
}

fn private_in(status: &str) -> Option<u64> {
    let bytes = |name| text::kib_field(status, name);
    // Kernels without hugetlb have no such line.
    bytes("RssAnon")?.checked_add(bytes("VmSwap")?)?.checked_add(bytes("HugetlbPages").unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read_in_bytes() {
        let memory = HostMemory::parse("MemTotal: 10 kB\nMemAvailable:   4 kB\nSwapTotal: 0 kB\n");
        assert_eq!(memory.total_bytes, Some(10 << 10));
        assert_eq!(memory.available_bytes, Some(4 << 10));
        assert_eq!(memory.swap_bytes, Some(0));
        assert_eq!(memory.commit_limit_bytes, None);
        assert!(HostMemory::read().available_bytes.is_some_and(|bytes| bytes > 0));
    }

    #[test]
    fn what_a_process_has_is_its_own_memory_wherever_it_is() {
        let text = "RssAnon:\t 3 kB\nRssFile: 100 kB\nVmSwap: 2 kB\nHugetlbPages: 2048 kB\n";
        assert_eq!(private_in(text), Some(2053 * 1024));
        assert_eq!(private_in("RssAnon: 3 kB\nVmSwap: 2 kB\n"), Some(5 * 1024));
        assert_eq!(private_in("RssAnon: 3 kB\n"), None);
        let memory = std::hint::black_box(vec![1_u8; 16 << 20]);
        assert!(private_bytes().unwrap() > memory.len() as u64 / 2);
        assert!(available_bytes().unwrap() <= HostMemory::read().total_bytes.unwrap());
    }
}
