//! Which pages of a mapping have ever been touched.
//!
//! Source: `Documentation/admin-guide/mm/pagemap.rst`. Each 8-byte entry of `/proc/self/pagemap` describes one virtual
//! page; bit 63 says that it is present, bit 62 that it is swapped out, bit 56 that no other process maps it. A page that is
//! neither present nor swapped out was never touched (or was given back) and reads as zero, or as the template's page if the
//! mapping is private over a file.
//!
//! `mincore` is not a substitute: for anonymous memory it does not count a page that was swapped out.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use super::page::PAGE_SIZE;

const ENTRY_SIZE: usize = 8;
const ENTRIES_PER_READ: usize = 512;
const PRESENT_OR_SWAPPED: u64 = 0b11 << 62;

/// Bit 56 of an entry: no other process has the page mapped.
const OWN: u64 = 1 << 56;

/// Bits 0 to 54 of an entry: the number of the physical page. Zero for readers without `CAP_SYS_ADMIN`.
const FRAME: u64 = (1 << 55) - 1;

/// The page table of a process, as a file.
#[derive(Debug)]
pub(crate) struct Pagemap(File);

impl Pagemap {
    /// Opens the page table of this process.
    ///
    /// # Errors
    /// The kernel's reason for not opening the file. Permission is never one: a process may always open its own.
    pub(crate) fn open() -> io::Result<Self> {
        File::open("/proc/self/pagemap").map(Self)
    }

    /// Opens the page table of process `pid`.
    ///
    /// # Errors
    /// The kernel's reason for not opening the file: there is no such process, or this one may not look into it.
    pub(crate) fn of(pid: u32) -> io::Result<Self> {
        File::open(format!("/proc/{pid}/pagemap")).map(Self)
    }

    /// Counts the `pages` pages from `host_address` on that this process has, and that `other` maps to a different physical page or
    /// not at all.
    ///
    /// Without `CAP_SYS_ADMIN`, the kernel does not show where pages are. Then this counts the pages that this process alone has
    /// mapped, which are fewer if a third process shares some of them.
    ///
    /// # Errors
    /// The kernel's error from reading either page table, and `UnexpectedEof` if it answered for fewer pages.
    pub(crate) fn parted(&self, other: &Self, host_address: u64, pages: usize) -> io::Result<usize> {
        let mut buffers = [[0; ENTRIES_PER_READ * ENTRY_SIZE]; 2];
        let mut parted = 0;
        let mut page = 0;
        while page < pages {
            let batch = (pages - page).min(ENTRIES_PER_READ);
            let at = (host_address / PAGE_SIZE as u64 + page as u64) * ENTRY_SIZE as u64;
            for (map, entries) in [self, other].into_iter().zip(&mut buffers) {
                map.0.read_exact_at(&mut entries[..batch * ENTRY_SIZE], at)?;
            }
            let [ours, theirs] = &buffers;
            let (ours, theirs) = (ours.as_chunks().0, theirs.as_chunks().0);
            for (ours, theirs) in ours[..batch].iter().zip(theirs) {
                let (ours, theirs) = (u64::from_ne_bytes(*ours), u64::from_ne_bytes(*theirs));
                if ours & PRESENT_OR_SWAPPED == 0 {
                    continue;
                }
                let is_parted =
                    if ours & FRAME == 0 { ours & OWN != 0 } else { ours & FRAME != theirs & FRAME };
                parted += usize::from(is_parted);
            }
            page += batch;
        }
        Ok(parted)
    }

    /// Counts the pages from `host_address` on that are present or swapped out, and how many of them are present and not mapped by
    /// any other process.
    ///
    /// # Errors
    /// As for [`Pagemap::touched`].
    pub(crate) fn own(&self, host_address: u64, pages: usize) -> io::Result<(usize, usize)> {
        let (mut present, mut own) = (0, 0);
        let mut entries = [0; ENTRIES_PER_READ * ENTRY_SIZE];
        for page in (0..pages).step_by(ENTRIES_PER_READ) {
            let entries = &mut entries[..(pages - page).min(ENTRIES_PER_READ) * ENTRY_SIZE];
            let first = host_address / PAGE_SIZE as u64 + page as u64;
            self.0.read_exact_at(entries, first * ENTRY_SIZE as u64)?;
            for entry in entries.as_chunks().0 {
                let entry = u64::from_ne_bytes(*entry);
                present += usize::from(entry & PRESENT_OR_SWAPPED != 0);
                own += usize::from(entry & OWN != 0);
            }
        }
        Ok((present, own))
    }

