//! The memory of a pool: which pages it is made of, and whether they are already provided.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};

use rayon::prelude::*;
use vmm::memory::{HUGE_PAGE_SIZE, PAGE_SIZE, PageSize};

use super::hugepages::HugePages;
use super::{Error, PoolConfig, available_bytes};
use crate::sys::arena::Span;

/// Which pages a pool is made of. [`provide`](super::provide()) leaves the choice to the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolPages {
    /// 2 MiB pages, or an error.
    Huge,
    /// Ordinary pages, even where huge ones are free.
    Ordinary,
}

/// When the kernel clears and provides the memory of a pool.
///
/// It costs the same either way; the question is which call waits for it. Measured on the development machine, whose own
/// memory is virtual: 0.2 ms per 2 MiB page, and 4.6 ms for pages that its host had not backed before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Populate {
    /// When the pool is made, on all of rayon's threads: no later put waits for it.
    AtOnce,
    /// When a page is first written. If the kernel breaks its promise then, because a `hugetlb` cgroup limit is below what it
    /// promised, the process dies of SIGBUS; [`Populate::AtOnce`] makes that an error.
    OnFirstUse,
}

/// Which pages a pool got.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PoolBacking {
    /// 2 MiB pages, set aside for this pool alone. They are never swapped out.
    Huge {
        /// Number of 2 MiB pages.
        pages: usize,
    },
    /// 4 KiB pages. They are taken when first touched, and the kernel may swap them out: on a host that has swap and runs
    /// short of memory, such a pool becomes slow, and its content is written to a disk.
    Ordinary,
}

impl fmt::Display for PoolBacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Huge { pages } => write!(f, "{pages} huge pages of 2 MiB"),
            Self::Ordinary => f.write_str("ordinary pages"),
        }
    }
}

/// Maps the arena that `config` describes: one span of its capacity, rounded up to whole huge pages.
pub(super) fn map(config: &PoolConfig) -> Result<(Span, PoolBacking), Error> {
    let &PoolConfig { capacity_bytes, pages, populate } = config;
    let len_bytes = capacity_bytes
        .checked_next_multiple_of(HUGE_PAGE_SIZE)
        .filter(|&len| len > 0 && isize::try_from(len).is_ok())
        .ok_or(Error::Capacity { capacity_bytes })?;

    let (mut span, backing) = match pages {
        PoolPages::Huge => map_huge(len_bytes)?,
        PoolPages::Ordinary => map_ordinary(len_bytes)?,
    };
    if populate == Populate::AtOnce {
        populate_all(&mut span, backing)?;
    }
    Ok((span, backing))
}

fn map_huge(len_bytes: usize) -> Result<(Span, PoolBacking), Error> {
    let wanted = len_bytes / HUGE_PAGE_SIZE;
    // The kernel is asked for the memory first, and for the numbers only if it refuses. The other way round, another process
    // could take the pages in between, and an allowance for surplus pages would be overlooked.
    match Span::map(len_bytes, PageSize::Huge) {
        Ok(span) => Ok((span, PoolBacking::Huge { pages: wanted })),
        Err(source) => {
            let host = HugePages::read()?;
            if host.available() < wanted {
                return Err(host.too_few(wanted).into());
            }
            Err(Error::Map { len_bytes, source })
        }
    }
}

fn map_ordinary(len_bytes: usize) -> Result<(Span, PoolBacking), Error> {
    // The kernel would promise any amount, and kill a process when it cannot keep the promise.
    let available_bytes = available_bytes()?;
    if len_bytes > available_bytes {
        return Err(Error::TooLittleMemory { wanted_bytes: len_bytes, available_bytes });
    }
    let map_error = |source: io::Error| Error::Map { len_bytes, source };
    let span = Span::map(len_bytes, PageSize::Base).map_err(map_error)?;
    Ok((span, PoolBacking::Ordinary))
}

/// Makes the kernel provide every page now.
///
/// The kernel does the writing, by reading `/dev/zero` into each page: a page that it cannot provide in spite of its promise,
/// such as under a `hugetlb` cgroup limit, is then an error of that call. If this program wrote it, it would get SIGBUS.
fn populate_all(span: &mut Span, backing: PoolBacking) -> Result<(), Error> {
    let page_size = match backing {
        PoolBacking::Huge { .. } => HUGE_PAGE_SIZE,
        PoolBacking::Ordinary => PAGE_SIZE,
    };
    let len_bytes = span.len_bytes();
    let provide = |range: &mut [u8]| {
        let mut zeros = File::open("/dev/zero")?;
        range.chunks_mut(page_size).try_for_each(|page| zeros.read_exact(&mut page[..1]))
    };
    let ranges = span.bytes_mut().par_chunks_mut(HUGE_PAGE_SIZE);
    ranges.try_for_each(provide).map_err(|source| Error::Populate { len_bytes, source })
}
