//! Impossible machines: each is refused with an error that names the value and the limit, and leaves nothing behind.

use std::borrow::Cow;
use std::path::{Path, PathBuf};

use cloner_testing::elf::Elf;
use cloner_testing::folder::Folder;
use cloner_testing::host::{self, Holdings};
use cloner_testing::linux::{MEMORY_BYTES, command_line, image};
use cloner_testing::{alone, assert_names, guest, huge_pages, room_for};
use guest_images::pulse::Params;
use vmm::config::{self, Config, Kernel};
use vmm::memory::{self, Backing, PageSize, layout};
use vmm::{Error, Vm, boot};

use crate::{GIB, KIB, MIB};

/// The error for a machine that must not boot.
#[track_caller]
fn refused(config: &Config) -> Error {
    match Vm::boot(config, Box::new(std::io::sink())) {
        Err(error) => error,
        Ok(_) => panic!("boots: {config:?}"),
    }
}

fn pulse() -> Config {
    guest::pulse(&Params::new(1, MIB), 8 * MIB, 1)
}

fn linux(path: &Path) -> Config {
    linux_with(path, None, "quiet")
}

fn linux_with(path: &Path, initramfs: Option<PathBuf>, cmdline: &str) -> Config {
    let kernel = Kernel::Linux { path: path.to_owned(), initramfs, cmdline: cmdline.to_owned() };
    Config::new(8 * MIB, kernel)
}

#[test]
fn vcpus_of_no_machine() {
    let Some(_room) = room_for(0) else { return };
    for vcpus in [0, 17, u8::MAX] {
        let error = refused(&Config { vcpus, ..pulse() });
        assert!(matches!(error, Error::Config(config::Error::Vcpus(found)) if found == vcpus), "{error:?}");
        assert_names(&error, &[&format!("{vcpus} vCPUs"), "1 to 16"]);
    }
}

#[test]
fn memory_of_no_machine() {
    let Some(_room) = room_for(0) else { return };
    use layout::Error::{Odd, TooLarge, TooSmall};
    for memory_bytes in [0, 1, MIB - 4096] {
        let error = refused(&Config { memory_bytes, ..pulse() });
        let expected =
            matches!(error, Error::Config(config::Error::Memory(TooSmall(n))) if n == memory_bytes);
        assert!(expected, "{error:?}");
        assert_names(&error, &[&format!("{memory_bytes} bytes"), "1048576"]);
    }
    for memory_bytes in [64 * GIB + 4096, u64::MAX, u64::MAX - 4095] {
        let error = refused(&Config { memory_bytes, ..pulse() });
        let expected =
            matches!(error, Error::Config(config::Error::Memory(TooLarge(n))) if n == memory_bytes);
        assert!(expected, "{error:?}");
        assert_names(&error, &[&format!("{memory_bytes} bytes"), &(64 * GIB).to_string()]);
    }
    for (memory_bytes, backing, page_bytes) in [
        (MIB + 1, Backing::Private(PageSize::Base), 4096),
        (8 * MIB - 1, Backing::Shared(PageSize::Transparent), 4096),
        (8 * MIB + 4096, Backing::Private(PageSize::Huge), 2 * MIB),
        (7 * MIB, Backing::Shared(PageSize::Huge), 2 * MIB),
    ] {
        let error = refused(&Config { memory_bytes, backing, ..pulse() });
        let Error::Config(config::Error::Memory(odd)) = &error else { panic!("{error:?}") };
        assert_eq!(*odd, Odd { size_bytes: memory_bytes, page_bytes });
        assert_names(&error, &[&format!("{memory_bytes} bytes"), &page_bytes.to_string()]);
    }
}

#[test]
fn more_memory_than_the_host_has() {
    let Some(_room) = room_for(0) else { return };
    let host_bytes = host::memory_bytes();
    let memory_bytes = (host_bytes & !4095) + 2 * MIB;
    let error = refused(&Config { memory_bytes, ..pulse() });
    if memory_bytes > layout::MAX_MEMORY_BYTES {
        assert_names(&error, &[&memory_bytes.to_string(), &layout::MAX_MEMORY_BYTES.to_string()]);
        return;
    }
    let Error::Memory(memory::Error::LargerThanHost { wanted_bytes, host_bytes: limit }) = error else {
        panic!("{error:?}")
    };
    assert_eq!((wanted_bytes, limit), (memory_bytes, host_bytes));
    assert_names(&error, &[&memory_bytes.to_string(), &host_bytes.to_string()]);
}