    /// Sets bit `i` of `bitmap` when the page at `host_address + 4096 * i` is present or swapped out.
    ///
    /// Only the first `pages` bits are looked at; all others of `bitmap` are cleared.
    ///
    /// # Errors
    /// The kernel's error from reading the page table, and `UnexpectedEof` if it answered for fewer pages.
    ///
    /// # Panics
    /// If `bitmap` has fewer than `pages` bits.
    pub(crate) fn touched(&self, host_address: u64, pages: usize, bitmap: &mut [u64]) -> io::Result<()> {
        assert!(pages <= bitmap.len() * 64, "{pages} pages in {} words", bitmap.len());
        bitmap.fill(0);
        let mut entries = [0; ENTRIES_PER_READ * ENTRY_SIZE];
        let mut page = 0;
        while page < pages {
            let batch = (pages - page).min(ENTRIES_PER_READ);
            let entries = &mut entries[..batch * ENTRY_SIZE];
            let first = host_address / PAGE_SIZE as u64 + page as u64;
            self.0.read_exact_at(entries, first * ENTRY_SIZE as u64)?;
            for (i, entry) in entries.as_chunks::<ENTRY_SIZE>().0.iter().enumerate() {
                if u64::from_ne_bytes(*entry) & PRESENT_OR_SWAPPED != 0 {
                    bitmap[(page + i) / 64] |= 1 << ((page + i) % 64);
                }
            }
            page += batch;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::holder::{Holder, turn};
    use super::super::memfd;
    use super::super::mmap::{Mapping, MappingSource};
    use super::*;

    #[test]
    fn what_was_written_since_the_fork_is_counted_with_and_without_frames() {
        let _turn = turn();
        let mapping = Mapping::new(MappingSource::Anonymous, 600 * PAGE_SIZE, 0).unwrap();
        mapping.advise_huge_pages(false).unwrap();
        (0..550).for_each(|page| mapping.write(page * PAGE_SIZE, &[1]).unwrap());
        let holder = Holder::fork().unwrap();
        // Two pages that were there, in two batches, and one that was not.
        for page in [7, 513, 599] {
            mapping.write(page * PAGE_SIZE, &[2]).unwrap();
        }
        let (here, there) = (Pagemap::open().unwrap(), holder.pagemap().unwrap());
        assert_eq!(there.parted(&here, mapping.host_address(), 600).unwrap(), 2);
        // `parted` relies on this when it sees no frames.
        assert_eq!(there.own(mapping.host_address(), 600).unwrap(), (550, 2));
    }

    #[test]
    fn only_touched_pages_are_seen() {
        let mapping = Mapping::new(MappingSource::Anonymous, 600 * PAGE_SIZE, 0).unwrap();
        mapping.advise_huge_pages(false).unwrap();
        for page in [0, 63, 64, 599] {
            mapping.write(page * PAGE_SIZE, &[1]).unwrap();
        }
        let mut bitmap = [u64::MAX; 10];
        Pagemap::open().unwrap().touched(mapping.host_address(), 600, &mut bitmap).unwrap();
        let mut expected = [0; 10];
        expected[0] = 1 << 63 | 1;
        expected[1] = 1;
        expected[9] = 1 << (599 % 64);
        assert_eq!(bitmap, expected);
    }

    /// A page table as a file: these entries, and zeros before them.
    fn table(first: u64, entries: &[u64]) -> Pagemap {
        let file = memfd::create(c"pagemap", 0, false).unwrap();
        let bytes: Vec<u8> = entries.iter().flat_map(|entry| entry.to_ne_bytes()).collect();
        file.write_all_at(&bytes, first * ENTRY_SIZE as u64).unwrap();
        Pagemap(file)
    }

    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    /// Lengths of ranges just around one and two reads of the table, and around a word of a bitmap.
    const LENGTHS: [usize; 11] = [0, 1, 63, 64, 65, 511, 512, 513, 1023, 1024, 1025];
    const FIRST: u64 = 7;

    #[test]
    fn each_entry_counts_for_its_own_page_however_many_reads_it_takes() {
        let entry = |page: usize| match page % 7 {
            0 => PRESENT,
            1 => SWAPPED,
            2 => PRESENT | OWN,
            // Neither: what the other bits say means nothing.
            3 => OWN | 5,
            _ => 0,
        };
        for pages in LENGTHS {
            // The page before the range and the one after it are there, and must not count.
            let entries: Vec<u64> = (0..pages).map(entry).collect();
            let table = table(FIRST, &[&[PRESENT | OWN], &entries[..], &[PRESENT | OWN]].concat());
            let address = (FIRST + 1) * PAGE_SIZE as u64;
            let is_there = |page: &usize| entry(*page) & (PRESENT | SWAPPED) != 0;
            for spare in [0, 1, 64] {
                let mut bitmap = vec![u64::MAX; (pages + spare).div_ceil(64)];
                table.touched(address, pages, &mut bitmap).unwrap();
                let bits = (0..bitmap.len() * 64).filter(|page| bitmap[page / 64] >> (page % 64) & 1 == 1);
                assert!(bits.eq((0..pages).filter(is_there)), "{pages} pages");
            }
            let own = (0..pages).filter(|page| entry(*page) & OWN != 0).count();
            let own = (own, (0..pages).filter(is_there).count());
            assert_eq!(table.own(address, pages).unwrap(), (own.1, own.0), "{pages} pages");
        }
    }

    #[test]
    fn pages_part_when_frames_differ_or_without_frames_when_they_are_not_shared() {
        // Ours, theirs, and whether they have parted.
        let cases = [
            (PRESENT | 5, PRESENT | 5, false),
            (PRESENT | 5, PRESENT | 6, true),
            (PRESENT | 5, 0, true),
            (SWAPPED | 9, SWAPPED | 9, false),
            (SWAPPED | 9, PRESENT | 8, true),
            (PRESENT | OWN | 5, PRESENT | 5, false),
            (0, PRESENT | 6, false),
            (5, PRESENT | 6, false),
            (PRESENT, PRESENT | 6, false),
            (PRESENT | OWN, PRESENT, true),
            (OWN, 0, false),
        ];
        for pages in LENGTHS {
            let sides: Vec<_> = (0..pages).map(|page| cases[page % cases.len()]).collect();
            let [ours, theirs] = [|case: &(u64, u64, bool)| case.0, |case: &(u64, u64, bool)| case.1]
                .map(|side| table(FIRST, &sides.iter().map(side).chain([PRESENT | OWN]).collect::<Vec<_>>()));
            let parted = sides.iter().filter(|(.., parted)| *parted).count();
            let address = FIRST * PAGE_SIZE as u64;
            assert_eq!(ours.parted(&theirs, address, pages).unwrap(), parted, "{pages} pages");
        }
    }

    #[test]
    fn a_table_that_ends_early_is_an_error_and_not_untouched_pages() {
        for (there, asked) in [(0, 1), (511, 512), (512, 513), (1024, 1025)] {
            let (short, long) = (table(0, &vec![PRESENT; there]), table(0, &vec![PRESENT; asked]));
            let mut bitmap = vec![0; asked.div_ceil(64)];
            let errors = [
                short.touched(0, asked, &mut bitmap).unwrap_err(),
                short.own(0, asked).unwrap_err(),
                short.parted(&long, 0, asked).unwrap_err(),
                long.parted(&short, 0, asked).unwrap_err(),
            ];
            assert!(errors.iter().all(|error| error.kind() == io::ErrorKind::UnexpectedEof), "{errors:?}");
            assert!(short.touched(0, there, &mut bitmap).is_ok());
        }
        let too_small = std::panic::catch_unwind(|| table(0, &[0; 65]).touched(0, 65, &mut [0]));
        assert!(too_small.is_err(), "65 pages in one word");
    }
}
