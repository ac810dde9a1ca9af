//! Accesses, and odd ends: a region that ends inside a word of a bitmap, inside a huge page or inside a chunk, with every way memory can
//! lie. Memory on reserved huge pages has no odd ends: its size is a multiple of 2 MiB.

use std::os::unix::fs::FileExt;

use super::layout::{MMIO_GAP_END, MMIO_GAP_START};
use super::*;
use crate::sys::holder;

/// Pages of guests whose only region ends just before, at and after a word of a bitmap, a read of the page table, and 2 MiB.
const SIZES: [usize; 9] = [256, 257, 319, 511, 512, 513, 1023, 1025, 1088];

fn layout(pages: usize) -> Layout {
    Layout::new((pages * PAGE_SIZE) as u64).unwrap()
}

/// A guest with this many pages above the gap for devices.
fn above_gap(pages: usize) -> Layout {
    Layout::new(MMIO_GAP_START + (pages * PAGE_SIZE) as u64).unwrap()
}

/// Ways to lie that need neither huge pages nor another process, for memory of this layout. Templates hold zeros.
fn backings(layout: Layout) -> [Backing; 5] {
    let template = memfd::create(c"template", layout.size_bytes(), false).unwrap();
    [
        Backing::Private(PageSize::Base),
        Backing::Private(PageSize::Transparent),
        Backing::Shared(PageSize::Base),
        Backing::Shared(PageSize::Transparent),
        Backing::OverTemplate(Arc::new(template)),
    ]
}

/// Which pages of a region `memory` says were touched, out of those from `first` on. All bits after them are clear.
fn touched(memory: &dyn StillMemory, region: usize, first: usize, pages: usize) -> Vec<usize> {
    let mut bitmap = vec![u64::MAX; pages.div_ceil(64) + 2];
    memory.touched(region, first * PAGE_SIZE, pages, &mut bitmap).unwrap();
    let bits = (0..bitmap.len() * 64).filter(|page| bitmap[page / 64] >> (page % 64) & 1 == 1);
    let bits: Vec<usize> = bits.map(|page| first + page).collect();
    assert!(bits.iter().all(|page| *page < first + pages), "bits beyond the {pages} pages from {first} on");
    bits
}

/// Windows of a region of so many pages: all of it, its ends, and everything around a word of a bitmap.
fn windows(pages: usize) -> Vec<(usize, usize)> {
    let mut windows = vec![(0, pages), (0, 1), (pages - 1, 1), (pages - 65, 65), (pages - 64, 64), (1, 63)];
    windows.extend([(1, 64), (63, 65), (64, 128), (65, pages - 65), (pages, 0)]);
    windows
}

/// Asserts that `memory` holds exactly what was written to these pages of a region: their number in the last byte of each.
fn assert_holds(memory: &dyn StillMemory, region: usize, pages: usize, written: &[usize], what: &str) {
    for (first, count) in windows(pages) {
        let mut bytes = vec![0x77; count * PAGE_SIZE];
        memory.read(region, first * PAGE_SIZE, &mut bytes).unwrap();
        for (page, bytes) in bytes.chunks(PAGE_SIZE).enumerate() {
            let page = first + page;
            let last = if written.contains(&page) { mark(page) } else { 0 };
            assert!(bytes[..PAGE_SIZE - 1].iter().all(|byte| *byte == 0), "{what}: page {page}");
            assert_eq!(bytes[PAGE_SIZE - 1], last, "{what}: page {page}");
        }
    }
    // A region ends where it ends.
    let end = pages * PAGE_SIZE;
    assert!(memory.read(region, end - 1, &mut [0; 2]).is_err(), "{what}");
    assert!(memory.read(region, end, &mut [0; 1]).is_err(), "{what}");
    memory.read(region, end, &mut []).unwrap();
    for (first, count) in [(0, pages + 1), (pages, 1), (pages - 64, 65)] {
        let mut bitmap = vec![0; pages.div_ceil(64) + 1];
        assert!(memory.touched(region, first * PAGE_SIZE, count, &mut bitmap).is_err(), "{what}");
    }
}

fn mark(page: usize) -> u8 {
    u8::try_from(page % 251 + 1).unwrap()
}