#[test]
fn too_few_huge_pages() {
    let Some(_room) = room_for(0) else { return };
    let Some(huge) = huge_pages(0) else { return };
    for backing in [Backing::Private(PageSize::Huge), Backing::Shared(PageSize::Huge)] {
        let error = refused(&Config { memory_bytes: 8 * MIB, backing, ..pulse() });
        let Error::Memory(memory::Error::TooFewHugePages { wanted: 4, free: 0 }) = error else {
            panic!("{error:?}")
        };
        assert_names(&error, &["4 free 2 MiB pages", "0 are free", "nr_hugepages"]);
    }
    huge.assert_all_back();
}

#[test]
fn a_kernel_that_cannot_be_read() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    for (path, why) in [
        (folder.path().join("missing"), "No such file"),
        (folder.path().to_owned(), "not an ordinary file"),
        (PathBuf::from("/dev/zero"), "not an ordinary file"),
    ] {
        let error = refused(&linux(&path));
        let Error::Boot(boot::Error::Read { what: "kernel", .. }) = error else { panic!("{error:?}") };
        assert_names(&error, &[path.to_str().unwrap(), why]);
    }
}

#[test]
fn a_kernel_that_is_none() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    for (name, content) in [("empty", vec![]), ("text", b"hello".to_vec()), ("zeros", vec![0; 4096])] {
        let path = folder.file(name, &content);
        let error = refused(&linux(&path));
        let Error::Boot(boot::Error::UnknownFormat { len_bytes, .. }) = error else { panic!("{error:?}") };
        assert_eq!(len_bytes, content.len() as u64);
        assert_names(&error, &[path.to_str().unwrap(), &format!("{len_bytes} bytes"), "ELF", "bzImage"]);
    }
}

/// The undamaged version of the kernel that the next tests damage does boot.
#[test]
fn a_small_elf_kernel_boots() {
    let Some(_room) = room_for(1) else { return };
    let folder = Folder::new();
    let path = folder.file("vmlinux", &Elf::small().bytes());
    let vm = Vm::boot(&linux(&path), Box::new(std::io::sink())).unwrap();
    vm.start();
    assert_eq!(vm.ending(), None);
}

#[test]
fn a_kernel_cut_at_any_byte() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    let whole = Elf::small().bytes();
    for len in 0..whole.len() {
        let error = refused(&linux(&folder.file("vmlinux", &whole[..len])));
        let refused =
            matches!(error, Error::Boot(boot::Error::UnknownFormat { .. } | boot::Error::Load { .. }));
        assert!(refused, "{len} of {} bytes: {error:?}", whole.len());
        assert_names(&error, &[&format!("{len} bytes")]);
    }
}

/// Real kernels, cut where headers, sections and payload end.
#[test]
fn linux_kernels_cut_short() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    let Some(image) = image() else { return };
    for path in [&image.vmlinux, &image.bzimage] {
        let whole = std::fs::read(path).unwrap();
        for len in [3, 64, 0x202, 0x206, 0x260, 4096, whole.len() / 2, whole.len() * 9 / 10] {
            let path = folder.file("kernel", &whole[..len]);
            let error = refused(&Config { memory_bytes: MEMORY_BYTES, ..linux(&path) });
            assert!(matches!(error, Error::Boot(_)), "{error:?}");
            assert_names(&error, &[path.to_str().unwrap(), &format!("{len} bytes")]);
        }
    }
}

#[test]
fn a_kernel_too_large_for_the_guest() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    // Too large by its file, by its memory, by one byte, or by where it lies.
    let larger_file = Elf { content: vec![0xf4; 9 << 20], memory_bytes: 9 << 20, ..Elf::small() };
    let larger_memory = Elf { memory_bytes: 7 * MIB + 1, ..Elf::small() };
    let enormous = Elf { memory_bytes: u64::MAX, ..Elf::small() };
    let farther = Elf { address: 8 * MIB, entry: 8 * MIB, ..Elf::small() };
    let in_the_gap = Elf { address: 3 * GIB, entry: 3 * GIB, ..Elf::small() };
    for (name, elf) in [
        ("larger_file", larger_file),
        ("larger_memory", larger_memory),
        ("enormous", enormous),
        ("farther", farther),
        ("in_the_gap", in_the_gap),
    ] {
        let error = refused(&linux(&folder.file("vmlinux", &elf.bytes())));
        let large =
            matches!(error, Error::Boot(boot::Error::Load { .. } | boot::Error::KernelTooLarge { .. }));
        assert!(large, "{name}: {error:?}");
    }
    let fits = Elf { memory_bytes: 7 * MIB, ..Elf::small() };
    Vm::boot(&linux(&folder.file("vmlinux", &fits.bytes())), Box::new(std::io::sink())).unwrap();

    let Some(image) = image() else { return };
    for path in [&image.vmlinux, &image.bzimage] {
        let error = refused(&Config { memory_bytes: 4 * MIB, ..linux(path) });
        assert!(matches!(error, Error::Boot(_)), "{error:?}");
        assert_names(&error, &[path.to_str().unwrap()]);
    }
}

