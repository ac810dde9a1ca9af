//! Kernels that can hardly boot on a host that emulates the guest's ring 0.

use std::io::{self, Write};
use std::path::Path;

use vmm::boot;
use vmm::host::Virtualization;

/// Warns before a compressed kernel is booted on such a host, because it would print nothing for many minutes.
pub(super) fn warn_if_compressed(kernel: &Path) {
    if Virtualization::detect() == Virtualization::PageTableBased && boot::is_compressed(kernel) {
        // If standard error is closed, there is no way to warn.
        let _ = writeln!(
            io::stderr(),
            "cloner: this host emulates the guest's ring 0: a compressed kernel unpacks for many minutes here, and a stock one will \
             likely not get far; use an uncompressed ELF vmlinux built like that of `cloner demo --linux` (README.md, Hosts)"
        );
    }
}
