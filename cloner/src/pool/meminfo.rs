//! How much memory the host could still give, and how much this process already has.

use std::fs;
use std::io;

use super::Error;

const HOST: &str = "/proc/meminfo";
const PROCESS: &str = "/proc/self/status";

/// Bytes that the host can hand out without swapping, by the kernel's own estimate (`MemAvailable`).
pub(crate) fn available_bytes() -> Result<usize, Error> {
    let text = fs::read_to_string(HOST).map_err(|source| Error::setting(HOST, source))?;
    bytes_of("MemAvailable:", &text).ok_or_else(|| Error::setting(HOST, io::ErrorKind::InvalidData.into()))
}

/// Bytes of memory that this process has written to, or shares with its parent or children until one of them writes: the
/// memory that would exist twice if everything shared were written to.
pub(crate) fn private_bytes() -> Result<usize, Error> {
    let text = fs::read_to_string(PROCESS).map_err(|source| Error::setting(PROCESS, source))?;
    private_in(&text).ok_or_else(|| Error::setting(PROCESS, io::ErrorKind::InvalidData.into()))
}

/// Size in bytes of the huge pages that `vm.nr_hugepages` counts. `None` if the host does not say.
pub(super) fn huge_page_bytes() -> Option<usize> {
    bytes_of("Hugepagesize:", &fs::read_to_string(HOST).ok()?)
}

fn private_in(text: &str) -> Option<usize> {
    let anonymous = bytes_of("RssAnon:", text)?.checked_add(bytes_of("VmSwap:", text)?)?;
    // Kernels without hugetlb do not have this line.
    anonymous.checked_add(bytes_of("HugetlbPages:", text).unwrap_or(0))
}

fn bytes_of(name: &str, text: &str) -> Option<usize> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    let kib: usize = line.trim().strip_suffix(" kB")?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_found_and_anything_else_is_not_a_number() {
        let available_in = |text| bytes_of("MemAvailable:", text);
        assert_eq!(available_in("MemFree:  7 kB\nMemAvailable:    24 kB\n"), Some(24 * 1024));
        for text in ["", "MemFree: 7 kB", "MemAvailable: kB", "MemAvailable: 7", "MemAvailable: -7 kB"] {
            assert_eq!(available_in(text), None, "{text:?}");
        }
        assert!(available_bytes().unwrap() > 0);
    }

    #[test]
    fn what_a_process_has_is_its_own_memory_wherever_it_is() {
        let text = "RssAnon:\t 3 kB\nRssFile: 100 kB\nVmSwap: 2 kB\nHugetlbPages: 2048 kB\n";
        assert_eq!(private_in(text), Some(2053 * 1024));
        assert_eq!(private_in("RssAnon: 3 kB\nVmSwap: 2 kB\n"), Some(5 * 1024));
        assert_eq!(private_in("RssAnon: 3 kB\n"), None);
        let memory = std::hint::black_box(vec![1_u8; 16 << 20]);
        assert!(private_bytes().unwrap() > memory.len() / 2);
    }
}
