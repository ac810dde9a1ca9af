//! Loads any bytes as a kernel, and as an initramfs beside it, into memory without KVM. The result must be an error, or an entry point in
//! the guest's memory above the boot structures.
#![no_main]

use std::borrow::Cow;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;

use cloner_fuzz::input::Input;
use libfuzzer_sys::fuzz_target;
use vmm::boot::load_without_kvm;
use vmm::config::Kernel;
use vmm::memory::layout::{COMMAND_LINE_MAX_BYTES, HIGH_MEMORY_ADDRESS, Layout};
use vmm::memory::{Backing, GuestMemory, PageSize, memfd};

struct Bench {
    memory: GuestMemory,
    kernel: File,
    initramfs: File,
}

thread_local! {
    // Memory is kept from kernel to kernel: what one leaves there means nothing to the next.
    static BENCH: Bench = {
        let layout = Layout::new(16 << 20).expect("a possible size");
        let file = || memfd::create(c"kernel", 0, false).expect("there is memory");
        Bench {
            memory: GuestMemory::new(layout, Backing::Private(PageSize::Base)).expect("there is memory"),
            kernel: file(),
            initramfs: file(),
        }
    };
}

fuzz_target!(|bytes: &[u8]| BENCH.with(|bench| load(bench, Input(bytes))));

fn load(Bench { memory, kernel, initramfs }: &Bench, mut input: Input<'_>) {
    let (kind, cmdline, initramfs_bytes) = (input.byte(), input.text(), input.part());
    let written = |file: &File, bytes: &[u8]| {
        file.set_len(0).and_then(|()| file.write_all_at(bytes, 0)).expect("there is memory");
        PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
    };
    let asked = match kind & 1 {
        0 => Kernel::Linux {
            path: written(kernel, input.0),
            initramfs: (kind & 2 != 0).then(|| written(initramfs, initramfs_bytes)),
            cmdline,
        },
        _ => Kernel::Flat { image: Cow::Owned(input.0.to_vec()) },
    };
    let is_linux = matches!(asked, Kernel::Linux { .. });
    if let Ok(entry) = load_without_kvm(&asked, memory, 1 + kind % 16) {
        assert!(entry < memory.layout().low_bytes());
        assert!(!is_linux || entry >= HIGH_MEMORY_ADDRESS, "{entry:#x} is among the boot structures");
        if let Kernel::Linux { cmdline, .. } = &asked {
            assert!(cmdline.trim().len() < COMMAND_LINE_MAX_BYTES);
        }
    }
}
