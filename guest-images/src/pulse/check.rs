//! The host's verdict on a guest's memory, word for word.
//!
//! What a filled page holds follows from the parameters and, if it was dirtied, from how far its vCPU had come
//! (`Permutation`, and the layout of a write in `asm::dirty`). Once a vCPU has finished write `s`, all its earlier writes are
//! known: position `p` of its slice was last written by the largest `k <= s` with
//! `(k - 1) mod N = p`. Only write `s + 1` may be under way, and then its stores form a prefix in ascending order,
//! because x86 makes stores visible in order. Everything else is a mix of times:
//!
//! - a page older or newer than its vCPU's sequence, or torn in a way that write `s + 1` cannot explain, is a
//!   [`Violation::Word`];
//! - slices from different times are a [`Violation::Order`]: every page names how far the *next* vCPU had come
//!   when it was written. That can be no more than that vCPU's own count, and it does not fall from one write to the
//!   next. So the memory is a consistent cut through all vCPUs, or the check fails.

use super::layout::PAGE_WORDS;
use super::params::{DirtyWork, Params, Work, WriteOrder};
use super::pattern::{Permutation, STRUCTURED, SUM_FACTOR, dirty_state, page, word};
use super::status::Status;

/// Memory that is not what the guest wrote up to one instant.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Violation {
    /// A word is not what its last write left.
    #[error(
        "{address:#x}: expected {expected:#018x}, found {found:#018x}, after {sequence} writes by its vCPU"
    )]
    Word {
        /// Guest-physical address of the word.
        address: u64,
        /// The word that should be there.
        expected: u64,
        /// The word that is there.
        found: u64,
        /// Number of writes that the page's vCPU has finished; 0 for a page that is never dirtied.
        sequence: u64,
    },
    /// A page names a count of another vCPU that does not fit: too high for that vCPU, or lower than an earlier page names.
    #[error("{address:#x}: vCPU {cpu} was seen at write {seen}, but only {low} to {high} are possible")]
    Order {
        /// Guest-physical address of the page.
        address: u64,
        /// Index of the other vCPU.
        cpu: usize,
        /// The count of finished writes that the page names.
        seen: u64,
        /// The lowest count that fits the pages written before.
        low: u64,
        /// The other vCPU's own count.
        high: u64,
    },
}

/// The checksum that the guest announces when it is ready, computed from the parameters alone.
#[must_use]
pub fn expected_sum(params: &Params) -> u64 {
    (0..params.touched_pages()).fold(0, |sum, index| add_to_sum(sum, &page(params, index).1))
}

/// The checksum of the filled memory as it is now.
///
/// `read` fills a buffer from a guest-physical address; `low_bytes` is the memory below the MMIO gap.
pub fn sum(params: &Params, low_bytes: u64, read: impl Fn(u64, &mut [u8])) -> u64 {
    (0..params.touched_pages())
        .fold(0, |sum, index| add_to_sum(sum, &read_page(&read, Params::page_address(low_bytes, index))))
}

fn add_to_sum(sum: u64, words: &[u64; PAGE_WORDS]) -> u64 {
    words.iter().fold(sum, |sum, &word| sum.wrapping_mul(SUM_FACTOR).wrapping_add(word))
}

fn read_page(read: &impl Fn(u64, &mut [u8]), address: u64) -> [u64; PAGE_WORDS] {
    let mut bytes = [0; 8 * PAGE_WORDS];
    read(address, &mut bytes);
    let mut words = [0; PAGE_WORDS];
    for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(8)) {
        *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
    }
    words
}

/// Checks every word of the filled memory of a stopped guest against its parameters and its status block, which must
/// be of the same instant.
///
/// `read` fills a buffer from a guest-physical address; `low_bytes` is the memory below the MMIO gap.
///
/// # Errors
/// The first [`Violation`] that is found: a word or a page that is not of that instant.
pub fn verify(
    params: &Params,
    status: &Status,
    low_bytes: u64,
    read: impl Fn(u64, &mut [u8]),
) -> Result<(), Violation> {
    let memory = Memory { params, low_bytes, read };
    let mut dirtied = 0;
    if let Work::Dirty(dirty) = params.work {
        let slice_pages = params.working_set_pages() / status.cpus.len() as u64;
        for cpu in 0..status.cpus.len() {
            memory.verify_slice(status, cpu, slice_pages, dirty)?;
        }
        dirtied = slice_pages * status.cpus.len() as u64;
    }
    for index in dirtied..params.touched_pages() {
        memory.verify_words(index, 0, &page(params, index).1, &memory.page(index))?;
    }
    Ok(())
}