/// Writes the last byte of each of these pages.
fn write(memory: &GuestMemory, region: usize, pages: &[usize]) {
    for page in pages {
        memory.regions()[region].write(page * PAGE_SIZE + PAGE_SIZE - 1, &[mark(*page)]).unwrap();
    }
}

fn at_edges(pages: usize) -> Vec<usize> {
    let mut edges = vec![0, 63, 64, pages / 2 + 7, pages - 2, pages - 1];
    edges.sort_unstable();
    edges.dedup();
    edges
}

#[test]
fn exactly_the_touched_pages_up_to_an_odd_end_are_seen_on_every_kind_of_memory() {
    for pages in SIZES {
        let written = at_edges(pages);
        for backing in backings(layout(pages)) {
            let what = format!("{pages} pages, {backing}");
            let memory = GuestMemory::new(layout(pages), backing).unwrap();
            memory.regions()[0].mapping().advise_huge_pages(false).unwrap();
            write(&memory, 0, &written);
            for (first, count) in windows(pages) {
                let window = first..first + count;
                let expected: Vec<usize> = match memory.backing() {
                    Backing::OverTemplate(_) => window.collect(),
                    _ => written.iter().copied().filter(|page| window.contains(page)).collect(),
                };
                assert_eq!(touched(&memory, 0, first, count), expected, "{what}: {count} from {first}");
            }
            assert_holds(&memory, 0, pages, &written, &what);
        }
    }
}

