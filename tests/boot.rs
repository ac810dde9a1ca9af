//! Machines of every size and kind boot.

use std::collections::BTreeSet;

use cloner_testing::linux::{self, command_line};
use cloner_testing::{Guest, guest, huge_pages, room_for, value};
use guest_images::pulse::{Params, Work, check};
use vmm::Config;
use vmm::config::Kernel;
use vmm::memory::{Backing, GuestMemory, PageSize};

use crate::{GIB, MIB};

const NONCE: u64 = 0x0123_4567_89ab_cdef;

/// Boots `pulse` with `config` and checks what it reports: its vCPUs, its memory, its checksum.
fn boots(config: &Config, params: &Params) -> Guest {
    let guest = Guest::boot(config);
    let ready = guest.line("pulse: ready").text;
    assert_eq!(value(&ready, "nonce", 16), params.nonce);
    assert_eq!(value(&ready, "cpus", 10), u64::from(config.vcpus));
    assert_eq!(value(&ready, "touched", 10), params.touched_bytes);
    assert_eq!(value(&ready, "sum", 16), check::expected_sum(params));
    let beats = [guest.beat(), guest.beat(), guest.beat()];
    assert_eq!(beats, [1, 2, 3]);
    guest
}

#[test]
fn on_one_four_and_sixteen_vcpus() {
    let Some(_room) = room_for(1) else { return };
    for vcpus in [1, 4, 16] {
        let params = Params { work: Work::SelfTest, ..Params::new(NONCE, MIB) };
        let guest = boots(&guest::pulse(&params, 4 * MIB, vcpus), &params);
        // Every vCPU reports with every beat, in no particular order: they take turns at the console as they come.
        let mut silent: BTreeSet<u64> = (0..u64::from(vcpus)).collect();
        while !silent.is_empty() {
            let report = guest.line("pulse: self-test cpu=").text;
            assert!(report.contains(" ok rounds="), "{report}");
            silent.remove(&value(&report, "cpu", 10));
        }
    }
}

/// Covers the smallest guest, odd ends of chunks, and memory on both sides of the gap.
#[test]
fn with_one_mebibyte_to_five_gibibytes() {
    let Some(_room) = room_for(1) else { return };
    for (memory_bytes, touched_bytes) in [
        (MIB, 0),
        (MIB + 4096, 4096),
        (7 * MIB, 6 * MIB),
        (3 * GIB, MIB),
        (3 * GIB + 4096, MIB),
        (5 * GIB, MIB),
    ] {
        let params = Params { beat_ms: 20, ..Params::new(NONCE, touched_bytes) };
        let guest = boots(&guest::pulse(&params, memory_bytes, 1), &params);
        assert_eq!(guest.vm.memory().layout().size_bytes(), memory_bytes);
        guest::verify(&params, guest.pause().memory());
    }
}

#[test]
fn on_every_kind_of_memory() {
    let Some(_room) = room_for(1) else { return };
    const MEMORY_BYTES: u64 = 8 * MIB;
    // Twice as many, because the pages of one guest come back only some time after it has ended.
    let pages = usize::try_from(2 * MEMORY_BYTES / (2 * MIB)).unwrap();
    let huge = huge_pages(pages);
    // If there are none, a note has said so, and the other kinds are tried all the same.
    let huge_pages = huge.is_some().then_some(PageSize::Huge);
    for pages in [PageSize::Base, PageSize::Transparent].into_iter().chain(huge_pages) {
        for backing in [Backing::Private(pages), Backing::Shared(pages)] {
            let params = Params { beat_ms: 20, ..Params::new(NONCE, 4 * MIB) };
            let config = Config { backing, ..guest::pulse(&params, MEMORY_BYTES, 1) };
            let guest = boots(&config, &params);
            assert_eq!(guest.vm.memory().backing().to_string(), config.backing.to_string());
            guest::verify(&params, guest.pause().memory());
        }
    }
    if let Some(huge) = huge {
        huge.assert_all_back();
    }
}

/// Untouched pages are recognized without reading them; otherwise a save would read all of a large guest's memory.
#[test]
fn and_leaves_memory_untouched_that_it_does_not_use() {
    let Some(_room) = room_for(1) else { return };
    let params = Params::new(NONCE, MIB);
    for backing in [Backing::Private(PageSize::Base), Backing::Shared(PageSize::Base)] {
        let guest = boots(&Config { backing, ..guest::pulse(&params, 256 * MIB, 1) }, &params);
        let touched = touched_pages(guest.pause().memory());
        // Only the filled memory and some 40 pages more for the image, boot structures and page tables.
        assert!((256..320).contains(&touched), "{touched} pages");
    }
}

fn touched_pages(memory: &GuestMemory) -> u32 {
    let region = &memory.regions()[0];
    let pages = region.mapping().len_bytes() / 4096;
    let mut bitmap = vec![0_u64; pages.div_ceil(64)];
    region.touched(0, pages, &mut bitmap).unwrap();
    bitmap.iter().map(|word| word.count_ones()).sum()
}

/// The kernel runs as far as its decompressor: where ring 0 is emulated, the rest would take minutes.
#[test]
fn a_bzimage_is_entered() {
    let Some(_room) = room_for(1) else { return };
    let Some(image) = linux::image() else { return };
    let kernel = Kernel::Linux {
        path: image.bzimage.clone(),
        initramfs: None,
        cmdline: format!("{} earlyprintk=serial,ttyS0,115200", command_line()),
    };
    let guest = Guest::boot(&Config::new(128 * MIB, kernel));
    guest.line("early console in extract_kernel");
}