struct Memory<'a, Read> {
    params: &'a Params,
    low_bytes: u64,
    read: Read,
}

impl<Read: Fn(u64, &mut [u8])> Memory<'_, Read> {
    fn page(&self, index: u64) -> [u64; PAGE_WORDS] {
        read_page(&self.read, self.address(index))
    }

    fn address(&self, index: u64) -> u64 {
        Params::page_address(self.low_bytes, index)
    }

    /// Checks the slice of one vCPU, in the order of its writes, oldest first.
    fn verify_slice(
        &self,
        status: &Status,
        cpu: usize,
        pages: u64,
        dirty: DirtyWork,
    ) -> Result<(), Violation> {
        let next_cpu = (cpu + 1) % status.cpus.len();
        let high = status.cpus[next_cpu].sequence;
        let done = status.cpus[cpu].sequence;
        let permutation = Permutation::new(pages, dirty.order == WriteOrder::Random);
        let mut low = 0;
        for turn in 0..pages {
            // The page that write `done + 1 + turn - pages` went to, if there was one, is also the next in line, `turn`
            // writes from now.
            let position = (done + turn) % pages;
            let index = cpu as u64 * pages + permutation.page(position);
            let last_write = (done + 1 + turn).checked_sub(pages).filter(|&k| k > 0);
            let found = self.page(index);
            let before = self.expected(index, cpu, last_write, dirty, &found);
            let expected = if turn == 0 {
                let after = self.expected(index, cpu, Some(done + 1), dirty, &found);
                prefix_of_write(&before, &after, &found)
            } else {
                before
            };
            self.verify_words(index, done, &expected, &found)?;
            // Word 1 was taken as found: only its order can be judged.
            let begun = turn == 0 && found[0] == done + 1;
            if last_write.is_some() && !begun {
                let seen = found[1];
                if seen < low || seen > high {
                    return Err(Violation::Order {
                        address: self.address(index),
                        cpu: next_cpu,
                        seen,
                        low,
                        high,
                    });
                }
                low = seen;
            }
        }
        Ok(())
    }

    /// Page `index` after write `sequence` and all earlier ones. Word 1 is taken from `found`.
    fn expected(
        &self,
        index: u64,
        cpu: usize,
        sequence: Option<u64>,
        dirty: DirtyWork,
        found: &[u64; PAGE_WORDS],
    ) -> [u64; PAGE_WORDS] {
        let (_, mut words) = page(self.params, index);
        if let Some(sequence) = sequence {
            words[0] = sequence;
            words[1] = found[1];
            let state = dirty_state(self.params.seed, cpu as u64, sequence);
            for at in written_words(dirty) {
                words[at] = word(&STRUCTURED, state, at as u64);
            }
        }
        words
    }

    fn verify_words(
        &self,
        index: u64,
        sequence: u64,
        expected: &[u64; PAGE_WORDS],
        found: &[u64; PAGE_WORDS],
    ) -> Result<(), Violation> {
        match (0..PAGE_WORDS).find(|&at| expected[at] != found[at]) {
            None => Ok(()),
            Some(at) => Err(Violation::Word {
                address: self.address(index) + 8 * at as u64,
                expected: expected[at],
                found: found[at],
                sequence,
            }),
        }
    }
}

/// Indices of the words after the header that a write stores, in the order of the stores.
fn written_words(dirty: DirtyWork) -> impl Iterator<Item = usize> {
    let stride = PAGE_WORDS / usize::from(dirty.words_per_page);
    (stride.max(2)..PAGE_WORDS).step_by(stride)
}

/// The state on the way from `before` to `after` that `found` should be in: words are stored in ascending order, so the
/// first one that is not new yet ends the new ones.
fn prefix_of_write(
    before: &[u64; PAGE_WORDS],
    after: &[u64; PAGE_WORDS],
    found: &[u64; PAGE_WORDS],
) -> [u64; PAGE_WORDS] {
    let stored = (0..PAGE_WORDS).find(|&at| found[at] != after[at]).unwrap_or(PAGE_WORDS);
    std::array::from_fn(|at| if at < stored { after[at] } else { before[at] })
}