#[test]
fn frozen_memory_ends_where_its_source_does() {
    let _turn = holder::turn();
    for (layout, region, pages) in [(layout(257), 0, 257), (layout(1025), 0, 1025), (above_gap(319), 1, 319)]
    {
        let template = memfd::create(c"template", layout.size_bytes(), false).unwrap();
        for backing in [Backing::Private(PageSize::Base), Backing::OverTemplate(Arc::new(template))] {
            let what = format!("{pages} pages of region {region}, {backing}");
            let memory = GuestMemory::new(layout, backing).unwrap();
            let written = at_edges(pages);
            write(&memory, region, &written);
            let frozen = FrozenMemory::of(&memory).unwrap();
            // The source runs on.
            write(&memory, region, &[1, 2, pages - 3]);
            let over_template = matches!(memory.backing(), Backing::OverTemplate(_));
            for (first, count) in windows(pages) {
                let there = (first..first + count).filter(|page| over_template || written.contains(page));
                assert!(touched(frozen.memory(), region, first, count).into_iter().eq(there), "{what}");
            }
            assert_holds(frozen.memory(), region, pages, &written, &what);
            let address = layout.ranges().nth(region).unwrap().start + (pages * PAGE_SIZE) as u64 - 1;
            let mut byte = [0];
            frozen.memory().read_guest(address, &mut byte).unwrap();
            assert_eq!(byte, [mark(pages - 1)]);
            assert!(frozen.memory().read_guest(address + 1, &mut byte).is_err());
            assert!(frozen.memory().read_guest(address, &mut [0; 2]).is_err());
            let other = GuestMemory::new(layout, Backing::Private(PageSize::Base)).unwrap();
            assert_eq!(frozen.copied_pages(&other).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}

#[test]
fn shared_memory_cannot_be_frozen() {
    let memory = GuestMemory::new(layout(257), Backing::Shared(PageSize::Base)).unwrap();
    let error = FrozenMemory::of(&memory).unwrap_err();
    assert!(matches!(error, frozen::Error::NotPrivate(_)), "{error}");
}

#[test]
fn pages_that_were_copied_since_the_freeze_are_counted_in_all_regions() {
    let _turn = holder::turn();
    let memory = GuestMemory::new(above_gap(319), Backing::Private(PageSize::Base)).unwrap();
    for region in [0, 1] {
        write(&memory, region, &[0, 1, 200, 318]);
    }
    let frozen = FrozenMemory::of(&memory).unwrap();
    assert_eq!(frozen.copied_pages(&memory).unwrap(), 0);
    write(&memory, 0, &[200]);
    write(&memory, 1, &[1, 318]);
    assert_eq!(frozen.copied_pages(&memory).unwrap(), 3);
}

#[test]
fn a_holder_that_has_fewer_huge_pages_than_before_is_noticed_unless_all_pages_are_there() {
    let pages = 257;
    let memory = GuestMemory::new(layout(pages), Backing::Private(PageSize::Base)).unwrap();
    write(&memory, 0, &(0..200).collect::<Vec<_>>());
    let held_as = |held| {
        let addresses = memory.host_addresses().collect();
        RemoteMemory::new(std::process::id(), None, memory.layout(), addresses, held).unwrap()
    };
    let had_some = held_as(RemotePages::Huge { bytes: 1 << 40 });
    let mut bitmap = [0; 5];
    had_some.touched(0, 0, 200, &mut bitmap).unwrap();
    for pages in [201, 257] {
        let error = had_some.touched(0, 0, pages, &mut bitmap).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::OutOfMemory, "{error}");
    }
    held_as(RemotePages::Huge { bytes: 0 }).touched(0, 0, 257, &mut bitmap).unwrap();
    held_as(RemotePages::Private).touched(0, 0, 257, &mut bitmap).unwrap();
}

#[test]
fn a_template_gives_each_region_its_own_part_of_the_file() {
    let layout = above_gap(65);
    let file = memfd::create(c"template", layout.size_bytes(), false).unwrap();
    for (at, text) in [(0, "first"), (MMIO_GAP_START - 5, "below"), (MMIO_GAP_START, "above")] {
        file.write_all_at(text.as_bytes(), at).unwrap();
    }
    file.write_all_at(b"final", layout.size_bytes() - 5).unwrap();
    let memory = GuestMemory::new(layout, Backing::OverTemplate(Arc::new(file))).unwrap();
    let last = MMIO_GAP_END + 65 * PAGE_SIZE as u64 - 5;
    for (address, text) in
        [(0, "first"), (MMIO_GAP_START - 5, "below"), (MMIO_GAP_END, "above"), (last, "final")]
    {
        let mut bytes = [0; 5];
        memory.read(address, &mut bytes).unwrap();
        assert_eq!(bytes, text.as_bytes(), "{address:#x}");
    }
}

#[test]
fn a_bitmap_of_everything_ends_with_the_pages() {
    for pages in (0..=130_usize).chain([191, 192, 193, 511, 512]) {
        for words in pages.div_ceil(64)..pages.div_ceil(64) + 3 {
            let mut bitmap = vec![0x5555_aaaa_5555_aaaa; words];
            set_first(pages, &mut bitmap);
            let is_set = |page: usize| bitmap[page / 64] >> (page % 64) & 1 == 1;
            assert!((0..words * 64).all(|page| is_set(page) == (page < pages)), "{pages} pages: {bitmap:x?}");
        }
    }
    assert!(std::panic::catch_unwind(|| set_first(65, &mut [0])).is_err());
}

#[test]
fn dirty_pages_are_known_up_to_an_odd_end_in_each_region() {
    for (layout, region, pages) in [(layout(257), 0, 257), (layout(320), 0, 320), (above_gap(65), 1, 65)] {
        let memory = GuestMemory::new(layout, Backing::Private(PageSize::Base)).unwrap();
        dirty::track::<dirty::Error>(&memory, || Ok(())).unwrap();
        let written = at_edges(pages);
        write(&memory, region, &written);
        // Two bytes at the edge of two pages make both dirty, and not the region's neighbour.
        let start = layout.ranges().nth(region).unwrap().start;
        memory.write(start + 5 * PAGE_SIZE as u64 - 1, &[1, 2]).unwrap();
        let mut expected = [written, vec![4, 5]].concat();
        expected.sort_unstable();
        for round in 0..2 {
            let set = DirtySet::take(&memory).unwrap();
            assert_eq!(set.pages(), expected.len(), "round {round}");
            let words = pages.div_ceil(64);
            for first_word in 0..=words + 1 {
                let mut bitmap = [u64::MAX; 3];
                set.copy_to(region, first_word, &mut bitmap);
                let bits = (first_word * 64..(first_word + 3) * 64)
                    .filter(|page| bitmap[page / 64 - first_word] >> (page % 64) & 1 == 1);
                let wanted = expected.iter().copied().filter(|page| page / 64 >= first_word);
                assert!(bits.eq(wanted.filter(|page| page / 64 < first_word + 3)), "from word {first_word}");
            }
            // Dropping the set puts all of them back, also those of the last, short word.
        }
    }
}

#[test]
fn only_whole_huge_pages_are_ranges_that_can_be_put_together() {
    for pages in [256, 511, 512, 513, 1023, 1024, 1025] {
        let memory = GuestMemory::new(layout(pages), Backing::Private(PageSize::Transparent)).unwrap();
        assert_eq!(memory.huge_ranges().len(), pages / 512, "{pages} pages");
        for range in memory.huge_ranges() {
            assert_eq!(memory.sharing(range).unwrap().present, 0);
        }
    }
    let memory = GuestMemory::new(above_gap(512 + 37), Backing::Private(PageSize::Transparent)).unwrap();
    let ranges = memory.huge_ranges();
    assert_eq!(ranges.len(), 1536 + 1);
    memory.write(MMIO_GAP_END + 100, &[1]).unwrap();
    memory.write(MMIO_GAP_START - 100, &[1]).unwrap();
    let present = ranges.iter().map(|range| memory.sharing(*range).unwrap().present);
    let present: Vec<usize> =
        present.enumerate().filter(|(_, present)| *present > 0).map(|(i, _)| i).collect();
    assert_eq!(present, [1535, 1536]);
}

#[test]
fn a_read_of_another_process_that_ends_early_is_an_error() {
    let mapping = Mapping::new(MappingSource::Anonymous, 3 * PAGE_SIZE, 0).unwrap();
    mapping.write(0, &[5; 3 * PAGE_SIZE]).unwrap();
    mapping.forbid(2 * PAGE_SIZE, PAGE_SIZE).unwrap();
    let read = |offset: usize, len| {
        let mut bytes = vec![0; len];
        let address = mapping.host_address() + offset as u64;
        crate::sys::process::read_memory(std::process::id(), address, &mut bytes).map(|()| bytes)
    };
    assert_eq!(read(PAGE_SIZE, PAGE_SIZE).unwrap(), vec![5; PAGE_SIZE]);
    assert_eq!(read(0, 3 * PAGE_SIZE).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(read(2 * PAGE_SIZE - 1, 2).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
    assert_eq!(Errno::from_io_error(&read(2 * PAGE_SIZE, 1).unwrap_err()), Some(Errno::FAULT));
}

#[test]
fn accesses_reach_the_right_region_or_fail() {
    let layout = Layout::new(MMIO_GAP_START + (4 << 20)).unwrap();
    let memory = GuestMemory::new(layout, Backing::Private(PageSize::Base)).unwrap();
    for address in [0, MMIO_GAP_START - 4, MMIO_GAP_END, MMIO_GAP_END + (4 << 20) - 4] {
        let bytes = u32::try_from(address & 0xffff_ffff).unwrap().to_le_bytes();
        memory.write(address, &bytes).unwrap();
        let mut back = [0; 4];
        memory.read(address, &mut back).unwrap();
        assert_eq!(back, bytes);
    }
    for address in [MMIO_GAP_START - 3, MMIO_GAP_START, MMIO_GAP_END - 4, u64::MAX] {
        assert!(matches!(memory.write(address, &[0; 4]), Err(Error::NoMemory { .. })), "{address:#x}");
    }
}

#[test]
fn untouched_memory_is_known_without_reading_it() {
    let layout = Layout::new(4 << 20).unwrap();
    for backing in [Backing::Private(PageSize::Base), Backing::Shared(PageSize::Base)] {
        let memory = GuestMemory::new(layout, backing).unwrap();
        memory.write(0x1234, &[0]).unwrap();
        let mut bitmap = [0; 16];
        memory.regions()[0].touched(0, 1024, &mut bitmap).unwrap();
        assert_eq!(bitmap[0], 2);
        assert!(bitmap[1..].iter().all(|word| *word == 0));
        assert!(memory.regions()[0].touched(4096, 1024, &mut bitmap).is_err());
    }
}

#[test]
fn more_than_the_host_has_is_refused_with_both_numbers() {
    let host = host_total_bytes();
    let Ok(layout) = Layout::new((host + (2 << 30)) & !0xfff) else { return };
    let error = GuestMemory::new(layout, Backing::Private(PageSize::Base)).unwrap_err();
    assert!(error.to_string().contains(&host.to_string()), "{error}");
}
