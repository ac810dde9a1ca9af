//! Kernels that a host which emulates the guest's ring 0 can hardly boot.

use std::io::{self, Write};
use std::path::Path;

use vmm::boot;
use vmm::host::Virtualization;

/// Says so before a compressed kernel is booted on such a host, where nothing would show for many minutes.
pub(super) fn warn_if_compressed(kernel: &Path) {
    if Virtualization::detect() == Virtualization::PageTableBased && boot::is_compressed(kernel) {
        // Without standard error there is nobody to tell.
        let _ = writeln!(
            io::stderr(),
            "cloner: this host emulates the guest's ring 0: a compressed kernel unpacks for many minutes here, and a stock one will \
             likely not get far; use an uncompressed ELF vmlinux built like that of `cloner demo --linux` (README.md, Hosts)"
        );
    }
}