#[test]
fn a_kernel_where_the_boot_structures_are() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    for (address, entry) in [(0x1000, 0x1000), (0x10_0000, 0xf_ffff), (0x10_0000, 0x10_0100), (0x10_0000, 0)]
    {
        let elf = Elf { address, entry, ..Elf::small() };
        let error = refused(&linux(&folder.file("vmlinux", &elf.bytes())));
        let low = matches!(error, Error::Boot(boot::Error::Load { .. } | boot::Error::KernelTooLow { .. }));
        assert!(low, "loaded at {address:#x}, entered at {entry:#x}: {error:?}");
    }
}

#[test]
fn an_initramfs_that_cannot_be() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    let kernel = folder.file("vmlinux", &Elf::small().bytes());

    let missing = folder.path().join("missing");
    let error = refused(&linux_with(&kernel, Some(missing.clone()), "quiet"));
    assert!(matches!(error, Error::Boot(boot::Error::Read { what: "initramfs", .. })), "{error:?}");
    assert_names(&error, &[missing.to_str().unwrap(), "No such file"]);

    let room_bytes = 7 * MIB - 4096;
    for (len_bytes, fits) in [(room_bytes, true), (room_bytes + 1, false), (20 * MIB, false)] {
        let path = folder.file("initramfs", &vec![0x55; usize::try_from(len_bytes).unwrap()]);
        let config = linux_with(&kernel, Some(path.clone()), "quiet");
        if fits {
            Vm::boot(&config, Box::new(std::io::sink())).unwrap();
            continue;
        }
        let error = refused(&config);
        let Error::Boot(boot::Error::InitramfsTooLarge { len_bytes: found, room_bytes: room, .. }) = error
        else {
            panic!("{error:?}")
        };
        assert_eq!((found, room), (len_bytes, room_bytes));
        assert_names(&error, &[path.to_str().unwrap(), &len_bytes.to_string(), &room_bytes.to_string()]);
    }
}

#[test]
fn a_command_line_that_cannot_be() {
    let Some(_room) = room_for(0) else { return };
    let folder = Folder::new();
    let kernel = folder.file("vmlinux", &Elf::small().bytes());
    let error = refused(&linux_with(&kernel, None, &"x".repeat(2048)));
    let Error::Boot(boot::Error::CommandLineTooLong { len_bytes, added_bytes }) = error else {
        panic!("{error:?}")
    };
    assert_eq!(len_bytes, 2048 + added_bytes);
    assert_names(&error, &[&len_bytes.to_string(), "2047", &added_bytes.to_string()]);
    for text in ["a\0b", "a\nb", "ä"] {
        let error = refused(&linux_with(&kernel, None, text));
        assert!(matches!(error, Error::Boot(boot::Error::CommandLineCharacters)), "{error:?}");
    }
    assert!(command_line().len() < 1024);
}

#[test]
fn a_flat_image_that_cannot_be() {
    let Some(_room) = room_for(0) else { return };
    let flat = |len: u64| {
        let image = Cow::Owned(vec![0xf4; usize::try_from(len).unwrap()]);
        Config::new(MIB, Kernel::Flat { image })
    };
    assert!(matches!(refused(&flat(0)), Error::Boot(boot::Error::FlatEmpty)));
    let error = refused(&flat(512 * KIB + 1));
    assert!(matches!(error, Error::Boot(boot::Error::FlatTooLarge { .. })), "{error:?}");
    assert_names(&error, &[&(512 * KIB + 1).to_string(), &(512 * KIB).to_string()]);
    Vm::boot(&flat(512 * KIB), Box::new(std::io::sink())).unwrap();
}

#[test]
fn refusals_leave_nothing_behind() {
    let Some(_room) = room_for(0) else { return };
    alone("bad_config::refusals_leave_nothing_behind", || {
        let folder = Folder::new();
        let kernel = folder.file("vmlinux", &Elf::small().bytes());
        let large = folder.file("initramfs", &vec![0; 20 << 20]);
        let refusals = [
            Config { vcpus: 17, ..pulse() },
            Config { memory_bytes: 64 * GIB, ..pulse() },
            Config { memory_bytes: 16 * GIB, backing: Backing::Shared(PageSize::Huge), ..pulse() },
            Config { memory_bytes: 4 * GIB, ..linux(folder.path()) },
            linux_with(&kernel, Some(large), "quiet"),
            linux_with(&kernel, None, &"x".repeat(2048)),
        ];
        let all = || refusals.iter().for_each(|config| drop(refused(config)));
        all();
        let before = Holdings::now();
        (0..20).for_each(|_| all());
        before.assert_no_more_now(0);
    });
}
