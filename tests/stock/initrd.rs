//! A distribution's kernel with its own initrd, as both lie in `/boot`.

use std::fs;
use std::path::{Path, PathBuf};

use cloner_testing::stock::{image, room_for_ring_0};
use cloner_testing::{Guest, note};
use guest_images::stock_linux::COMMAND_LINE;
use vmm::config::{Config, Kernel};

use crate::MIB;

/// The newest kernel of this host that has an initrd beside it.
fn of_this_host() -> Option<(PathBuf, PathBuf)> {
    let entries = fs::read_dir("/boot").ok()?;
    let mut kernels: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    kernels.sort();
    kernels.into_iter().rev().find_map(|kernel| {
        let release = kernel.file_name()?.to_str()?.strip_prefix("vmlinuz-")?.to_owned();
        let initrd = Path::new("/boot").join(format!("initrd.img-{release}"));
        initrd.exists().then_some((kernel, initrd))
    })
}

/// The initrd looks for a root file system, finds no disk, and starts a shell, which is as far as it gets while there are no disks.
#[test]
fn ends_in_the_initramfs_shell() {
    let Some(_room) = room_for_ring_0(1) else { return };
    let (kernel, initrd) = of_this_host().unwrap_or_else(|| (image().cloud.clone(), image().initrd.clone()));
    note(format_args!("stock: {} with {}", kernel.display(), initrd.display()));
    // With `panic=` it would reboot instead.
    let cmdline = COMMAND_LINE.replace("panic=-1 ", "");
    assert_ne!(cmdline, COMMAND_LINE);
    let kernel = Kernel::Linux { path: kernel, initramfs: Some(initrd), cmdline };
    let guest = Guest::boot(&Config::new(512 * MIB, kernel));
    // The prompt is not a whole line, so the shell is heard only when it has obeyed.
    guest.line("No root device specified");
    guest.line("Enter 'help'");
    guest.send("echo up $(( 6 * 7 ))\n");
    guest.line("up 42");
    note(format_args!("stock: (initramfs) after {:.1} s", guest.since.elapsed().as_secs_f64()));
    guest.send("ls /sys/block /sys/class/net; uname -r; poweroff -f\n");
    guest.line("lo");
}
